"""What a command does to an agent: pure functions over values, no I/O and no clock."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from orchestrator import holds
from orchestrator.errors import NotFound, PreconditionFailed, Problem
from orchestrator.holds import MANUAL, Holds
from orchestrator.lifecycle import Status, Verb, edge, move, refuse_update
from orchestrator.states import State


@dataclass(frozen=True, slots=True)
class Agent:
    """The lifecycle half of an agent's row; the counters are the ledger's and change by deltas."""

    id: UUID
    project_id: UUID
    status: Status | None
    version: int
    name: str
    current_task: str | None
    short_term_memory: dict[str, Any]
    long_term_memory_ref: str | None
    session_id: str | None
    last_activity_at: datetime | None
    terminated_at: datetime | None
    updated_at: datetime
    holds: Holds


@dataclass(frozen=True, slots=True)
class Command:
    """A queued command as the drain reads it."""

    id: UUID
    agent_id: UUID
    verb: Verb
    payload: dict[str, Any]
    reason: str | None
    actor_type: str
    actor_id: UUID | None
    precondition: int | None


@dataclass(frozen=True, slots=True)
class Event:
    """A fact to be written: `verb` took the agent from `before` to `after`; `changes` are new values by field."""

    verb: Verb
    before: Status | None
    after: Status
    changes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: its state, the agent's version after it, and the event or the error it left."""

    command: Command
    state: State
    version: int
    event: Event | None = None
    error: dict[str, Any] | None = None


Effect = Callable[[Agent, Command, datetime], Event]


def decide(agent: Agent, commands: Iterable[Command], at: datetime) -> tuple[Agent, list[Outcome]]:
    """Apply a mailbox in order: the agent as it is afterwards, and one outcome per command."""
    outcomes = []
    for command in commands:
        agent, outcome = _decide_one(agent, command, at)
        outcomes.append(outcome)
    return agent, outcomes


def _decide_one(agent: Agent, command: Command, at: datetime) -> tuple[Agent, Outcome]:
    try:
        event = _effect(agent, command, at)
    except Problem as refusal:
        return agent, Outcome(command, State.REJECTED, agent.version, error=refusal.as_record())
    if event.before == event.after and not event.changes:
        return agent, Outcome(command, State.APPLIED, agent.version)
    agent = _after(agent, event, at)
    return agent, Outcome(command, State.APPLIED, agent.version, event)


def _effect(agent: Agent, command: Command, at: datetime) -> Event:
    if agent.status is None and command.verb is not Verb.SPAWN:
        raise NotFound(f"agent {agent.id} was never born: its spawn did not go through")
    if command.precondition not in (None, agent.version):
        raise PreconditionFailed(f"the agent's version is {agent.version}, not {command.precondition}")
    return EFFECTS[command.verb](agent, command, at)


def _after(agent: Agent, event: Event, at: datetime) -> Agent:
    moved = event.before not in (None, event.after)
    return replace(
        agent,
        **({} if event.verb is Verb.SPAWN else event.changes),  # accept has written what an agent is born with
        status=event.after,
        version=agent.version + 1,
        last_activity_at=at if moved else agent.last_activity_at,
        terminated_at=at if event.after is Status.TERMINATED else None,
        updated_at=at,
    )


def _spawn(agent: Agent, command: Command, _: datetime) -> Event:
    return Event(Verb.SPAWN, agent.status, move(agent.status, Verb.SPAWN), command.payload)


def _pause(agent: Agent, command: Command, at: datetime) -> Event:
    if agent.status is not Status.PAUSED:
        move(agent.status, Verb.PAUSE)
    hold = {
        "id": str(command.id),
        "owner": command.payload.get("owner", MANUAL),
        "reason": command.reason,
        "until": command.payload.get("until"),
        "placed_by": {"type": command.actor_type, "id": command.actor_id and str(command.actor_id)},
        "placed_at": at.isoformat().replace("+00:00", "Z"),
    }
    return Event(Verb.PAUSE, agent.status, Status.PAUSED, {"holds": holds.place(agent.holds, hold)})


def _resume(agent: Agent, command: Command, _: datetime) -> Event:
    free = move(agent.status, Verb.RESUME)
    if "hold" in command.payload:  # the system's, when the time of a hold is over
        left = holds.lift_due(agent.holds, command.payload["hold"])
    else:
        left = holds.lift(agent.holds, command.payload.get("owner", MANUAL))
    return Event(Verb.RESUME, agent.status, Status.PAUSED if left else free, {"holds": left})


def _terminate(agent: Agent, *_: Any) -> Event:
    return _ended(agent, {})


def _ended(agent: Agent, wanted: dict[str, Any]) -> Event:
    cleared = wanted | {"current_task": None, "session_id": None, "holds": []}
    return Event(Verb.TERMINATE, agent.status, move(agent.status, Verb.TERMINATE), _differing(agent, cleared))


def _update(agent: Agent, command: Command, at: datetime) -> Event:
    if agent.status in (None, Status.TERMINATED):
        raise refuse_update(agent.status)
    wanted = dict(command.payload)
    target = Status(wanted.pop("status", agent.status))
    if "short_term_memory" in wanted:
        wanted["short_term_memory"] = wanted["short_term_memory"] or {}
    if target is Status.TERMINATED:
        return _ended(agent, wanted)
    event = _moved(agent, target, command, at)
    return replace(event, changes=event.changes | _differing(agent, wanted))


def _moved(agent: Agent, target: Status, command: Command, at: datetime) -> Event:
    if target is agent.status:
        return Event(Verb.UPDATE, agent.status, target, {})
    verb = edge(agent.status, target)
    if verb in (Verb.PAUSE, Verb.RESUME):
        return EFFECTS[verb](agent, command, at)
    return Event(verb, agent.status, target, {})


def _differing(agent: Agent, wanted: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in wanted.items() if _json(getattr(agent, field)) != _json(value)}


def _json(value: Any) -> str:
    """What can be compared: to Python, true equals 1 and 1 equals 1.0."""
    return json.dumps(value, sort_keys=True)


EFFECTS: dict[Verb, Effect] = {
    Verb.SPAWN: _spawn,
    Verb.PAUSE: _pause,
    Verb.RESUME: _resume,
    Verb.TERMINATE: _terminate,
    Verb.UPDATE: _update,
}
