"""Refusals at the door: each has a reason that the contract knows, and that was there."""

from collections import defaultdict
from collections.abc import Iterator
from operator import attrgetter

from tests.chaos.evidence import NEVER, Evidence, Request, Violation, said
from tests.chaos.history import Call

GONE, CLOSED, PAST, LIMITED = 404, 409, 422, 429

REASONS: dict[str, frozenset[int]] = {
    "spawn": frozenset({CLOSED}),
    **dict.fromkeys(("pause", "resume", "update", "terminate", "usage"), frozenset({GONE})),
    "cancel": frozenset({CLOSED}),
    **dict.fromkeys(("lease", "beat", "release"), frozenset({GONE, CLOSED})),
    "get": frozenset({GONE}),
    **dict.fromkeys(("bulk", "by_filter", "beats", "list", "found", "metrics"), frozenset[int]()),
}
"""With what each operation can be refused that is asked for rightly, as all are here. Of others other checks tell."""

BORN_ALONE = frozenset({"lease", "beat", "release", "get"})
"""Nobody but the born has what these are about; the others are for an agent from the acceptance of its spawn on."""


def refused(evidence: Evidence) -> Iterator[Violation]:
    """A request that was refused at the door, and nothing was wrong with it: it was for an agent that was there, or
    under a name that nobody had asked for, or is never refused so."""
    names, since = _names(evidence), _since(evidence)
    for call in evidence.history.calls:
        if call.outcome != "refused" or call.op not in REASONS or _is_told_of_elsewhere(call):
            continue
        wrong = _wrong(call, names, since.get(call.agent or "", NEVER), evidence)
        if wrong:
            sentence = f"{call.op} {call.key or ''} was refused with {call.status}, and {wrong}"
            yield Violation("refused", sentence, call.agent, (call,))


def _is_told_of_elsewhere(call: Call) -> bool:
    """Of a command that was taken, and refused in the end, `replay` tells; of what was too much, nobody."""
    return call.status == LIMITED or "command_id" in said(call)


def _wrong(call: Call, names: dict[str, list[Request]], since: int, evidence: Evidence) -> str | None:
    body = call.sent.get("body") or {}
    if call.status == PAST and "until" in body:
        return None
    if call.status not in REASONS[call.op]:
        return "is never"
    if call.op == "spawn":
        return None if _is_taken(call, names) else "nobody had the name"
    if call.status == GONE and call.op in BORN_ALONE:
        born = next((one.t1 for one in evidence.known.get(call.agent or "", ()) if one.version), NEVER)
        return "its agent was born" if born < call.t0 else None
    return "its agent was there" if call.status == GONE and since < call.t0 else None


def _is_taken(call: Call, names: dict[str, list[Request]]) -> bool:
    """Whether another request can have taken the name that is to be this one's alone."""
    body = call.sent.get("body") or {}
    others = (one for one in names.get(body.get("name", ""), ()) if one.key != call.key)
    return bool(body.get("unique_name")) and any(one.first < (call.t1 or NEVER) for one in others)


def _names(evidence: Evidence) -> dict[str, list[Request]]:
    """By name, the spawns that can have been accepted, the first first."""
    found: dict[str, list[Request]] = defaultdict(list)
    for request in sorted(evidence.requests.values(), key=attrgetter("first")):
        if request.op == "spawn" and not request.refused:
            found[request.calls[0].sent["body"]["name"]].append(request)
    return found


def _since(evidence: Evidence) -> dict[str, int]:
    """Since when the spawn was known to be accepted of each agent whose spawn was not taken back."""
    found: dict[str, int] = {}
    for sent in evidence.sent:
        if sent.command["verb"] == "spawn" and sent.command["state"] == "applied":
            found[sent.command["agent_id"]] = sent.replied
    return found
