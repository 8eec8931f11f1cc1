"""Whoever was stopped stands still in the end; what a process acknowledged is known, and nobody else speaks for it."""

from collections.abc import Iterator

from tests.chaos.contract import Life
from tests.chaos.evidence import Evidence, Sent, Violation
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
    lives = evidence.lives.get(office.agent, ())
    for beat in office.beats:
        version = beat.answer["version"]
        if beat.sent["body"].get("ack") and beat.answer["directive"] != "continue" and 0 < version < len(lives):
            for stop in _meant(beat, [*lives], evidence):
                if stop.command["quiesced_by"] is None:
                    sentence = f"{stop.command['reason']} was acknowledged at version {version}, and is not quiesced"
                    yield Violation("still", sentence, office.agent, (*stop.calls, beat))


def _meant(beat: Call, lives: list[Life], evidence: Evidence) -> Iterator[Sent]:
    """The stops that had been applied when the beat was answered, where what ended them was sent after that, if any."""
    events = evidence.history.final.events[beat.agent or ""]
    version = beat.answer["version"]
    free = next((at for at in range(version, len(lives)) if lives[at].status not in STOPPED), len(lives))
    freed = evidence.of_id.get(events[free - 1]["command_id"]) if version < free < len(lives) else None
    if free == version or (free < len(lives) and (freed is None or freed.first <= (beat.t1 or 0))):
        return
    while version and lives[version].status in STOPPED:
        stop = evidence.of_id.get(events[version - 1]["command_id"])
        if stop is not None and stop.stops:
            yield stop
        version -= 1
