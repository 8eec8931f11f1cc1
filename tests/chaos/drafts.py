"""Right histories, and such as are to be made wrong."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, replace
from functools import cache
from itertools import combinations
from typing import Any

from tests.chaos.history import Call, Final, History
from tests.chaos.simulation import Setting, Simulation


@cache
def right(seed: int = 1, seconds: float = 5, **more: Any) -> History:
    """A history in which every promise was kept."""
    return Simulation(Setting(seed, seconds, **more)).run()


class Draft:
    """A right history, to be made wrong in one place."""

    def __init__(self) -> None:
        told = right()
        self.calls, self.faults = [*told.calls], [*told.faults]
        self.final = Final(**deepcopy(asdict(told.final)))

    @property
    def history(self) -> History:
        """As it is now."""
        return History(sorted(self.calls, key=lambda call: call.t0), self.faults, self.final)

    def answered(self, op: str, status: int = 200) -> Iterator[Call]:
        """The calls of an operation that were answered so."""
        return (call for call in self.calls if (call.op, call.status) == (op, status))

    def change(self, call: Call, **changes: Any) -> None:
        """Let a call have been another one."""
        self.calls[self.calls.index(call)] = replace(call, **changes)

    def commands(self, state: str, *, event: bool = False, actor: str = "user") -> Iterator[dict[str, Any]]:
        """Those that ended so, with an event or without."""
        made = {event["command_id"] for events in self.final.events.values() for event in events}
        for command in self.final.commands:
            if (command["state"], command["id"] in made, command["actor"]["type"]) == (state, event, actor):
                yield command

    def events(self, *verbs: str) -> Iterator[dict[str, Any]]:
        """What happened, agent by agent."""
        return (event for events in self.final.events.values() for event in events if event["verb"] in verbs)

    def shown(self) -> Iterator[tuple[Call, Call]]:
        """Two answers about one agent, the second asked for after the first had come, at a higher version."""
        gets = [*self.answered("get")]
        for first, second in combinations(gets, 2):
            newer = second.t0 > ended(first) and second.answer["version"] > first.answer["version"]
            if first.agent == second.agent and newer:
                yield first, second


def ended(call: Call) -> int:
    """When an answered call was answered."""
    assert call.t1 is not None
    return call.t1
