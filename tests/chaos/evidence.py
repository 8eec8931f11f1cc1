"""A history, arranged for the checks: requests by key, commands with what was sent, agents version by version."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from tests.chaos.apart import told_apart
from tests.chaos.clocks import Clock
from tests.chaos.contract import UNBORN, Life, Order, change
from tests.chaos.history import Call, History

NEVER = 2**63
"""Later than anything."""

ORDERS = frozenset({"spawn", "pause", "resume", "update", "terminate"})
"""The operations that make one command."""

SHOWING = frozenset({"get", "spawn", "pause", "resume", "update"})
"""The operations that are answered with the agent, where they are answered 200 or 201."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise: the check that found it, a sentence, whom it concerns, and the calls that show it."""

    check: str
    sentence: str
    agent: str | None = None
    calls: tuple[Call, ...] = ()


@dataclass(slots=True)
class Request:
    """All calls with one key: the first was sent at `first`, and from `replied` on it is known to have been taken."""

    key: str
    op: str
    calls: list[Call] = field(default_factory=list)
    replied: int = NEVER
    refused: bool = True
    """Whether every call was refused at the door, so that there can be no effect."""

    def add(self, call: Call) -> None:
        """One more call, sent later than the others."""
        self.calls.append(call)
        outcome = call.outcome
        if outcome == "ok" or "command_id" in said(call):
            self.refused = False
            self.replied = min(self.replied, call.t1 or NEVER)
        elif outcome == "unknown":
            self.refused = False

    @property
    def first(self) -> int:
        """When it was sent for the first time; it cannot have been taken before."""
        return self.calls[0].t0

    @property
    def taken(self) -> bool:
        """Whether somebody was told that it was."""
        return self.replied < NEVER


class Sent(NamedTuple):
    """A command as it is in the end, and the request that sent it; the order is None where nobody can know it.

    It was sent at `first` (of a command that nobody sent: before everything), and known to be accepted at `replied`.
    The database says that it was accepted at `accepted` and closed at `closed`, which is exact to some milliseconds.
    """

    command: Mapping[str, Any]
    order: Order | None = None
    request: Request | None = None
    event: Mapping[str, Any] | None = None
    first: int = 0
    replied: int = NEVER
    accepted: int = 0
    closed: int = NEVER

    @property
    def calls(self) -> tuple[Call, ...]:
        """Those that sent it."""
        return tuple(self.request.calls) if self.request else ()

    @property
    def stops(self) -> bool:
        """Whether it is a pause or a terminate, by whatever verb."""
        if self.order is None:
            return False
        return self.order.verb in ("pause", "terminate") or self.order.wanted.get("status") in ("paused", "terminated")


class Known(NamedTuple):
    """From `t1` on it is known that an agent has reached a version."""

    t1: int
    version: int
    call: Call


@dataclass
class Evidence:
    """What the checks look at. `lives` has an agent's life at each version, for agents whose versions have no gap."""

    history: History
    requests: dict[str, Request]
    sent: list[Sent] = field(default_factory=list)
    of_key: dict[str, list[Sent]] = field(default_factory=lambda: defaultdict(list))
    of_agent: dict[str, list[Sent]] = field(default_factory=lambda: defaultdict(list))
    of_id: dict[str, Sent] = field(default_factory=dict)
    lives: dict[str, list[Life]] = field(default_factory=dict)
    known: dict[str, list[Known]] = field(default_factory=lambda: defaultdict(list))
    clock: Clock = field(default_factory=Clock)


def gather(history: History) -> Evidence:
    """One pass over everything; what is known of an agent comes in the order of time."""
    history = replace(history, calls=[*told_apart(history.calls)])
    evidence = Evidence(history, _requests(history.calls))
    _add_commands(evidence)
    evidence.lives = {agent: _lived(events) for agent, events in history.final.events.items() if dense(events)}
    for call in history.calls:
        for agent, version in _tells(call, evidence):
            evidence.known[agent].append(Known(call.t1 or 0, version, call))
    for known in evidence.known.values():
        known.sort(key=lambda one: one.t1)
    return evidence


def said(call: Call) -> Mapping[str, Any]:
    """The answer, where it is an object; else an empty one."""
    return call.answer if isinstance(call.answer, dict) else {}


