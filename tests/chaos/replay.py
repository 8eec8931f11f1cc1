"""Every agent's life is what its orders make of it, one event after the other, by the contract's own model."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.chaos.contract import TABLE, UNBORN, Change, Life, change, owners
from tests.chaos.evidence import Evidence, Sent, Violation

FIELDS = ("name", "current_task", "short_term_memory", "session_id")
"""What orders change, beside the status and the holds."""

BY_ITSELF = {
    "agent": (frozenset({"work", "wait", "rest", "update"}), frozenset({"current_task"})),
    "system": (frozenset({"rest", "pause", "resume"}), frozenset({"holds"})),
}
"""What can come of a command that is not a client's, as events and fields: of a process's beat, and of the end of a
process, a fault hold or the end of a hold."""


def chain(evidence: Evidence) -> Iterator[Violation]:
    """An event that does not begin where the one before it ended, whose step the table does not have, that follows the
    end; or that leaves an agent paused without a hold, or held and not paused."""
    for agent, lives in evidence.lives.items():
        events = evidence.history.final.events[agent]
        for before, event, after in zip(lives, events, lives[1:], strict=False):
            for check, wrong in _wrong_step(before, change(event), after):
                sent = evidence.of_id.get(event["command_id"])
                sentence = f"version {event['version']} ({event['verb']}) {wrong}"
                yield Violation(check, sentence, agent, sent.calls if sent else ())


def _wrong_step(before: Life, event: Change, after: Life) -> Iterator[tuple[str, str]]:
    if event.before != before.status:
        yield "chain", f"begins at {event.before}, and the agent was {before.status}"
    if before.status == "terminated":
        yield "ended", "follows the end"
    elif not _is_step(before.status, event):
        yield "chain", f"goes from {before.status} to {event.after}, which is no such step"
    if (after.status == "paused") != bool(after.fields["holds"]):
        yield "holds", f"leaves the agent {after.status} with the holds {after.fields['holds']}"


def _is_step(before: str | None, event: Change) -> bool:
    if before == event.after:  # of fields alone; or of one hold among others
        return event.verb == "update" or (before == "paused" and event.verb in ("pause", "resume"))
    return TABLE.get(before, {}).get(event.after) == event.verb


def replay(evidence: Evidence) -> Iterator[Violation]:
    """A command whose end is not what its order demands of the agent as it was then."""
    for agent, found in evidence.of_agent.items():
        never_born = [] if agent in evidence.history.final.events else [UNBORN]
        lives = evidence.lives.get(agent, never_born)  # none where there are gaps: `versions` tells of them
        for sent in found if lives else ():
            wrong = _wrong_end(sent, lives)
            if wrong:
                sentence = f"{sent.command['verb']} ({sent.command['reason']}) {wrong}"
                yield Violation("replay", sentence, agent, sent.calls)


def _wrong_end(sent: Sent, lives: Sequence[Life]) -> str | None:
    state, version, event = sent.command["state"], sent.command["version"], sent.event
    if state not in ("applied", "rejected") or (state == "rejected" and event):
        return f"is {state} and has an event" if event else None
    at = event["version"] - 1 if event else version
    if at is None or not 0 <= at < len(lives):
        return f"ended at version {version} of {len(lives) - 1}"
    ended = sent.command["error"]["code"] if state == "rejected" else change(event) if event else None
    if sent.order is None:
        return _wrong_by_itself(sent.command["actor"]["type"], ended)
    demanded = lives[at].demands(sent.order)
    if demanded == ended:
        return None
    return f"at version {at}, {lives[at].status}, ended with {_told(ended)} instead of {_told(demanded)}"


def _wrong_by_itself(actor: str, ended: Change | str | None) -> str | None:
    """Of a command that no client sent only this is known: what its kind of sender can bring about at all."""
    if not isinstance(ended, Change) or actor not in BY_ITSELF:
        return None
    verbs, fields = BY_ITSELF[actor]
    possible = ended.verb in verbs and ended.changes.keys() <= fields
    return None if possible else f"made {_told(ended)}, which no {actor} can do"


def _told(ended: Change | str | None) -> str:
    return f"{ended.verb} to {ended.after} {ended.changes}" if isinstance(ended, Change) else str(ended)


def signed(evidence: Evidence) -> Iterator[Violation]:
    """An event that is told to be another's than its command's, or for another reason."""
    for sent in evidence.sent:
        event, command = sent.event, sent.command
        if event is not None and (event["actor"], event["reason"]) != (command["actor"], command["reason"]):
            told = f"{event['actor']['type']} {event['actor']['id']}, {event['reason']}"
            sentence = f"version {event['version']} is told to be of {told}, and is {command['reason']}"
            yield Violation("signed", sentence, command["agent_id"], sent.calls)


def final(evidence: Evidence) -> Iterator[Violation]:
    """An agent that is not, in the end, what its events make of it."""
    for agent in evidence.history.final.agents:
        lives = evidence.lives.get(agent["id"])
        wrong = differs(agent, lives[-1]) if lives else None
        if wrong:
            yield Violation("final", f"in the end {wrong}", agent["id"])


def differs(agent: Mapping[str, Any], life: Life) -> str | None:
    """The first thing in which an agent, as the API shows it, is not what it was at that version; None where it is."""
    if agent["status"] != life.status:
        return f"its status is {agent['status']}, not {life.status}"
    if (agent["terminated_at"] is not None) != (life.status == "terminated"):
        return f"terminated_at is {agent['terminated_at']} of one that is {life.status}"
    if owners(agent["holds"]) != life.fields["holds"]:
        return f"its holds are {owners(agent['holds'])}, not {life.fields['holds']}"
    for name in FIELDS:
        if agent[name] != life.fields.get(name):
            return f"its {name} is {agent[name]!r}, not {life.fields.get(name)!r}"
    return None
