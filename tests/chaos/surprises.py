"""Answers that nobody should get: of a door that did not know what to do, or that failed while nothing was wrong."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from operator import attrgetter

from tests.chaos.evidence import Evidence, Violation, said
from tests.chaos.history import Call, Fault
from tests.chaos.recovery import SECOND, WITHIN

RAISED = "raise at "
"""Faults of these kinds are themselves what a door does not expect: each makes one answer of 500."""


def broken(evidence: Evidence) -> Iterator[Violation]:
    """An answer of the server's own fault that does not say that it is unavailable, and was not put there; or any that
    came when for so long nothing had been wrong that all must have been well again."""
    failed = [call for call in evidence.history.calls if call.status is not None and call.status >= 500]
    surprises = [call for call in failed if not _says_why(call)]
    for call in _unexcused(surprises, evidence.history.faults):
        yield Violation("broken", f"{call.op} was answered {call.status}", call.agent, (call,))
    last = LastFault(evidence.history.faults)
    for call in failed:
        calm = last.over_for(call)
        if _says_why(call) and (calm is None or calm > WITHIN):
            since = "and nothing had gone wrong" if calm is None else f"{calm / SECOND:.0f} s after all was over"
            yield Violation("broken", f"{call.op} was answered {call.status}, {since}", call.agent, (call,))


def _says_why(call: Call) -> bool:
    """Whether it asks to be tried again, and gives the reason."""
    codes = [error.get("code") for error in said(call).get("errors") or ()]
    return call.status == 503 and "unavailable" in codes


def _unexcused(surprises: Iterable[Call], faults: Iterable[Fault]) -> Iterator[Call]:
    """Those that are left when each failure that was put there has taken one that it can have made."""
    raised = sorted((fault for fault in faults if fault.kind.startswith(RAISED)), key=attrgetter("healed"))
    for call in surprises:
        cause = next((fault for fault in raised if fault.t0 <= (call.t1 or call.t0) and call.t0 <= fault.healed), None)
        if cause is None:
            yield call
        else:
            raised.remove(cause)


class LastFault:
    """How long ago the last fault was over."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        ordered = sorted(faults, key=attrgetter("t0"))
        self._begins = [fault.t0 for fault in ordered]
        self._healed = [*accumulate((fault.healed for fault in ordered), max)]

    def over_for(self, call: Call) -> int | None:
        """For how long all faults had been over when a call began, none where one began before its answer; None where
        there had been no fault at all."""
        at = bisect_right(self._begins, call.t1 or call.t0)
        return max(0, call.t0 - self._healed[at - 1]) if at else None
