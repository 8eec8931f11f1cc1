"""The shapes of answers about leases, beats and explanations."""

from datetime import datetime
from uuid import UUID

from orchestrator.directives import Directive
from orchestrator.lifecycle import Status, Verb
from orchestrator.states import LeaseEnd
from orchestrator.stops import Cause, Mode
from web.schemas import Actor, CommandError, Hold, Shape


class Lease(Shape):
    """The right to act as an agent, until it is given back, lost or fenced."""

    lease_id: UUID
    epoch: int
    ttl: int
    token: str
    directive: Directive
    reason: str | None


class Told(Shape):
    """What a process shall do, how soon, until when, why; and the agent's version then."""

    directive: Directive
    mode: Mode | None
    deadline: datetime | None
    reason: str | None
    version: int


class ToldOne(Shape):
    """The answer to one beat of many: what the process is told, or what was wrong."""

    agent_id: UUID
    told: Told | None = None
    error: CommandError | None = None


class ManyTold(Shape):
    """The answers to many beats, in their order."""

    data: list[ToldOne]


class Waiting(Shape):
    """A command in the agent's mailbox, and for how many seconds it has been there."""

    id: UUID
    verb: Verb
    reason: str | None
    actor: Actor
    age: float


class LeaseNow(Shape):
    """The agent's last lease: who holds it or held it, when it was last heard of, and how it ended."""

    epoch: int
    holder: str
    ttl: int
    live: bool
    granted_at: datetime
    beat_at: datetime
    age: float
    lost_at: datetime | None
    ended_at: datetime | None
    ended_by: LeaseEnd | None


class Refusal(Shape):
    """The last command that was refused, and why."""

    command_id: UUID
    verb: Verb
    error: CommandError
    at: datetime


class Change(Shape):
    """What will happen by itself, and when; with no time: as soon as a worker comes to it."""

    what: str
    at: datetime | None


class Stopping(Shape):
    """How far a stop has come: since when the process stands still and by what it is known; or how soon it must."""

    mode: Mode | None
    deadline: datetime | None
    quiesced_at: datetime | None
    quiesced_by: Cause | None


class Explanation(Shape):
    """Why an agent is not working right now, in sentences and in facts, and what would change it."""

    agent_id: UUID
    status: Status
    working: bool
    why: list[str]
    what_would_change_it: list[str]
    holds: list[Hold]
    stop: Stopping | None
    queued: list[Waiting]
    lease: LeaseNow | None
    last_refusal: Refusal | None
    next_change: Change | None
    coming: list[Change]
