"""What no client ordered: each event of the system and of a process has a cause that was there, and no word is lost."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from operator import attrgetter
from typing import Any

from tests.chaos.contract import Life, Order, change
from tests.chaos.evidence import NEVER, Evidence, Sent, Violation
from tests.chaos.history import Call
from tests.chaos.leases import Office, offices, too_late

LOSSES, FAULT = 3, "fault"
"""So many losses of leases make the system itself place a hold; and whose that is."""

ASIDE = ("epoch", "lease_id", "ack", "entries")
"""What a beat says that is not its agent's status or task."""

Word = tuple[tuple[str, Any], ...]
"""What a beat says of its agent, as fields and values."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One agent: its lives, its events with their commands, what concerned its processes, and when what was known."""

    agent: str
    lives: list[Life]
    events: list[Mapping[str, Any]]
    sent: list[Sent]
    office: Office
    known: tuple[list[int], list[int]]

    def seen(self, version: int) -> int:
        """Since when it was known to have reached that version."""
        times, versions = self.known
        at = bisect_left(versions, version)
        return times[at] if at < len(times) else NEVER

    def least(self, moment: int) -> int:
        """The version that it was known to have reached before that."""
        times, versions = self.known
        at = bisect_left(times, moment)
        return versions[at - 1] if at else 0

    def written_by(self, actor: str) -> Iterator[Mapping[str, Any]]:
        """The events of commands that were the system's, or a process's."""
        own = {sent.command["id"] for sent in self.sent if sent.command["actor"]["type"] == actor}
        return (event for event in self.events if event["command_id"] in own)


def unasked(evidence: Evidence) -> Iterator[Violation]:
    """What the system wrote without a cause, or a process although no beat said so; or what one said, and is lost."""
    for subject in _subjects(evidence):
        for event in subject.written_by("system"):
            wrong = _without_cause(event, subject)
            if wrong:
                calls = (*subject.office.asked[:LOSSES],)
                yield Violation("unasked", f"version {event['version']}: the system {wrong}", subject.agent, calls)
        beats = sorted([*subject.office.beats, *subject.office.lost, *subject.office.fenced], key=attrgetter("t0"))
        late = {id(beat) for beat, _ in too_late(subject.office, beats)}
        words = Words([beat for beat in beats if id(beat) not in late])
        yield from _said_by_nobody(subject, words)
        yield from _said_in_vain(subject, words)


def _subjects(evidence: Evidence) -> Iterator[Subject]:
    found = {office.agent: office for office in offices(evidence)}
    for agent, lives in evidence.lives.items():
        known = evidence.known.get(agent, ())
        reached = [one.t1 for one in known], [*accumulate((one.version for one in known), max)]
        events, sent = evidence.history.final.events[agent], evidence.of_agent.get(agent, [])
        yield Subject(agent, lives, [*events], sent, found.get(agent) or Office(agent), reached)


def _without_cause(event: Mapping[str, Any], subject: Subject) -> str | None:
    """What is wrong with an event of the system's; None where there was a cause. A process must have been there to end,
    and to be lost three times; and a hold must have had an end for its time to be over."""
    version, verb = event["version"], event["verb"]
    before, after = (life.fields["holds"] for life in subject.lives[version - 1 : version + 1])
    asked = [call for call in subject.office.asked if call.t0 < subject.seen(version)]
    if verb == "rest" and not asked:
        return "let an agent rest that was never leased"
    if verb == "pause" and after != [*before, FAULT]:
        return f"made the holds {before} to {after}"
    if verb == "pause" and sum(call.outcome != "refused" for call in asked) < LOSSES:
        return f"placed a hold after fewer than {LOSSES} leases"
    if verb == "resume" and not set(before) - set(after) <= _with_an_end(subject.sent, version):
        return f"made the holds {before} to {after}, and they had no end"
    return None


def _with_an_end(sent: Iterable[Sent], version: int) -> set[str]:
    """Whose holds were placed before that version, until some time."""
    orders = (one.order for one in sent if one.event is not None and one.event["version"] < version)
    return {order.wanted.get("owner", "manual") for order in orders if order is not None and "until" in order.wanted}


class Words:
    """What beats said that can have been heard: how often, when first, and by which."""

    def __init__(self, beats: Iterable[Call]) -> None:
        self.count = Counter[Word]()
        self.first: dict[Word, int] = {}
        self.heard: list[tuple[Word, Call]] = []
        for beat in beats:
            word = tuple(sorted((k, v) for k, v in beat.sent["body"].items() if k not in ASIDE))
            if word:
                self.count[word] += 1
                self.first.setdefault(word, beat.t0)
                self.heard += [(word, beat)] if beat.outcome == "ok" else []

    def alone(self, word: Word, field: tuple[str, Any]) -> bool:
        """Whether nobody said this of one field and anything else of another."""
        return all(other == word or field not in other for other in self.count)


def _explains(word: Word, event: Mapping[str, Any], before: Life) -> bool:
    """Whether an event is what comes of a word. Of a paused agent a process can say all but its status."""
    said = dict(word)
    orders = (said, {name: value for name, value in said.items() if name != "status"})
    return any(before.demands(Order("update", order)) == change(event) for order in orders)


def _said_by_nobody(subject: Subject, words: Words) -> Iterator[Violation]:
    """An event of a process that is of no word; or more of one word than beats said it."""
    only = Counter[Word]()
    for event in subject.written_by("agent"):
        version = event["version"]
        before, seen = subject.lives[version - 1], subject.seen(version)
        able = [word for word, first in words.first.items() if first < seen and _explains(word, event, before)]
        only.update(able if len(able) == 1 else [])
        if not able:
            sentence = (
                f"version {version} ({event['verb']}, {event['changes']}) is said to be a process's, and none said so"
            )
            yield Violation("unasked", sentence, subject.agent)
    for word, number in only.items():
        if number > words.count[word]:
            sentence = f"{dict(word)} was said {words.count[word]} times, and made {number} events"
            yield Violation("unasked", sentence, subject.agent)


def _said_in_vain(subject: Subject, words: Words) -> Iterator[Violation]:
    """A word that was heard, and news whatever version its agent had then, makes a command: one with an event that is
    seen to be its, or one without any."""
    news = {word: beat for word, beat in words.heard if _is_news(word, beat, subject, words)}
    written = [(event, subject.lives[event["version"] - 1]) for event in subject.written_by("agent")]
    vain = [word for word in news if not any(_explains(word, event, before) for event, before in written)]
    without = sum(sent.command["actor"]["type"] == "agent" and sent.event is None for sent in subject.sent)
    if len(vain) > without:
        sentence = f"{len(vain)} things that a process said, {dict(vain[0])} among them, made {without} commands"
        yield Violation("unasked", sentence, subject.agent, tuple(news[word] for word in vain))


def _is_news(word: Word, beat: Call, subject: Subject, words: Words) -> bool:
    lives = subject.lives[subject.least(beat.t0) : beat.answer["version"] + 1]
    moving = all(life.status in ("idle", "working", "waiting") for life in lives)
    new = [field for field in word if all(_differs(field, life) for life in lives)]
    return moving and bool(lives) and any(words.alone(word, field) for field in new)


def _differs(field: tuple[str, Any], life: Life) -> bool:
    name, value = field
    return bool((life.status if name == "status" else life.fields.get(name)) != value)
