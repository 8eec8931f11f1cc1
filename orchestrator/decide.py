"""What a command does to an agent: pure functions over values, no I/O and no clock."""

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from orchestrator import holds, stops
from orchestrator.errors import Fenced, NotFound, PreconditionFailed, Problem
from orchestrator.holds import MANUAL, Holds
from orchestrator.lifecycle import Status, Verb, edge, move, refusal, refuse_update
from orchestrator.states import State
from orchestrator.stops import GOING, Cause, Lease, Stage


class Agent(NamedTuple):
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
    stage: Stage


class Command(NamedTuple):
    """A queued command as the drain reads it."""

    id: UUID
    agent_id: UUID
    verb: Verb
    payload: dict[str, Any]
    reason: str | None
    actor_type: str
    actor_id: UUID | None
    precondition: int | None
    epoch: int | None
    created_at: datetime
    batch_id: UUID | None = None


class Event(NamedTuple):
    """A fact to be written: `verb` took the agent from `before` to `after`; `changes` are new values by field."""

    verb: Verb
    before: Status | None
    after: Status
    changes: dict[str, Any]
    stage: Stage = GOING
    """How far a stop has come then; no part of the history, as a process's standing still is no move of the agent."""


class Outcome(NamedTuple):
    """How a command ended: its state, the agent's version after it, and the event or the error it left."""

    command: Command
    state: State
    version: int
    event: Event | None = None
    error: dict[str, Any] | None = None
    stage: Stage = GOING
    """How far the agent's stop has come with it."""
    quiesced: Sequence[UUID] = ()
    """The stopping commands that waited for the process to stand still, and now need not: by `stage`."""


class Moment(NamedTuple):
    """What an effect may know besides agent and command: the database's time, and who may act as the agent."""

    at: datetime
    lease: Lease | None


Effect = Callable[[Agent, Command, Moment], Event]


def decide(agent: Agent, commands: Iterable[Command], now: Moment) -> tuple[Agent, list[Outcome]]:
    """Apply a mailbox in order: the agent as it is afterwards, and one outcome per command."""
    outcomes = []
    for command in commands:
        agent, outcome = _decide_one(agent, command, now)
        outcomes.append(outcome)
    return agent, outcomes


def _decide_one(agent: Agent, command: Command, now: Moment) -> tuple[Agent, Outcome]:
    try:
        event = _effect(agent, command, now)
    except Problem as refusal:
        return agent, Outcome(command, State.REJECTED, agent.version, error=refusal.as_record(), stage=agent.stage)
    quiesced = _quiesced(agent.stage, event, command)
    if event.before == event.after and not event.changes:
        agent = agent._replace(stage=event.stage)
        return agent, Outcome(command, State.APPLIED, agent.version, None, None, agent.stage, quiesced)
    agent = _after(agent, event, now.at)
    return agent, Outcome(command, State.APPLIED, agent.version, event, None, agent.stage, quiesced)


def _quiesced(before: Stage, event: Event, command: Command) -> Sequence[UUID]:
    """Which commands the process's standing still was waited for by, and is known to from now on."""
    if event.stage.quiesced_at is None:
        return ()
    stopping = event.verb in (Verb.PAUSE, Verb.TERMINATE)
    return [*before.waiting, *([command.id] if stopping else [])]


def _effect(agent: Agent, command: Command, now: Moment) -> Event:
    if agent.status is None and command.verb is not Verb.SPAWN:
        raise NotFound(f"agent {agent.id} was never born: its spawn did not go through")
    if command.epoch is not None and not (now.lease and now.lease.covers(command.epoch, command.created_at)):
        raise Fenced(f"the lease of epoch {command.epoch} is over")
    if command.precondition not in (None, agent.version):
        raise PreconditionFailed(f"the agent's version is {agent.version}, not {command.precondition}")
    return EFFECTS[command.verb](agent, command, now)


def _after(agent: Agent, event: Event, at: datetime) -> Agent:
    moved = event.before not in (None, event.after)
    return agent._replace(
        **({} if event.verb is Verb.SPAWN else event.changes),  # accept has written what an agent is born with
        status=event.after,
        version=agent.version + 1,
        last_activity_at=at if moved else agent.last_activity_at,
        terminated_at=at if event.after is Status.TERMINATED else None,
        updated_at=at,
        stage=event.stage,
    )


