"""How soon commands go on after a fault."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import ceil
from operator import attrgetter
from typing import NamedTuple

from tests.chaos.evidence import NEVER, ORDERS, Evidence, Violation, said
from tests.chaos.history import Call, Fault

SECOND = 10**9

WITHIN = 10 * SECOND
"""After whatever went wrong, commands go on within so long."""

PATIENCE = 8 * SECOND
"""For so long a client waits for any answer."""

MANY = 100
"""Of so many faults one may be slow to be seen over; of fewer each is judged by itself alone."""


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


def at_most(evidence: Evidence) -> float:
    """Within how many seconds, in which nothing else was wrong, commands were known to go on after 99 of 100 faults. Of
    one after which that was never known it is told by who waited in vain for the longest."""
    seconds = _seconds(evidence)
    return seconds[ceil(len(seconds) * 0.99) - 1] if seconds else 0.0


def _seconds(evidence: Evidence) -> list[float]:
    proofs, calm, vain = Proofs(evidence), Calm(evidence.history.faults), Vain(evidence)
    found = []
    for fault in evidence.history.faults:
        proof = proofs.after(fault.healed)
        known = [proof] if proof < NEVER else [one.end for one in vain.between(fault.healed, NEVER)]
        found += [max(calm.between(fault.healed, end) for end in known) / SECOND] if known else []
    return sorted(found)


def slow(evidence: Evidence) -> Iterator[Violation]:
    """A fault after which commands did not go on in time; or more than one of a hundred, though nobody waited in vain.

    Time in which something else was wrong does not count. And somebody must have waited for a command in vain when the
    time was over, while nothing was wrong: that nobody saw a command done, when few are asking, accuses nobody. But
    several of a hundred faults cannot be so, for clients that ask all the time see one done soon.
    """
    proofs, calm, vain = Proofs(evidence), Calm(evidence.history.faults), Vain(evidence)
    for fault in evidence.history.faults:
        proof = proofs.after(fault.healed)
        if calm.between(fault.healed, proof) <= WITHIN:
            continue
        late = next((one for one in vain.between(fault.healed, proof) if _is_too_late(one, fault, calm)), None)
        if late is not None:
            sentence = f"{WITHIN // SECOND} s after {fault.kind} was over a command was waited for in vain"
            yield Violation("slow", sentence, late.call.agent, (late.call,))
    if len(evidence.history.faults) >= MANY and at_most(evidence) * SECOND > WITHIN:
        yield Violation("slow", f"after one fault of {MANY} commands went on only after {at_most(evidence):.1f} s")


class Try(NamedTuple):
    """A call that waited for a command and did not learn its end, and until when it did."""

    call: Call
    end: int


class Vain:
    """All that there are in a history: of calls for a new command, and of those that were not answered at all. These
    have waited for as long as a client has patience, or until it asked for something else."""

    def __init__(self, evidence: Evidence) -> None:
        following: dict[int, int] = {}
        found = []
        for call in reversed(evidence.history.calls):
            if _waits_in_vain(call, evidence):
                patience = min(call.t0 + PATIENCE, following.get(call.client, NEVER))
                found.append(Try(call, patience if call.t1 is None else call.t1))
            following[call.client] = call.t0
        self._tries = found[::-1]
        self._begun = [one.call.t0 for one in self._tries]

    def between(self, begin: int, end: int) -> list[Try]:
        """Those that began then."""
        return self._tries[bisect_left(self._begun, begin) : bisect_left(self._begun, end)]


def _waits_in_vain(call: Call, evidence: Evidence) -> bool:
    """What is answered to somebody who tries again may be about a command that was sent long ago."""
    if call.op not in ORDERS or "wait" not in call.sent:
        return False
    new = evidence.requests[call.key or ""].first == call.t0
    return call.t1 is None or (new and not _closes(call) and call.outcome != "refused")


def _is_too_late(one: Try, fault: Fault, calm: "Calm") -> bool:
    """Whether it waited until after the time, and nothing else was wrong meanwhile."""
    begin = one.call.t0
    return calm.between(fault.healed, one.end) > WITHIN and calm.between(begin, one.end) == one.end - begin


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


class Last:
    """The last fault of those that had begun."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        ordered = sorted(faults, key=attrgetter("t0"))
        self._begins = [fault.t0 for fault in ordered]
        self._healed = [-NEVER, *accumulate((fault.healed for fault in ordered), max)]

    def healed(self, moment: int) -> int:
        """When all were over that had begun by then; long ago where there was none."""
        return self._healed[bisect_right(self._begins, moment)]
