"""The judge of a history: everything that must be so whatever went wrong, seen from outside alone.

Each check is a function from the evidence to what violates it, in one pass over what it has sorted. It accuses only
what no right system can have done: where a request has no answer, or calls overlap, either is allowed.
"""

import gc
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.chaos import (
    batches,
    books,
    causes,
    commands,
    entries,
    leases,
    limits,
    names,
    order,
    origins,
    reads,
    recovery,
    refusals,
    replay,
    stillness,
    surprises,
    waits,
    whole,
)
from tests.chaos.evidence import Evidence, Violation, gather
from tests.chaos.history import History

__all__ = ["CHECKS", "Limited", "Violation", "check", "counts", "judge", "uncollected"]

Check = Callable[[Evidence], Iterator[Violation]]


def tenancy(evidence: Evidence) -> Iterator[Violation]:
    """A stranger who was told anything but that there is nothing."""
    for call in evidence.history.calls:
        if call.op == "stranger" and call.outcome != "unknown" and call.status != 404:
            yield Violation("tenancy", f"a stranger was answered {call.status}", call.agent, (call,))


def reuse(evidence: Evidence) -> Iterator[Violation]:
    """Another request with a key that was used, and was not refused."""
    for call in evidence.history.calls:
        if call.op == "reuse" and call.outcome == "ok":
            yield Violation(
                "reuse", f"a key was used for another request, and answered {call.status}", call.agent, (call,)
            )


def verdict(evidence: Evidence) -> Iterator[Violation]:
    """What the API says of itself."""
    for name in evidence.history.final.violated:
        yield Violation("verdict", f"GET /verify finds {name} violated")


CHECKS: tuple[Check, ...] = (
    commands.lost,
    commands.unexpected,
    commands.duplicated,
    commands.dead,
    commands.answers,
    commands.cancelled,
    commands.idempotency,
    refusals.refused,
    batches.bulk,
    batches.matching,
    batches.beats,
    order.versions,
    order.order,
    order.if_match,
    replay.chain,
    replay.replay,
    replay.signed,
    replay.final,
    reads.reads,
    reads.falls,
    books.books,
    entries.entries,
    names.names,
    whole.lists,
    whole.feed,
    whole.metrics,
    leases.leases,
    origins.unasked,
    stillness.still,
    causes.causes,
    stillness.overdue,
    recovery.slow,
    waits.late,
    surprises.broken,
    surprises.tardy,
    tenancy,
    reuse,
    verdict,
)


@dataclass(frozen=True, slots=True)
class Limited:
    """A limit that is on: so many calls of an operation, all of one caller's, in any so many seconds; and the kinds of
    faults that let its window begin anew."""

    op: str
    most: int
    seconds: float
    wipes: Collection[str] = ()


def check(history: History, limited: Iterable[Limited] = ()) -> list[Violation]:
    """All that is wrong with a history; nothing, where it is right."""
    with uncollected():
        return judge(gather(history), limited)


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the garbage collector: there are no cycles here, and to look for them among millions of objects again and
    again would take half of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def judge(evidence: Evidence, limited: Iterable[Limited] = ()) -> list[Violation]:
    """The same, of what has been gathered."""
    found = [violation for each in CHECKS for violation in each(evidence)]
    for limit in limited:
        found += limits.limits(evidence.history, limit.op, limit.most, limit.seconds, limit.wipes)
    return found


def counts(evidence: Evidence) -> dict[str, int]:
    """How much was judged."""
    calls = evidence.history.calls
    return {
        "calls": len(calls),
        "calls without an answer": sum(call.outcome == "unknown" for call in calls),
        "commands": len(evidence.sent),
        "events": sum(map(len, evidence.history.final.events.values())),
        "agents": len(evidence.history.final.agents),
        "faults": len(evidence.history.faults),
        "faults that hit nobody": len(evidence.history.missed),
        "recovered": commands.recovered(evidence),
    }
