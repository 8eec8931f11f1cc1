"""By what a stopped agent is known to stand still: there was no process any more, or it had gone."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate

from tests.chaos.evidence import NEVER, Evidence, Sent, Violation
from tests.chaos.history import Call
from tests.chaos.leases import SECOND, SLACK, Office, offices

TOLD = frozenset({"no_lease", "expiry", "release"})
"""The causes that are judged here; of what was acknowledged `still` tells."""


def causes(evidence: Evidence) -> Iterator[Violation]:
    """A stop that is told to have ended because there was no lease, or it was lost, and its process was heard so lately
    that it was alive; or because a lease was given back, and nobody did so."""
    for office in offices(evidence):
        seats = Seats(office)
        for sent in office.stops:
            wrong = _wrong(sent, seats, evidence) if sent.command["quiesced_by"] in TOLD else None
            if wrong:
                sentence = f"{sent.command['reason']} ended by {sent.command['quiesced_by']}, and {wrong}"
                yield Violation("causes", sentence, office.agent, sent.calls)


def _wrong(stop: Sent, seats: "Seats", evidence: Evidence) -> str | None:
    moment = evidence.clock.at(stop.command["quiesced_at"])
    if stop.command["quiesced_by"] == "release":
        return None if seats.given_back(moment) else "nobody gave a lease back"
    grant = seats.alive(moment)
    return f"epoch {_epoch(grant)} was alive" if grant else None


class Seats:
    """An agent's leases: when one must have been alive, and whether one can have been given back."""

    def __init__(self, office: Office) -> None:
        self._asked = office.asked
        self._released = [call for call in office.releases if call.outcome != "refused"]
        grants = sorted(office.grants, key=_end)
        self._ends = [_end(grant) for grant in grants]
        self._latest = [*accumulate(grants, lambda one, other: max(one, other, key=_epoch))]
        self._heard: dict[int, int] = {}
        for call in (*office.grants, *office.beats):
            self._heard[_epoch(call)] = max(call.t0, self._heard.get(_epoch(call), 0))
        self._fenced = Spans((sent.first, sent.replied) for sent in office.stops if _fences(sent))
        others = [call for call in office.asked if call.outcome != "refused"]
        self._replaced = Spans((call.t0, _end(call)) for call in (*others, *self._released))

    def alive(self, moment: int) -> Call | None:
        """The grant of the lease that was alive then for sure: nothing can have ended it since, and it was heard, then
        or later, without the silence by which it would have been lost."""
        at, until = bisect_left(self._ends, moment - SLACK), moment + SLACK
        if not at:
            return None
        grant = self._latest[at - 1]
        lasts = int(grant.sent["body"].get("ttl") or 30) * SECOND * 4 // 3
        over = self._fenced.any(grant.t0, until) or self._replaced.any(_end(grant), until)
        return None if over or self._heard[_epoch(grant)] + lasts < until else grant

    def given_back(self, moment: int) -> bool:
        """Whether one can have been by then: by a process, or because another one was granted, or was not to be."""
        until = moment + SLACK
        if any(call.t0 < until for call in self._released):
            return True
        asked = [call for call in self._asked if call.t0 < until]
        return len(asked) > 1 or any(call.outcome != "ok" for call in asked)


class Spans:
    """Times from a beginning to an end."""

    def __init__(self, spans: Iterable[tuple[int, int]]) -> None:
        ordered = sorted(spans, key=lambda span: span[1])
        self._ends = [end for _, end in ordered]
        self._first = [*accumulate((begin for begin, _ in reversed(ordered)), min, initial=NEVER)][::-1]

    def any(self, begin: int, end: int) -> bool:
        """Whether one of them was, or may have been, between the two moments."""
        return self._first[bisect_right(self._ends, begin)] < end


def _fences(stop: Sent) -> bool:
    """Whether it can have ended a lease by itself, at once or at its deadline."""
    wanted = stop.order.wanted if stop.order else {}
    return wanted.get("mode") == "immediate" or wanted.get("deadline") is not None


def _epoch(call: Call) -> int:
    return int(call.answer["epoch"] if call.op == "lease" else call.sent["body"]["epoch"])


def _end(call: Call) -> int:
    return NEVER if call.t1 is None else call.t1
