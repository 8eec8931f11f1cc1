"""Names that are to be one agent's alone, among those who live."""

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from tests.chaos.evidence import NEVER, Evidence, Sent, Violation


class Bearer(NamedTuple):
    """An agent that was to have its name alone: its spawn, and when it was sent that may have ended or renamed it."""

    agent: str
    spawn: Sent
    left: int

    def had_it_before(self, other: "Bearer") -> bool:
        """Whether it had the name for sure when the other spawn was accepted, if its own was accepted before."""
        return self.left > other.spawn.replied


def names(evidence: Evidence) -> Iterator[Violation]:
    """Two agents that got a name which each was to have alone, and both had it: of two whose spawns overlapped either
    may have been the first, and still had it then."""
    for name, bearers in _bearers(evidence).items():
        having: list[Bearer] = []
        for bearer in sorted(bearers, key=lambda one: one.spawn.first):
            having = [one for one in having if one.left > bearer.spawn.first]
            for one in having:
                after = one.spawn.replied < bearer.spawn.first
                if one.had_it_before(bearer) and (after or bearer.had_it_before(one)):
                    calls = (*one.spawn.calls, *bearer.spawn.calls)
                    yield Violation("names", f"{name} is {one.agent}'s, too, at the same time", bearer.agent, calls)
            having.append(bearer)


def _bearers(evidence: Evidence) -> dict[str, list[Bearer]]:
    found: dict[str, list[Bearer]] = defaultdict(list)
    for sent in evidence.sent:
        if sent.order is None or sent.order.verb != "spawn" or not sent.order.wanted.get("unique_name"):
            continue
        agent = sent.command["agent_id"]
        if sent.event is not None and agent in evidence.lives:
            name = sent.order.wanted["name"]
            found[name].append(Bearer(agent, sent, _left(agent, name, evidence)))
    return found


def _left(agent: str, name: str, evidence: Evidence) -> int:
    """When it was sent what ended the agent, or gave it another name; 0 where nobody knows, and at most never."""
    for life, event in zip(evidence.lives[agent][1:], evidence.history.final.events[agent], strict=True):
        if life.status == "terminated" or life.fields.get("name") != name:
            return evidence.of_id[event["command_id"]].first if event["command_id"] in evidence.of_id else 0
    return NEVER
