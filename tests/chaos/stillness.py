"""Whoever was stopped stands still in the end; what a process acknowledged is known, and nobody else speaks for it."""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from tests.chaos.contract import Life
from tests.chaos.evidence import NEVER, Evidence, Sent, Violation
from tests.chaos.history import Call
from tests.chaos.leases import Office, offices

STOPPED = ("paused", "terminated")


def still(evidence: Evidence) -> Iterator[Violation]:
    """An agent that is stopped, all leases being over, and not known to stand still; a stop that its process was heard
    to acknowledge, and that is none; or one that was acknowledged, and no process said so."""
    for agent in evidence.history.final.agents:
        if agent["status"] in STOPPED and agent["quiesced_by"] is None:
            yield Violation("still", f"it is {agent['status']}, and not known to stand still", agent["id"])
    found = {office.agent: office for office in offices(evidence)}
    for agent_id, sent in evidence.of_agent.items():
        office = found.get(agent_id, Office(agent_id))
        yield from _acknowledged_by_nobody(office, sent, evidence)
        yield from _in_vain(office, evidence)


def overdue(evidence: Evidence) -> Iterator[Violation]:
    """A hold that is there in the end, and was to end by itself before the last call; much later than that the agents
    are looked at."""
    last = max((call.t1 or call.t0 for call in evidence.history.calls), default=0)
    for agent in evidence.history.final.agents:
        for hold in agent["holds"]:
            if hold.get("until") and evidence.clock.at(hold["until"]) < last:
                yield Violation("overdue", f"a hold of {hold['owner']} was to end at {hold['until']}", agent["id"])


def _acknowledged_by_nobody(office: Office, found: list[Sent], evidence: Evidence) -> Iterator[Violation]:
    """A process's word holds from when it is said until it says something else. What was said before a stop was sent,
    and taken back before that, is not about it; nor is what was said when its end was known."""
    told = [sent for sent in found if sent.command["quiesced_by"] == "ack" and sent.event is not None]
    if not told:
        return
    said, back = _words(office)
    lives = evidence.lives.get(office.agent, [])
    ends, known = _ends(lives), evidence.known.get(office.agent, ())
    for sent in told:
        version = sent.command["version"]
        end = ends[version] if version < len(lives) else len(lives)
        until = next((one.t1 for one in known if one.version >= end), NEVER)
        since = back.before(sent.first)
        if said.before(until) < since or not said.before(until):
            sentence = f"{sent.command['reason']} was acknowledged, and no process did so"
            yield Violation("still", sentence, office.agent, sent.calls)


class Latest:
    """Of moments, each with another one: the latest of these others among those before a moment; 0 for none."""

    def __init__(self, moments: list[tuple[int, int]]) -> None:
        moments.sort()
        self._at = [at for at, _ in moments]
        self._latest = [0, *accumulate((other for _, other in moments), max)]

    def before(self, moment: int) -> int:
        """The latest of them."""
        return self._latest[bisect_left(self._at, moment)]


def _words(office: Office) -> tuple[Latest, Latest]:
    """Of beats that may have acknowledged, until when they can have been heard, by when they began; and of those that
    were heard to take it back, when they began, by when that was known."""
    said, back = [(beat.t0, NEVER) for beat in office.lost if beat.sent["body"].get("ack")], []
    for beat in office.beats:
        if beat.sent["body"].get("ack"):
            said.append((beat.t0, beat.t1 or NEVER))
        if not beat.sent["body"].get("ack") or beat.answer["directive"] == "continue":
            back.append((beat.t1 or NEVER, beat.t0))
    return Latest(said), Latest(back)


def _in_vain(office: Office, evidence: Evidence) -> Iterator[Violation]:
    """Once a process has acknowledged a stop that was applied, and was heard, the word of it is in the mailbox: before
    all that is sent later, and so before anything that lets the agent go on."""
    lives = evidence.lives.get(office.agent, [])
    said = [beat for beat in office.beats if beat.sent["body"].get("ack") and beat.answer["directive"] != "continue"]
    ends, judged = _ends(lives) if said else [], 0
    for beat in said:
        version = beat.answer["version"]
        if not 0 < version < len(lives) or not _was_before(beat, ends[version], evidence):
            continue
        for at in range(version, judged, -1):
            if lives[at].status not in STOPPED:
                break
            stop = _command(office, at, evidence)
            if stop is not None and stop.stops and stop.command["quiesced_by"] is None:
                sentence = f"{stop.command['reason']} was acknowledged at version {version}, and is not quiesced"
                yield Violation("still", sentence, office.agent, (*stop.calls, beat))
        judged = max(judged, version)


def _ends(lives: list[Life]) -> list[int]:
    """By version: the next one, or that itself, at which the agent is not stopped; or the number of all."""
    found = [len(lives)] * len(lives)
    for version in range(len(lives) - 1, -1, -1):
        if lives[version].status not in STOPPED:
            found[version] = version
        elif version + 1 < len(lives):
            found[version] = found[version + 1]
    return found


def _was_before(beat: Call, end: int, evidence: Evidence) -> bool:
    """Whether what ended the stop, if anything did, was sent after the beat had been answered."""
    events = evidence.history.final.events[beat.agent or ""]
    if end > len(events):
        return True
    sent = evidence.of_id.get(events[end - 1]["command_id"])
    return sent is not None and sent.first > (beat.t1 or NEVER)


def _command(office: Office, version: int, evidence: Evidence) -> Sent | None:
    return evidence.of_id.get(evidence.history.final.events[office.agent][version - 1]["command_id"])
