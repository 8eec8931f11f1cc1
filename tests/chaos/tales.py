"""Small histories, told call by call: right ones, and what must be changed in them to make them wrong."""

import random
from dataclasses import replace
from typing import Any

from tests.chaos.checks import Violation, check
from tests.chaos.doors import Server
from tests.chaos.evidence import ORDERS
from tests.chaos.history import Call, Fault, Final, History

SECOND = 10**9
NOBODY_KNOWS = {"t1": None, "status": None, "answer": None}
"""What is known of a call that was not answered."""

UNAVAILABLE = {"status": 503, "answer": {"errors": [{"code": "unavailable"}]}}
"""How a server answers that cannot do better now."""


class Tale:
    """Calls to the fleet in memory, at times in seconds; what is asked has its effect at once."""

    def __init__(self) -> None:
        self._server = Server(random.Random(0))  # noqa: S311  # nothing is left to chance here
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self._final: Final | None = None

    def spawn(self, t0: float, name: str = "scout") -> str:
        """A new agent's id."""
        call = self.ask("spawn", t0, key=f"spawn-{t0}", body={"name": name})
        return str(call.answer["agent_id"])

    def ask(self, op: str, t0: float, t1: float | None = None, agent: str | None = None, **more: Any) -> Call:
        """One call, and its answer; what is queued is applied before, where it is not `held_back`."""
        key, body, held_back = more.pop("key", None), more.pop("body", None), more.pop("held_back", False)
        reason = {"reason": key} if op in ORDERS or op == "by_filter" else {}
        sent = more if body is None else more | {"body": body | reason}
        begun = Call(0, op, int(t0 * SECOND), agent, key, sent)
        taken = self._server.take(begun, begun.t0)
        if not held_back:
            self.apply()
        if isinstance(taken, dict):
            taken = (self._server.answer(taken, op) if "wait" in sent else None) or (202, dict(taken))
        end = int((t0 + 0.1 if t1 is None else t1) * SECOND)
        self.calls.append(replace(begun, t1=end, status=taken[0], answer=taken[1]))
        return self.calls[-1]

    def apply(self) -> None:
        """All that waits."""
        while self._server.dirty:
            self._server.drain()

    def change(self, call: Call, **changes: Any) -> Call:
        """Let a call have been another one; times are in seconds."""
        times = {name: int(changes[name] * SECOND) for name in ("t0", "t1") if changes.get(name) is not None}
        changed = replace(call, **(changes | times))
        self.calls[self.calls.index(call)] = changed
        return changed

    def unanswered(self, call: Call) -> Call:
        """Let nobody know what became of it."""
        return self.change(call, **NOBODY_KNOWS)

    def wrong(self, began: float, healed: float, kind: str = "fault") -> None:
        """Something was, from one time to another."""
        self.faults.append(Fault(kind, "", int(began * SECOND), int(healed * SECOND)))

    @property
    def final(self) -> Final:
        """What there is in the end, to be changed; nothing can be asked any more."""
        if self._final is None:
            self.apply()
            self._final = self._server.final()
        return self._final

    def command(self, key: str) -> dict[str, Any]:
        """The command that was sent with this key or reason."""
        return next(command for command in self.final.commands if command["reason"] == key)

    @property
    def history(self) -> History:
        """The whole of it."""
        return History(sorted(self.calls, key=lambda call: call.t0), self.faults, self.final)

    def found(self) -> list[Violation]:
        """What is wrong with it."""
        return check(self.history)

    def accused(self) -> set[str]:
        """The checks that find something wrong with it."""
        return {violation.check for violation in self.found()}
