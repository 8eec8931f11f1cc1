"""Whoever was stopped stands still in the end; what a process acknowledged is known, and nobody else speaks for it."""

from collections.abc import Iterator

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
        yield from _acknowledged_by_nobody(office, sent)
        yield from _in_vain(office, evidence)


def _acknowledged_by_nobody(office: Office, found: list[Sent]) -> Iterator[Violation]:
    said = [beat for beat in [*office.beats, *office.lost] if beat.sent["body"].get("ack")]
    for sent in found:
        if sent.command["quiesced_by"] == "ack" and not said:
            sentence = f"{sent.command['reason']} was acknowledged, and no process did so"
            yield Violation("still", sentence, office.agent, sent.calls)


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
