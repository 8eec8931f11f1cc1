"""Answers that nobody should get: of a door that did not know what to do, or that failed while nothing was wrong."""

from collections.abc import Iterable, Iterator
from operator import attrgetter

from tests.chaos.commands import poisons
from tests.chaos.evidence import NEVER, Evidence, Violation, said
from tests.chaos.history import Call, Fault
from tests.chaos.recovery import SECOND, WITHIN, Last

RAISED = "raise at "
"""Faults of these kinds are themselves what a door does not expect: each makes one answer of 500."""

PROMPT = 4 * SECOND
"""Any answer comes within so long, where nothing is wrong: on a machine that has much else to do, for the door's own
promise is a second."""

WALKS = frozenset({"list", "found"})
"""Each is as many requests as a list has pages."""


def broken(evidence: Evidence) -> Iterator[Violation]:
    """An answer of the server's own fault that does not say that it is unavailable, is not about a command that was
    given up as poison, and was not put there; or any that came when for so long nothing had been wrong that all must
    have been well again."""
    failed = [call for call in evidence.history.calls if call.status is not None and call.status >= 500]
    poison = poisons(evidence)
    surprises = [call for call in failed if not _says_why(call) and said(call).get("command_id") not in poison]
    for call in _unexcused(surprises, evidence.history.faults):
        yield Violation("broken", f"{call.op} was answered {call.status}", call.agent, (call,))
    last = Last(evidence.history.faults)
    for call in failed:
        calm = call.t0 - last.healed(call.t1 or call.t0)
        if _says_why(call) and calm > WITHIN:
            since = "and nothing had gone wrong" if calm > NEVER else f"{calm / SECOND:.0f} s after all was over"
            yield Violation("broken", f"{call.op} was answered {call.status}, {since}", call.agent, (call,))


def tardy(evidence: Evidence) -> Iterator[Violation]:
    """An answer that took longer than what its client wanted to wait and some time more, when all faults had been over
    for so long that all must have been well again."""
    last = Last(evidence.history.faults)
    for call in evidence.history.calls:
        if call.t1 is None or call.op in WALKS or call.t1 - call.t0 <= PROMPT:
            continue
        took = call.t1 - call.t0 - int(call.sent.get("wait") or 0) * SECOND
        if took > PROMPT and call.t1 - last.healed(call.t1) > WITHIN:
            sentence = f"{call.op} took {took / SECOND:.1f} s, beside what it was to wait"
            yield Violation("tardy", sentence, call.agent, (call,))


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
