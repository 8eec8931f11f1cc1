"""One process at a time acts as an agent, and none goes on after a stop that was accepted."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.chaos.contract import Life
from tests.chaos.evidence import NEVER, Evidence, Sent, Violation
from tests.chaos.history import Call

SECOND = 10**9

ALLOWED = dict.fromkeys(("idle", "working", "waiting"), ("continue", "pause", "terminate")) | {
    "paused": ("pause", "terminate"),
    "terminated": ("terminate",),
}
"""What a process can be told while its agent has this status; a stop may wait in the mailbox, too."""


SLACK = SECOND // 10
"""By so much a client's clock and the database's may differ over a lease's silence."""


@dataclass(slots=True)
class Office:
    """What concerns the processes of one agent: all calls as they began, and the stops. What was `asked` for need not
    have been granted; of the `lost` beats nobody knows whether they were heard, and the `fenced` ones were not."""

    agent: str
    asked: list[Call] = field(default_factory=list)
    grants: list[Call] = field(default_factory=list)
    beats: list[Call] = field(default_factory=list)
    lost: list[Call] = field(default_factory=list)
    fenced: list[Call] = field(default_factory=list)
    releases: list[Call] = field(default_factory=list)
    stops: list[Sent] = field(default_factory=list)

    def add(self, call: Call) -> None:
        """One more call, that began later than the others."""
        if call.op == "lease":
            self.asked.append(call)
        if call.op == "release":
            self.releases.append(call)
        elif call.outcome == "ok":
            (self.grants if call.op == "lease" else self.beats).append(call)
        elif call.op == "beat":
            (self.lost if call.outcome == "unknown" else self.fenced).append(call)


class Ending(NamedTuple):
    """Since when an epoch, and all below it, is known to be over, and by what."""

    at: int
    epoch: int
    calls: tuple[Call, ...]


def offices(evidence: Evidence) -> Iterable[Office]:
    """Of the agents that were ever leased."""
    found: dict[str, Office] = {}
    for call in evidence.history.calls:
        if call.op in ("lease", "beat", "release") and call.agent is not None:
            office = found.setdefault(call.agent, Office(call.agent))
            office.add(call)
    for office in found.values():
        office.stops = [sent for sent in evidence.of_agent.get(office.agent, ()) if sent.stops]
    return found.values()


def leases(evidence: Evidence) -> Iterator[Violation]:
    """Epochs that did not rise; a beat that was heard although its epoch was known to be over, or its lease had been
    silent for too long; a lease that was granted while another holder's was alive; and a process that was told to go on
    although its agent was stopped."""
    for office in offices(evidence):
        yield from _not_rising(office)
        yield from _heard_too_late(office)
        yield from _heard_after_silence(office)
        yield from _two_holders(office)
        lives = evidence.lives.get(office.agent)
        if lives is not None:
            yield from _told_to_go_on(office, lives)
            yield from _admitted(office, lives, evidence)


def _not_rising(office: Office) -> Iterator[Violation]:
    answered, at, highest = sorted(office.grants, key=_end), 0, None
    by_epoch: dict[int, list[Call]] = defaultdict(list)
    for grant in office.grants:
        by_epoch[_epoch(grant)].append(grant)
        while _end(answered[at]) < grant.t0:
            if highest is None or _epoch(answered[at]) > _epoch(highest):
                highest = answered[at]
            at += 1
        if highest is not None and _epoch(grant) <= _epoch(highest):
            sentence = f"epoch {_epoch(grant)} was granted after epoch {_epoch(highest)}"
            yield Violation("leases", sentence, office.agent, (highest, grant))
    for epoch, grants in by_epoch.items():
        if len(grants) > 1:
            yield Violation("leases", f"epoch {epoch} was granted twice", office.agent, tuple(grants))


def _heard_too_late(office: Office) -> Iterator[Violation]:
    for beat, last in too_late(office, office.beats):
        sentence = f"a beat of epoch {_epoch(beat)} was heard, and {last.epoch} was over"
        yield Violation("leases", sentence, office.agent, (*last.calls, beat))


def too_late(office: Office, beats: Iterable[Call]) -> Iterator[tuple[Call, Ending]]:
    """Of these beats, as they began, those that began when their epoch was over: when a higher one was granted, it was
    given back, or an immediate stop was accepted."""
    endings = [Ending(_end(grant), _epoch(grant) - 1, (grant,)) for grant in office.grants]
    endings += [Ending(_end(call), _epoch(call), (call,)) for call in office.releases if call.outcome == "ok"]
    endings += _fences(office)
    endings.sort(key=lambda ending: ending.at)
    last, at = Ending(0, 0, ()), 0
    for beat in beats:
        while at < len(endings) and endings[at].at < beat.t0:
            last = max(last, endings[at], key=lambda ending: ending.epoch)
            at += 1
        if _epoch(beat) <= last.epoch:
            yield beat, last


def _fences(office: Office) -> Iterator[Ending]:
    """Since when an immediate stop is known to have ended which epoch: those that were granted before it was sent, and
    whatever became of it, for it is fenced from its acceptance on."""
    grants, at, highest = sorted(office.grants, key=_end), 0, 0
    for stop in sorted(office.stops, key=lambda sent: sent.first):
        while at < len(grants) and _end(grants[at]) < stop.first:
            highest = max(highest, _epoch(grants[at]))
            at += 1
        if stop.order is not None and stop.order.wanted.get("mode") == "immediate" and stop.replied < NEVER:
            yield Ending(stop.replied, highest, stop.calls)


