"""Usage is new once: what a report was answered, against what can have been in the ledger before it."""

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from tests.chaos.commands import answered
from tests.chaos.evidence import NEVER, Evidence, Violation, counted
from tests.chaos.history import Call


class Bearer(NamedTuple):
    """A request, or one beat, that brought an entry: it can have been taken from `sent` on, and was at `taken`."""

    key: str | None
    sent: int
    taken: int


Bearers = dict[tuple[str | None, str], list[Bearer]]
"""By agent and report id."""


def entries(evidence: Evidence) -> Iterator[Violation]:
    """A report whose entries were told to be new, and were in the ledger already; or to be known, and nobody had sent
    them. Where two bring the same at once, or one was not answered, it may be either."""
    bearers = _bearers(evidence)
    for request, call in answered(evidence, "usage"):
        brought = [entry["report_id"] for entry in call.sent["body"]["entries"]]
        least = most = len(brought) - len({*brought})
        for entry in {*brought}:
            others = [one for one in bearers[call.agent, entry] if one.key != request.key]
            least += any(one.taken < request.first for one in others)
            most += any(one.sent < (call.t1 or NEVER) for one in others)
        told = call.answer["duplicates"]
        if not least <= told <= most:
            sentence = f"{request.key} was told of {told} known entries, and {least} to {most} can have been known"
            yield Violation("entries", sentence, call.agent, tuple(request.calls))


def _bearers(evidence: Evidence) -> Bearers:
    found: Bearers = defaultdict(list)
    for request in evidence.requests.values():
        if request.op == "usage" and not request.refused:
            _bring(found, request.calls[0], Bearer(request.key, request.first, request.replied))
    for call in evidence.history.calls:
        # What a beat brings may be taken even where it is refused.
        if call.op == "beat" or (call.op == "usage" and call.key is None and call.outcome != "refused"):
            _bring(found, call, Bearer(None, call.t0, (call.t1 or NEVER) if counted(call) else NEVER))
    return found


def _bring(found: Bearers, call: Call, bearer: Bearer) -> None:
    for entry in (call.sent.get("body") or {}).get("entries") or ():
        found[call.agent, entry["report_id"]].append(bearer)