def _spawn(agent: Agent, command: Command, _: Moment) -> Event:
    return Event(Verb.SPAWN, agent.status, move(agent.status, Verb.SPAWN), command.payload)


def _pause(agent: Agent, command: Command, now: Moment) -> Event:
    if agent.status is not Status.PAUSED:
        move(agent.status, Verb.PAUSE)
    hold = {
        "id": str(command.id),
        "owner": command.payload.get("owner", MANUAL),
        "reason": command.reason,
        "until": command.payload.get("until"),
        "placed_by": {"type": command.actor_type, "id": command.actor_id and str(command.actor_id)},
        "placed_at": now.at.isoformat().replace("+00:00", "Z"),
    }
    placed = {"holds": holds.place(agent.holds, hold)}
    return Event(Verb.PAUSE, agent.status, Status.PAUSED, placed, _stopped(agent, command, now))


def _stopped(agent: Agent, command: Command, now: Moment) -> Stage:
    stop = stops.ordered(command.id, command.payload, command.reason, command.created_at)
    return stops.begin(agent.stage, stop, now.lease, now.at)


def _resume(agent: Agent, command: Command, _: Moment) -> Event:
    free = move(agent.status, Verb.RESUME)
    if "hold" in command.payload:  # the system's, when the time of a hold is over
        left = holds.lift_due(agent.holds, command.payload["hold"])
    else:
        left = holds.lift(agent.holds, command.payload.get("owner", MANUAL))
    if left:
        return Event(Verb.RESUME, agent.status, Status.PAUSED, {"holds": left}, agent.stage)
    return Event(Verb.RESUME, agent.status, free, {"holds": left})


def _terminate(agent: Agent, command: Command, now: Moment) -> Event:
    return _ended(agent, {}, command, now)


def _ended(agent: Agent, wanted: dict[str, Any], command: Command, now: Moment) -> Event:
    changes = _differing(agent, wanted | {"current_task": None, "session_id": None, "holds": []})
    ended = move(agent.status, Verb.TERMINATE)
    return Event(Verb.TERMINATE, agent.status, ended, changes, _stopped(agent, command, now))


def _settle(agent: Agent, command: Command, now: Moment) -> Event:
    """The process has said that it stands still, or is gone: then what it was at is over."""
    by, stage, lease = Cause(command.payload["by"]), agent.stage, now.lease
    # The lease that is over may have been replaced before the stop was accepted: then its successor is waited for.
    still = lease is not None and lease.acked if by is Cause.ACK else lease is None or not lease.live
    if stage.stop is not None and still:
        stage = stops.quiesced(now.at, by)
    if by is not Cause.ACK and agent.status in (Status.WORKING, Status.WAITING):
        return Event(Verb.REST, agent.status, move(agent.status, Verb.REST), {}, stage)
    return Event(Verb.SETTLE, agent.status, agent.status or Status.IDLE, {}, stage)


def _update(agent: Agent, command: Command, now: Moment) -> Event:
    if agent.status in (None, Status.TERMINATED):
        raise refuse_update(agent.status)
    wanted = dict(command.payload)
    target = Status(wanted.pop("status", agent.status))
    if "short_term_memory" in wanted:
        wanted["short_term_memory"] = wanted["short_term_memory"] or {}
    if target is Status.TERMINATED:
        return _ended(agent, wanted, command, now)
    event = _moved(agent, target, command, now)
    return event._replace(changes=event.changes | _differing(agent, wanted))


def _moved(agent: Agent, target: Status, command: Command, now: Moment) -> Event:
    if target is agent.status:
        return Event(Verb.UPDATE, agent.status, target, {}, agent.stage)
    verb = edge(agent.status, target)
    if verb is Verb.RESUME and command.epoch is not None:
        raise refusal(agent.status, "the process of an agent cannot resume it")
    if verb in (Verb.PAUSE, Verb.RESUME):
        return EFFECTS[verb](agent, command, now)
    return Event(verb, agent.status, target, {}, agent.stage)


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
    Verb.SETTLE: _settle,
}