def counted(call: Call) -> bool:
    """Whether the usage that it brought is in the ledger for sure: that of a beat is even where the beat is fenced, and
    told what it should do then."""
    return call.outcome == "ok" or (call.op == "beat" and "directive" in said(call))


def shown(call: Call) -> Mapping[str, Any] | None:
    """The agent that was answered, as it stood between the call's two times."""
    return said(call) if call.op in SHOWING and call.status in (200, 201) else None


def dense(events: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the versions are 1, 2, 3…"""
    return all(event["version"] == version for version, event in enumerate(events, 1))


def _requests(calls: Iterable[Call]) -> dict[str, Request]:
    found: dict[str, Request] = {}
    for call in calls:
        if call.key is not None:
            request = found.get(call.key)
            if request is None:
                request = found[call.key] = Request(call.key, call.op)
            request.add(call)
    return found


def _add_commands(evidence: Evidence) -> None:
    final = evidence.history.final
    events = {event["command_id"]: event for of_agent in final.events.values() for event in of_agent}
    origins = [_origin(command, evidence.requests) for command in final.commands]
    clock = evidence.clock = _clock(final.commands, origins)
    for command, (request, order) in zip(final.commands, origins, strict=True):
        times = (request.first, request.replied) if request is not None else (0, NEVER)
        closed = clock.at(command["closed_at"]) if command["closed_at"] else NEVER
        taken = clock.at(command["requested_at"])
        sent = Sent(command, order, request, events.get(command["id"]), *times, taken, closed)
        evidence.sent.append(sent)
        evidence.of_agent[command["agent_id"]].append(sent)
        evidence.of_id[command["id"]] = sent
        if request is not None:
            evidence.of_key[command["reason"]].append(sent)


def _clock(commands: Iterable[Mapping[str, Any]], origins: Iterable[tuple[Request | None, Order | None]]) -> Clock:
    pairs = zip(commands, origins, strict=True)
    return Clock((command["requested_at"], request.first) for command, (request, _) in pairs if request is not None)


def _origin(command: Mapping[str, Any], requests: Mapping[str, Request]) -> tuple[Request | None, Order | None]:
    """The request that sent a command, by its reason, and what it said; None for both where nobody did."""
    if command["actor"]["type"] != "user":
        return None, None
    key, _, item = (command["reason"] or "").partition("#")
    request = requests.get(key)
    order = ordered(request, item) if request is not None else None
    return (request, order) if order is not None else (None, None)


def ordered(request: Request, item: str = "") -> Order | None:
    """What a request orders, or one item of a list; None where it orders nothing."""
    sent = request.calls[0].sent
    body = sent.get("body") or {}
    if request.op in ORDERS and not item:
        return Order(request.op, body, sent.get("if_match"))
    if request.op == "by_filter" and not item:
        return Order(body["verb"], body)
    if request.op == "bulk" and item.isdigit() and int(item) < len(body["commands"]):
        wanted = body["commands"][int(item)]
        return Order(wanted["verb"], wanted)
    return None


def _lived(events: Iterable[Mapping[str, Any]]) -> list[Life]:
    lives = [UNBORN]
    for event in events:
        lives.append(lives[-1].after(change(event)))
    return lives


def _tells(call: Call, evidence: Evidence) -> Iterable[tuple[str, int]]:
    """Whom an answer tells of, and which version the agent had reached by then."""
    answer = said(call)
    if call.op in ORDERS and call.t1 is not None:
        return _told_of_order(call, evidence)
    if call.op in ("get", "beat") and call.agent is not None and isinstance(answer.get("version"), int):
        return [(call.agent, answer["version"])]
    if call.op in ("agent_metrics", "lease") and call.outcome == "ok" and call.agent is not None:
        return [(call.agent, 1)]  # nobody but the born has either
    if call.op == "found":
        return answer.get("seen", {}).items()
    return []


def _told_of_order(call: Call, evidence: Evidence) -> Iterable[tuple[str, int]]:
    answer = shown(call)
    if answer is not None:
        return [(answer["id"], answer["version"])]
    answer = said(call)
    closed = (
        call.status == 200
        or "command_id" in answer
        or (call.status == 202 and answer.get("state", "queued") != "queued")
    )
    if not closed:
        return []
    mine = evidence.of_key.get(call.key or "", ())
    return [(sent.command["agent_id"], sent.command["version"]) for sent in mine if sent.command["version"] is not None]
