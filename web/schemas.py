"""The shapes of answers: what OpenAPI documents is what is rendered."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from orchestrator.lifecycle import Status, Verb
from orchestrator.states import ActorType, State
from orchestrator.stops import Cause


def plain(value: Decimal) -> str:
    """An exact decimal without exponent or trailing zeros."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


Usd = Annotated[Decimal, PlainSerializer(plain, return_type=str)]


_WHERE_SAID = Field(exclude_if=lambda value: value is None)
"""Left out where there is nothing to say, as the members of a problem are."""


class Shape(BaseModel):
    """An answer's shape, read from a row's columns."""

    model_config = ConfigDict(from_attributes=True)


class Actor(Shape):
    """Who asked: a user, an agent's own process, or the system itself."""

    type: ActorType
    id: UUID | None


class Hold(Shape):
    """One reason for which an agent is paused; `until`, it is lifted by itself."""

    id: UUID
    owner: str
    reason: str | None
    until: datetime | None
    placed_by: Actor
    placed_at: datetime


class Agent(Shape):
    """An agent. `version` counts its lifecycle events, not its usage."""

    id: UUID
    agent_type_id: UUID
    project_id: UUID
    name: str
    status: Status
    current_task: str | None
    short_term_memory: dict[str, Any]
    long_term_memory_ref: str | None
    session_id: str | None
    last_activity_at: datetime | None
    terminated_at: datetime | None
    tasks_completed: int
    tokens_used: int
    cost_incurred: Usd
    created_at: datetime
    updated_at: datetime
    agent_type_name: str
    agent_type_slug: str
    project_name: str
    project_slug: str
    assigned_issues_count: int
    holds: list[Hold]
    quiesced_at: datetime | None
    quiesced_by: Cause | None
    version: int


class Pagination(Shape):
    """Where a page of agents stands in the whole; behind a cursor it has no number."""

    total: int
    total_is_at_least: bool = False
    page: int | None
    page_size: int
    total_pages: int
    has_next: bool
    has_prev: bool
    next_cursor: str | None


class AgentPage(Shape):
    """Agents, newest first."""

    data: list[Agent]
    pagination: Pagination


class Metrics(Shape):
    """Sums over agents, the terminated ones too."""

    total_instances: int
    active_instances: int
    idle_instances: int
    total_tasks_completed: int
    total_tokens_used: int
    total_cost_incurred: Usd
    by_status: dict[Status, int]


class Terminated(Shape):
    """The answer to a terminate that was waited for."""

    success: bool
    message: str


class CommandError(Shape):
    """Why a command was not applied; a move that the lifecycle has not comes with those that it has."""

    code: str
    message: str
    field: str | None
    current_status: Annotated[Status | None, _WHERE_SAID] = None
    allowed: Annotated[list[Status] | None, _WHERE_SAID] = None


class Command(Shape):
    """What was asked of an agent, and what became of it."""

    id: UUID
    project_id: UUID
    agent_id: UUID
    verb: Verb
    state: State
    reason: str | None
    actor: Actor
    requested_at: datetime
    closed_at: datetime | None
    version: int | None
    error: CommandError | None
    task_id: str | None
    quiesced_at: datetime | None
    quiesced_by: Cause | None


class Cursor(Shape):
    """Hand `next_cursor` back for the next page; null at the end."""

    next_cursor: str | None


class CommandPage(Shape):
    """Commands, newest first."""

    data: list[Command]
    pagination: Cursor


class Event(Shape):
    """A fact of the past: who moved the agent from where to where, and why."""

    version: int
    project_id: UUID
    agent_id: UUID
    command_id: UUID
    verb: Verb
    before: Status | None
    after: Status
    changes: dict[str, Any]
    actor: Actor
    reason: str | None
    at: datetime
    cursor: str


class EventPage(Shape):
    """Events, oldest first."""

    data: list[Event]
    pagination: Cursor


class UsageTaken(Shape):
    """What became of a usage report."""

    accepted: int
    duplicates: int
    conflicts: list[int]


class UsageGroup(Shape):
    """Counted usage of one group."""

    group: str | None
    entries: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    tokens_used: int
    cost_incurred: Usd
    tasks_completed: int


class UsageReport(Shape):
    """Counted usage by group; the sums of all groups equal the counters."""

    data: list[UsageGroup]


class Invariant(Shape):
    """One invariant and how many rows violate it."""

    name: str
    sentence: str
    violations: int


class Verdict(Shape):
    """All invariants; ok when none is violated."""

    ok: bool
    invariants: list[Invariant]


class ProblemError(Shape):
    """One thing that was wrong."""

    code: str
    message: str
    field: str | None


class Problem(Shape):
    """RFC 9457 problem details; every error has this shape. A 500 has no detail: its request id leads to the logs."""

    type: str
    title: str
    status: int
    detail: str = ""
    instance: str
    request_id: str
    success: Literal[False]
    errors: list[ProblemError]
