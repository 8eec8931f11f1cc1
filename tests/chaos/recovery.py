"""How soon commands go on after a fault."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from operator import attrgetter

from tests.chaos.evidence import NEVER, ORDERS, Evidence, Violation, said
from tests.chaos.history import Call, Fault

SECOND = 10**9

WITHIN = 10 * SECOND
"""After whatever went wrong, commands go on within so long."""

PATIENCE = 8 * SECOND
"""For so long a client waits for any answer."""


Proof = tuple[int, int]
"""After when a command was sent, and when somebody was told of its end."""


class Proofs:
    """All that there are in a history."""

    def __init__(self, evidence: Evidence) -> None:
        found = sorted(_proofs(evidence))
        self._since = [since for since, _ in found]
        self._soonest = [*accumulate((t1 for _, t1 in reversed(found)), min)][::-1]

    def after(self, moment: int) -> int:
        """When the first command was known to be done that was sent later than that."""
        at = bisect_left(self._since, moment)
        return self._soonest[at] if at < len(self._since) else NEVER


def _proofs(evidence: Evidence) -> Iterator[Proof]:
    """A waited answer tells that its command is closed; a version that its event's command is."""
    for call in evidence.history.calls:
        if call.t1 is not None and _closes(call) and call.key is not None:
            yield evidence.requests[call.key].first, call.t1
    for agent, known in evidence.known.items():
        events = evidence.history.final.events.get(agent, ())
        for one in known:
            sent = (
                evidence.of_id.get(events[one.version - 1]["command_id"]) if 1 <= one.version <= len(events) else None
            )
            if sent is not None and sent.request is not None:
                yield sent.first, one.t1


def _closes(call: Call) -> bool:
    return call.op in ORDERS and (call.status in (200, 201) or "command_id" in said(call))


def recovery(evidence: Evidence) -> dict[str, list[float]]:
    """By kind of fault, the seconds from when each was over until a command was known to be done that was sent after
    it. Other faults may have come between; those after which nothing was known any more are left out."""
    proofs, found = Proofs(evidence), defaultdict(list)
    for fault in evidence.history.faults:
        proof = proofs.after(fault.healed)
        if proof < NEVER:
            found[fault.kind].append((proof - fault.healed) / SECOND)
    return dict(found)


def slow(evidence: Evidence) -> Iterator[Violation]:
    """A fault after which commands did not go on in time.

    Time in which something else was wrong does not count. And somebody must have waited for a command in vain when the
    time was over, while nothing was wrong: that nobody saw a command done, when few are asking, accuses nobody.
    """
    proofs, calm = Proofs(evidence), Calm(evidence.history.faults)
    tries = [call for call in evidence.history.calls if _waits_in_vain(call, evidence)]
    begun = [call.t0 for call in tries]
    for fault in evidence.history.faults:
        proof = proofs.after(fault.healed)
        if calm.between(fault.healed, proof) <= WITHIN:
            continue
        for call in tries[bisect_left(begun, fault.healed) : bisect_left(begun, proof)]:
            if _is_too_late(call, fault, calm):
                sentence = f"{WITHIN // SECOND} s after {fault.kind} was over a command was waited for in vain"
                yield Violation("slow", sentence, call.agent, (call,))
                break


def _waits_in_vain(call: Call, evidence: Evidence) -> bool:
    """Whether a call waited for a command that nobody had sent before, and did not learn its end."""
    new = call.op in ORDERS and "wait" in call.sent and evidence.requests[call.key or ""].first == call.t0
    return new and not _closes(call) and call.outcome != "refused"


def _is_too_late(call: Call, fault: Fault, calm: "Calm") -> bool:
    """Whether it waited until after the time, and nothing else was wrong meanwhile."""
    end = call.t0 + PATIENCE if call.t1 is None else call.t1
    return calm.between(fault.healed, call.t1 or call.t0) > WITHIN and calm.between(call.t0, end) == end - call.t0


class Calm:
    """The time in which nothing was wrong."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._begins: list[int] = []
        self._ends: list[int] = []
        for fault in sorted(faults, key=attrgetter("t0")):
            begin = max(fault.t0, self._ends[-1] if self._ends else 0)
            if fault.healed > begin:
                self._begins.append(begin)
                self._ends.append(fault.healed)
        self._lasted = [0, *accumulate(end - begin for begin, end in zip(self._begins, self._ends, strict=True))]

    def between(self, begin: int, end: int) -> int:
        """How much of it there was between two moments."""
        return end - begin - (self._wrong_until(end) - self._wrong_until(begin))

    def _wrong_until(self, moment: int) -> int:
        at = bisect_left(self._begins, moment)
        return self._lasted[at] - (max(0, self._ends[at - 1] - moment) if at else 0)
