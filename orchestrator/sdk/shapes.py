"""What the API answers, as objects. A newer server may say more; what is unknown is kept."""

from datetime import datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

T = TypeVar("T")


class Shape(BaseModel):
    """An answer's shape."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Actor(Shape):
    """Who asked: a user, an agent's own process, or the system itself."""

    type: str
    id: str | None


class Hold(Shape):
    """One reason for which an agent is paused."""

    id: str
    owner: str
    reason: str | None
    until: datetime | None
    placed_by: Actor
    placed_at: datetime


class Agent(Shape):
    """An agent."""

    id: str
    agent_type_id: str
    project_id: str
    name: str
    status: str
    current_task: str | None
    short_term_memory: dict[str, Any]
    long_term_memory_ref: str | None
    session_id: str | None
    last_activity_at: datetime | None
    terminated_at: datetime | None
    tasks_completed: int
    tokens_used: int
    cost_incurred: Decimal
    created_at: datetime
    updated_at: datetime
    agent_type_name: str
    agent_type_slug: str
    project_name: str
    project_slug: str
    assigned_issues_count: int
    holds: list[Hold]
    quiesced_at: datetime | None
    quiesced_by: str | None
    version: int


class Command(Shape):
    """What was asked of an agent, and what became of it."""

    id: str
    project_id: str
    agent_id: str
    verb: str
    state: str
    reason: str | None
    actor: Actor
    requested_at: datetime
    closed_at: datetime | None
    version: int | None
    error: dict[str, Any] | None
    task_id: str | None
    quiesced_at: datetime | None
    quiesced_by: str | None


class Event(Shape):
    """A fact of the past."""

    version: int
    project_id: str
    agent_id: str
    command_id: str
    verb: str
    before: str | None
    after: str
    changes: dict[str, Any]
    actor: Actor
    reason: str | None
    at: datetime
    cursor: str


class Metrics(Shape):
    """Sums over agents, the terminated ones too."""

    total_instances: int
    active_instances: int
    idle_instances: int
    total_tasks_completed: int
    total_tokens_used: int
    total_cost_incurred: Decimal
    by_status: dict[str, int]


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
    cost_incurred: Decimal
    tasks_completed: int


class Project(Shape):
    """A project."""

    id: str
    slug: str
    name: str
    owner_id: str
    status: str
    created_at: datetime


class AgentType(Shape):
    """A kind of agent."""

    id: str
    slug: str
    name: str
    is_active: bool
    created_at: datetime


class Issue(Shape):
    """A work item."""

    id: str
    project_id: str
    title: str
    body: str | None
    status: str
    assigned_agent_id: str | None
    created_at: datetime


class User(Shape):
    """A user."""

    id: str
    email: str
    is_superuser: bool
    is_active: bool
    created_at: datetime


class Key(Shape):
    """An API key; never its secret."""

    id: str
    name: str
    prefix: str
    user_id: str
    expires_at: datetime | None
    created_at: datetime


class NewKey(Key):
    """A new API key, with the secret that is shown this once."""

    key: str


class Lease(Shape):
    """The right to act as an agent."""

    lease_id: str
    epoch: int
    ttl: int
    token: str
    directive: str
    reason: str | None


class Told(Shape):
    """What a process shall do, how soon, until when, and why."""

    directive: str
    mode: str | None
    deadline: datetime | None
    reason: str | None
    version: int


class Page(Shape, Generic[T]):
    """One page of a list by cursor."""

    data: list[T]
    next_cursor: str | None