def _heard_after_silence(office: Office) -> Iterator[Violation]:
    """A lease is lost when it has not been heard for four thirds of its ttl. It was heard last when the latest of its
    grant and beats was answered, at most; a beat that was not answered may be heard whenever it likes."""
    latest = {_epoch(grant): grant for grant in office.grants}
    lasts = {epoch: int(_body(grant, "ttl") or 30) * SECOND * 4 // 3 for epoch, grant in latest.items()}
    for beat in sorted([*office.beats, *office.lost], key=lambda beat: beat.t0):
        last = latest.get(_epoch(beat))
        if last is None:
            continue
        silent = beat.t0 - _end(last)
        if beat.outcome == "ok" and silent > lasts[_epoch(beat)] + SLACK:
            sentence = f"a beat of epoch {_epoch(beat)} was heard after {silent / SECOND:.1f} s of silence"
            yield Violation("leases", sentence, office.agent, (last, beat))
        latest[_epoch(beat)] = max(last, beat, key=_end)


def _two_holders(office: Office) -> Iterator[Violation]:
    """Where epochs follow one another there was no fence and no other grant between them: then the first lease can only
    have been given back, or lost when it had not been heard for four thirds of its ttl."""
    by_epoch = {_epoch(grant): grant for grant in office.grants}
    beats: dict[int, list[Call]] = defaultdict(list)
    for beat in office.beats:
        beats[_epoch(beat)].append(beat)
    given_back = {_epoch(call): call.t0 for call in reversed(office.releases) if call.outcome != "refused"}
    for epoch, old in by_epoch.items():
        new = by_epoch.get(epoch + 1)
        if new is None or _body(new, "holder") == _body(old, "holder"):
            continue
        heard = max([old.t0] + [beat.t0 for beat in beats[epoch] if _end(beat) < new.t0])
        lost = heard + int(_body(old, "ttl") or 30) * SECOND * 4 // 3
        if _end(new) < min(lost, given_back.get(epoch, lost)):
            sentence = f"{_body(new, 'holder')} was granted a lease, and that of {_body(old, 'holder')} was alive"
            yield Violation("leases", sentence, office.agent, (old, new))


def _told_to_go_on(office: Office, lives: list[Life]) -> Iterator[Violation]:
    """A directive is read at one version. A stop that was accepted before, and closed at a higher version, was queued
    then; so it closes admission whatever is queued beside it, even where it is refused later."""
    closed = [sent for sent in office.stops if sent.command["version"] is not None and sent.replied < NEVER]
    stops, at, latest = sorted(closed, key=lambda sent: sent.replied), 0, None
    for beat in office.beats:
        while at < len(stops) and stops[at].replied < beat.t0:
            if latest is None or stops[at].command["version"] > latest.command["version"]:
                latest = stops[at]
            at += 1
        told, version = beat.answer["directive"], beat.answer["version"]
        status = lives[version].status if 0 < version < len(lives) else f"never at version {version}"
        if told not in ALLOWED.get(status or "", ()):
            yield Violation("leases", f"told to {told} while it was {status}", office.agent, (beat,))
        elif told == "continue" and latest is not None and version < latest.command["version"]:
            sentence = f"told to continue at version {version}, after a stop was accepted"
            yield Violation("leases", sentence, office.agent, (*latest.calls, beat))


def _admitted(office: Office, lives: list[Life], evidence: Evidence) -> Iterator[Violation]:
    """A lease says no version. But after a stop that was applied nobody is admitted before something has been sent that
    sets the agent free again."""
    free = _sent_to_free(office, lives, evidence)
    applied = [sent for sent in office.stops if sent.event is not None and sent.replied < NEVER]
    stops, at, latest = sorted(applied, key=lambda sent: sent.replied), 0, None
    for grant in office.grants:
        while at < len(stops) and stops[at].replied < grant.t0:
            if latest is None or stops[at].command["version"] > latest.command["version"]:
                latest = stops[at]
            at += 1
        if latest is not None and free[latest.command["version"]] > _end(grant):
            sentence = "a lease was granted after a stop was accepted, and before anything could lift it"
            yield Violation("leases", sentence, office.agent, (*latest.calls, grant))


def _sent_to_free(office: Office, lives: list[Life], evidence: Evidence) -> list[int]:
    """By version: when the command was sent that made the agent neither paused nor ended, then or later."""
    events = evidence.history.final.events[office.agent]
    found, sent = [NEVER] * len(lives), NEVER
    for version in range(len(lives) - 1, 0, -1):
        if lives[version].status not in ("paused", "terminated"):
            command = evidence.of_id.get(events[version - 1]["command_id"])
            sent = command.first if command else 0
        found[version] = sent
    return found


def _end(call: Call) -> int:
    return NEVER if call.t1 is None else call.t1


def _body(call: Call, name: str) -> Any:
    return call.sent["body"].get(name)


def _epoch(call: Call) -> int:
    """Of a grant the one that was answered, else the one that was named."""
    return int(call.answer["epoch"] if call.op == "lease" else _body(call, "epoch"))
