"""How long commands wait until they are closed, each by itself: that some go on soon says nothing of the others."""

from collections.abc import Iterator, Sequence
from math import ceil

from tests.chaos.evidence import NEVER, Evidence, Sent, Violation
from tests.chaos.recovery import SECOND, WITHIN, Calm, Last

AT_ALL = 60 * SECOND
"""For so long, in time in which nothing is wrong, no command waits, whatever goes wrong again and again."""


def waits(evidence: Evidence) -> list[float]:
    """For how many seconds in which nothing was wrong each command waited that is closed, the shortest first."""
    calm = Calm(evidence.history.faults)
    return sorted(calm.between(sent.accepted, sent.closed) / SECOND for sent in evidence.sent if sent.closed < NEVER)


def longest(seconds: Sequence[float], share: float = 1.0) -> float:
    """Within how many so large a share of them was over."""
    return seconds[ceil(len(seconds) * share) - 1] if seconds else 0.0


def late(evidence: Evidence) -> Iterator[Violation]:
    """A command that was not closed in time after it had been accepted, and the last fault was over that had begun by
    then. Faults that begin again and again may hold a few up for longer, not more than one of a hundred, nor for ever.
    """
    last, calm = Last(evidence.history.faults), Calm(evidence.history.faults)
    for sent in evidence.sent:
        if sent.closed == NEVER or sent.closed - sent.accepted <= WITHIN:
            continue
        alone = sent.closed - max(sent.accepted, last.healed(sent.closed))
        if alone > WITHIN or calm.between(sent.accepted, sent.closed) > AT_ALL:
            yield _late(sent, alone)
    seconds = longest(waits(evidence), 0.99)
    if seconds * SECOND > WITHIN:
        yield Violation("late", f"of a hundred commands one waited for {seconds:.1f} s, in which nothing was wrong")


def _late(sent: Sent, alone: int) -> Violation:
    waited = (sent.closed - sent.accepted) / SECOND
    sentence = f"{sent.command['reason']} waited for {waited:.1f} s, for {alone / SECOND:.1f} s after all faults"
    return Violation("late", sentence, sent.command["agent_id"], sent.calls)
