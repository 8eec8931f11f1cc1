"""The shapes of answers about users, keys, projects, agent types and work items."""

from datetime import datetime
from uuid import UUID

from orchestrator.states import IssueStatus, ProjectStatus
from web.schemas import Cursor, Shape


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
