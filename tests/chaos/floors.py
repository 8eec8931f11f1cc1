"""Whether enough happened for a campaign to say anything: what it must have met, how often, and what it did not."""

from collections import Counter
from collections.abc import Iterator, Mapping

from tests.chaos.commands import recovered
from tests.chaos.evidence import Evidence, Request, Sent
from tests.chaos.faults import WITHOUT_BELLS
from tests.chaos.history import Call
from tests.chaos.leases import Office, offices

SECOND = 10**9
PER_COMMANDS = 10_000
"""The floors are for so many commands, and in proportion for more or fewer: a quarter of what clients do, or less."""

ENDED = {
    "pause applied": 500, "pause rejected": 500, "resume applied": 500, "resume rejected": 500, "update applied": 100,
    "update rejected": 100, "spawn applied": 100, "terminate applied": 100, "terminate rejected": 100,
}  # fmt: skip
"""Commands, by how they ended. A spawn that was accepted is applied, whatever happens; the door refuses some."""

DONE = {
    "get": 100, "list": 10, "metrics": 30, "agent_metrics": 30, "usage": 100, "bulk": 25, "by_filter": 15, "cancel": 3,
    "lease": 10, "beat": 20, "beats": 12, "release": 3, "found": 10,
}  # fmt: skip
"""What clients ask for that is no order for one agent, and was done."""

REFUSED = {"stranger": 8, "reuse": 8, "agent_metrics over the limit": 50, "beat fenced": 3, "spawn refused": 100}
"""What must be refused, and was."""

RACED = {
    "if_match won": 5, "if_match lost": 20, "stop while leased": 100, "request taken and not answered": 1,
    "asked again": 40,
}  # fmt: skip
"""What only happens where several things meet."""

SAID = {"usage heard with a beat": 15, "stop acknowledged": 10}
"""What a process says beside that it lives."""

FLOORS = ENDED | DONE | REFUSED | RACED | SAID

REFUSALS = {
    ("stranger", 404): "stranger",
    ("reuse", 422): "reuse",
    ("agent_metrics", 429): "agent_metrics over the limit",
    ("beat", 409): "beat fenced",
    ("spawn", 409): "spawn refused",
}


def missed(evidence: Evidence, wanted: Mapping[str, int], commands: int) -> list[str]:
    """What a campaign of so many commands should have met and did not, in sentences: with any, it is inconclusive and
    not passed. `wanted` says how often each kind of fault must have hit somebody; one at least must have, beside what
    each campaign ends with."""
    hit = Counter(fault.kind for fault in evidence.history.faults)
    nobody = Counter(fault.kind for fault in evidence.history.missed)
    found = [
        f"{kind}: {hit[kind]} of {least}" + (f", and {nobody[kind]} that hit nobody" if nobody[kind] else "")
        for kind, least in wanted.items()
        if hit[kind] < least
    ]
    if not hit.keys() - {WITHOUT_BELLS}:
        found.append("nothing went wrong")
    met = Counter(_met(evidence))
    least = {"command accepted": commands} | {name: floor(number, commands) for name, number in FLOORS.items()}
    return found + [f"{name}: {met[name]} of {number}" for name, number in least.items() if met[name] < number]


def floor(number: int, commands: int) -> int:
    """How often something must happen in a campaign of so many commands: once at least."""
    return max(1, number * commands // PER_COMMANDS)


def _met(evidence: Evidence) -> Iterator[str]:
    for sent in evidence.sent:
        yield from _of_command(sent)
    for call in evidence.history.calls:
        yield from _of_call(call)
    for office in offices(evidence):
        yield from ("stop while leased" for sent in office.stops if _was_leased(sent, office))
    yield from ("request taken and not answered" for _ in range(recovered(evidence)))
    yield from ("asked again" for request in evidence.requests.values() if _was_asked_again(request))


def _of_command(sent: Sent) -> Iterator[str]:
    if sent.order is None:
        return
    state, error = sent.command["state"], sent.command["error"] or {}
    yield "command accepted"
    yield f"{sent.command['verb']} {state}"
    if sent.order.if_match is not None and sent.event is not None:
        yield "if_match won"
    elif error.get("code") == "precondition_failed":
        yield "if_match lost"


def _of_call(call: Call) -> Iterator[str]:
    if call.outcome == "ok" and call.op in DONE:
        yield call.op
        yield from _said(call) if call.op == "beat" else ()
    elif call.status is not None and (call.op, call.status) in REFUSALS:
        yield REFUSALS[call.op, call.status]


def _was_asked_again(request: Request) -> bool:
    """Whether it was after it had been answered well."""
    return any(call.t0 > request.replied and call.outcome == "ok" for call in request.calls)


def _said(beat: Call) -> Iterator[str]:
    if beat.sent["body"].get("entries"):
        yield "usage heard with a beat"
    if beat.sent["body"].get("ack") and beat.answer["directive"] != "continue":
        yield "stop acknowledged"


def _was_leased(stop: Sent, office: Office) -> bool:
    """Whether it was accepted within a ttl of a sign of life of the agent's process."""
    lives = (call for call in (*office.grants, *office.beats) if call.t1 is not None and call.t1 < stop.first)
    last = max((call.t1 or 0 for call in lives), default=None)
    ttl = min((int(call.sent["body"].get("ttl") or 30) for call in office.grants), default=0)
    return last is not None and stop.first < last + ttl * SECOND
