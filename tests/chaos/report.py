"""The report on a history: what was broken, each time with the shortest witness, and how much was judged."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from statistics import median

from tests.chaos.checks import counts
from tests.chaos.evidence import Evidence, Violation
from tests.chaos.history import Call, Fault
from tests.chaos.recovery import at_most, recovery
from tests.chaos.waits import longest, waits

MS = 10**6
AROUND = 5_000 * MS
"""Faults so near to a witness are told with it."""

MOST_CALLS = 20
LONGEST = 160


def lines(evidence: Evidence, found: list[Violation]) -> Iterator[str]:
    """By check, how often it was broken and its shortest witness; then the counts, and how soon all went on."""
    begin = evidence.history.calls[0].t0 if evidence.history.calls else 0
    by_check: dict[str, list[Violation]] = defaultdict(list)
    for violation in found:
        by_check[violation.check].append(violation)
    for check, violations in by_check.items():
        yield f"BROKEN {check}: {len(violations)}"
        yield from _witness(min(violations, key=_length), evidence.history.faults, begin)
    yield from (f"{number:>8} {what}" for what, number in counts(evidence).items())
    yield from _faults(evidence)
    yield from _waits(evidence)


def _faults(evidence: Evidence) -> Iterator[str]:
    """Of each kind how many hit somebody, how many these were, and how soon commands went on; then of all together."""
    hit = Counter(fault.kind for fault in evidence.history.faults)
    missed = Counter(fault.kind for fault in evidence.history.missed)
    seconds = recovery(evidence)
    for kind in sorted(hit | missed):
        victims = sum(fault.hit for fault in evidence.history.faults if fault.kind == kind)
        told = f"{hit[kind]:>8} {kind}: {victims} hit" + (f", {missed[kind]} times nobody" if missed[kind] else "")
        after = seconds.get(kind)
        yield f"{told}; commands go on after {median(after):.2f} s, at most {max(after):.2f} s" if after else told
    if hit:
        yield f"{hit.total():>8} faults: commands go on within {at_most(evidence):.2f} s after 99 of 100"


def _waits(evidence: Evidence) -> Iterator[str]:
    """How long single commands waited, time in which something was wrong set aside."""
    if seconds := waits(evidence):
        told = (
            f"closed within {longest(seconds, 0.99):.2f} s for 99 of 100, and within {longest(seconds):.2f} s for all"
        )
        yield f"{len(seconds):>8} commands: {told}"


def _length(violation: Violation) -> tuple[bool, int]:
    """One with no calls at all shows the least."""
    return not violation.calls, len(violation.calls)


def _witness(violation: Violation, faults: Iterable[Fault], begin: int) -> Iterator[str]:
    yield f"  {violation.sentence}" + (f", agent {violation.agent}" if violation.agent else "")
    calls = sorted(violation.calls, key=lambda call: call.t0)
    for call in calls[:MOST_CALLS]:
        yield f"    {_call(call, begin)}"[:LONGEST]
    if len(calls) > MOST_CALLS:
        yield f"    and {len(calls) - MOST_CALLS} more calls"
    if calls:
        last = max(call.t1 or call.t0 for call in calls)
        for fault in faults:
            if fault.t0 <= last + AROUND and calls[0].t0 - AROUND <= fault.healed:
                until = f"{_time(fault.t0, begin)} to {_time(fault.healed, begin)}"
                yield f"    {until}: {fault.kind} ({fault.hit} {fault.target})"


def _call(call: Call, begin: int) -> str:
    until = "never" if call.t1 is None else _time(call.t1, begin)
    return (
        f"{_time(call.t0, begin)} to {until}: client {call.client} {call.op} {call.key or ''} {call.agent or ''} "
        f"{dict(call.sent)} -> {call.status} {call.answer}"
    )


def _time(moment: int, begin: int) -> str:
    return f"{(moment - begin) / MS:.1f} ms"
