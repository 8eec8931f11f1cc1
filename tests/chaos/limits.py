"""Limits, judged from outside: only what must have been too much in whatever way it was counted."""

from bisect import bisect_right, insort
from collections.abc import Collection, Iterator

from tests.chaos.evidence import Violation
from tests.chaos.history import Call, Fault, History

SECOND = 10**9

AFTER = 3 * SECOND // 2
"""For so long after it is back a door may still do without Redis: it gives it a quarter of a second, and then rests for
one."""

NOT_COUNTED = frozenset({401, 429})
"""Answers to requests that spent nothing; nor is it known of those that failed with 5xx."""


def limits(history: History, op: str, most: int, seconds: float, wipes: Collection[str] = ()) -> Iterator[Violation]:
    """More admitted calls than a limit allows, wholly inside one window. It may be the limit once more for each fault
    of a kind in `wipes` that was under way meanwhile: it begins the window anew, or lets each door judge by its own
    share. (Not both: a door does without Redis for a second, which is the window here.) All calls of the operation must
    be those of one caller."""
    window = int(seconds * SECOND)
    admitted = (call for call in history.calls if call.op == op and _admitted(call))
    faults = [fault for fault in history.faults if fault.kind in wipes]
    inside: list[tuple[int, int, Call]] = []  # of those that have ended, those that began in the window, by that
    for number, call in enumerate(sorted(admitted, key=_end)):
        insort(inside, (call.t0, number, call))
        del inside[: bisect_right(inside, (_end(call) - window, NO_NUMBER, call))]
        if len(inside) > most and len(inside) > most * (1 + _under_way(faults, inside[0][0], _end(call))):
            sentence = f"{len(inside)} calls of {op} were admitted within {seconds:g} s, of {most}"
            yield Violation("limits", sentence, None, tuple(one for _, _, one in inside))
            inside.clear()  # a burst is told of once


NO_NUMBER = 2**63
"""Higher than any, so that what began at the very moment is out, too."""


def _admitted(call: Call) -> bool:
    return call.status is not None and call.status < 500 and call.status not in NOT_COUNTED


def _under_way(faults: list[Fault], begin: int, end: int) -> int:
    return sum(fault.t0 <= end and begin <= fault.healed + AFTER for fault in faults)


def _end(call: Call) -> int:
    return call.t1 or 0
