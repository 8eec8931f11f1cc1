"""The shapes of answers, paths and queries: what OpenAPI documents is what is rendered."""

from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, Literal
from uuid import UUID

from flask import request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, model_validator

from orchestrator.errors import Invalid, Violation
from orchestrator.fields import LAX, Id, Time, wrong
from orchestrator.lifecycle import COMMANDS, Status, Verb
from orchestrator.models import IssueStatus, ProjectStatus, State


def plain(value: Decimal) -> str:
    """An exact decimal without exponent or trailing zeros."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


Usd = Annotated[Decimal, PlainSerializer(plain, return_type=str)]


class Shape(BaseModel):
    """An answer's shape, read from a row's columns."""

    model_config = ConfigDict(from_attributes=True)


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
    version: int


class Pagination(Shape):
    """Where a numbered page stands in the whole."""

    total: int
    total_is_at_least: bool = False
    page: int
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


class Actor(Shape):
    """Who asked: a user, or the system itself."""

    type: Literal["user", "system"]
    id: UUID | None


class CommandError(Shape):
    """Why a command was not applied."""

    code: str
    message: str
    field: str | None


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


class User(Shape):
    """Somebody who calls."""

    id: UUID
    email: str
    is_superuser: bool
    is_active: bool
    created_at: datetime


class Key(Shape):
    """An API key, without its secret."""

    id: UUID
    name: str
    prefix: str
    user_id: UUID
    expires_at: datetime | None
    created_at: datetime


class NewKey(Key):
    """An API key with its secret, shown this once."""

    key: str


class Project(Shape):
    """What agents belong to."""

    id: UUID
    slug: str
    name: str
    owner_id: UUID
    status: ProjectStatus
    created_at: datetime


class AgentType(Shape):
    """A kind of agent."""

    id: UUID
    slug: str
    name: str
    is_active: bool
    created_at: datetime


class Issue(Shape):
    """A work item."""

    id: UUID
    project_id: UUID
    title: str
    body: str | None
    status: IssueStatus
    assigned_agent_id: UUID | None
    created_at: datetime


class UserPage(Shape):
    """Users, newest first."""

    data: list[User]
    pagination: Cursor


class KeyPage(Shape):
    """Keys, newest first."""

    data: list[Key]
    pagination: Cursor


class ProjectPage(Shape):
    """Projects, newest first."""

    data: list[Project]
    pagination: Cursor


class AgentTypePage(Shape):
    """Agent types, newest first."""

    data: list[AgentType]
    pagination: Cursor


class IssuePage(Shape):
    """Work items, newest first."""

    data: list[Issue]
    pagination: Cursor


class MeUser(Shape):
    """The user behind the key."""

    id: UUID
    email: str
    is_superuser: bool


class MeKey(Shape):
    """The key in use."""

    id: UUID
    name: str
    prefix: str


class Me(Shape):
    """Who is calling."""

    user: MeUser
    key: MeKey


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


class ProjectPath(BaseModel):
    """The project in the address."""

    project_id: Id


class AgentPath(ProjectPath):
    """Project and agent in the address."""

    agent_id: Id


class CommandPath(ProjectPath):
    """Project and command in the address."""

    command_id: Id


class IssuePath(ProjectPath):
    """Project and issue in the address."""

    issue_id: Id


class UserPath(BaseModel):
    """The user in the address."""

    user_id: Id


class KeyPath(BaseModel):
    """The key in the address."""

    key_id: Id


class TypePath(BaseModel):
    """The agent type in the address."""

    type_id: Id


class Query(BaseModel):
    """Query parameters: unknown ones are ignored, a known one is given once and not empty."""

    @model_validator(mode="before")
    @classmethod
    def _once_and_not_empty(cls, given: dict[str, Any]) -> dict[str, Any]:
        for name in cls.model_fields:
            values = request.args.getlist(name)
            if len(values) > 1:
                raise Invalid(Violation("must be given at most once", name))
            if values == [""]:
                raise Invalid(Violation("must not be empty; leave it out", name))
            if "\0" in "".join(values):
                raise Invalid(Violation("must not contain a NUL character", name))
        return given

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The same schema, made once: the framework asks for it at every request."""
        return _schema_of(cls) if not (args or kwargs) else super().model_json_schema(*args, **kwargs)


@cache
def _schema_of(query: type[Query]) -> dict[str, Any]:
    return super(Query, query).model_json_schema()


Limit = Annotated[int, Field(ge=1, le=100)]
Text = Annotated[str, Field(max_length=1000)]


class ListQuery(Query):
    """A page by cursor."""

    cursor: Text | None = None
    limit: Limit = 20


class AgentQuery(ListQuery):
    """A page of agents, by number or by cursor, and which."""

    page: Annotated[int, Field(ge=1)] = 1
    status: Annotated[Status | None, LAX] = None
    type: Text | None = None
    q: Annotated[str | None, Field(max_length=100)] = None


def _sendable(verb: Verb | None) -> Verb | None:
    if verb is not None and verb not in COMMANDS:
        raise wrong(f"must be one of {', '.join(COMMANDS)}")
    return verb


class CommandQuery(ListQuery):
    """A page of commands, and which."""

    state: Annotated[State | None, LAX] = None
    agent_id: Id | None = None
    verb: Annotated[Verb | None, LAX, AfterValidator(_sendable)] = None


class KeyQuery(ListQuery):
    """A page of keys; a superuser may ask for another user's."""

    user_id: Id | None = None


class IssueQuery(ListQuery):
    """A page of work items, and which."""

    status: Annotated[IssueStatus | None, LAX] = None
    assigned_agent_id: Id | None = None


class AgentEventQuery(Query):
    """An agent's events after a version."""

    after_version: Annotated[int, Field(ge=0, lt=2**63)] = 0
    limit: Limit = 20


class EventQuery(Query):
    """A project's events after a cursor."""

    after: Text | None = None
    limit: Limit = 20


class UsageQuery(Query):
    """What to sum by, and over which time."""

    group_by: Literal["model", "agent", "agent_type", "hour", "day"] = "model"
    since: Time | None = None
    until: Time | None = None
