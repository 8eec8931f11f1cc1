"""The operations outside any project: projects themselves, kinds of agents, users and keys."""

from datetime import datetime
from typing import Any

from orchestrator.sdk import shapes
from orchestrator.sdk.calls import Call
from orchestrator.sdk.documents import Listing, get, listing, nothing, send
from orchestrator.sdk.following import Following


def me() -> Call[dict[str, Any]]:
    """Who the key belongs to."""
    return get("/me", dict)


def verify() -> Call[dict[str, Any]]:
    """The invariants, each with how many rows violate it."""
    return get("/verify", dict)


def list_projects() -> Listing[shapes.Project]:
    """The projects the caller can see."""
    return listing("/projects", shapes.Project)


def create_project(name: str, *, slug: str | None = None, owner_id: str | None = None) -> Call[shapes.Project]:
    """A new project; its slug is made of the name where none is given."""
    return send("POST", "/projects", shapes.Project, name=name, slug=slug, owner_id=owner_id)


def get_project(project_id: str) -> Call[shapes.Project]:
    """One project."""
    return get(f"/projects/{project_id}", shapes.Project)


def change_project(
    project_id: str, *, name: str | None = None, status: str | None = None, owner_id: str | None = None
) -> Call[shapes.Project]:
    """Rename a project, hand it on, or archive it."""
    return send("PATCH", f"/projects/{project_id}", shapes.Project, name=name, status=status, owner_id=owner_id)


def list_types() -> Listing[shapes.AgentType]:
    """The kinds of agents there are."""
    return listing("/agent-types", shapes.AgentType)


def create_type(name: str, *, slug: str | None = None, is_active: bool | None = None) -> Call[shapes.AgentType]:
    """A new kind of agent."""
    return send("POST", "/agent-types", shapes.AgentType, name=name, slug=slug, is_active=is_active)


def get_type(type_id: str) -> Call[shapes.AgentType]:
    """One kind of agent."""
    return get(f"/agent-types/{type_id}", shapes.AgentType)


def change_type(type_id: str, *, name: str | None = None, is_active: bool | None = None) -> Call[shapes.AgentType]:
    """Rename a kind of agent, or close it to new ones."""
    return send("PATCH", f"/agent-types/{type_id}", shapes.AgentType, name=name, is_active=is_active)


def list_users() -> Listing[shapes.User]:
    """All users."""
    return listing("/users", shapes.User)


def create_user(email: str, *, is_superuser: bool | None = None) -> Call[shapes.User]:
    """A new user."""
    return send("POST", "/users", shapes.User, email=email, is_superuser=is_superuser)


def get_user(user_id: str) -> Call[shapes.User]:
    """One user."""
    return get(f"/users/{user_id}", shapes.User)


def change_user(user_id: str, *, is_active: bool | None = None, is_superuser: bool | None = None) -> Call[shapes.User]:
    """Let a user in or out, or change its rights."""
    return send("PATCH", f"/users/{user_id}", shapes.User, is_active=is_active, is_superuser=is_superuser)


def list_keys(*, user_id: str | None = None) -> Listing[shapes.Key]:
    """The caller's keys, or another user's."""
    return listing("/keys", shapes.Key, user_id=user_id)


def create_key(name: str, *, user_id: str | None = None, expires_at: datetime | None = None) -> Call[shapes.NewKey]:
    """A new key, whose secret is shown this once."""
    made = send("POST", "/keys", shapes.NewKey, name=name, user_id=user_id, expires_at=expires_at)
    return Call(made.method, made.path, made.read, made.body, keyed=False, repeatable=False)


def revoke_key(key_id: str) -> Call[None]:
    """End a key, everywhere within a second."""
    return Call("DELETE", f"/keys/{key_id}", nothing)


def list_events(
    *, agent_id: str | None = None, verb: str | None = None, status: str | None = None
) -> Listing[shapes.Event]:
    """What happened in all the caller's projects, oldest first."""
    return listing("/events", shapes.Event, cursor="after", agent_id=agent_id, verb=verb, status=status)


def follow_events(
    *, after: str | None = None, agent_id: str | None = None, verb: str | None = None, status: str | None = None
) -> Following:
    """What happens in all the caller's projects, as it happens: from now on, or from an event's cursor on."""
    return Following("/events", {"agent_id": agent_id, "verb": verb, "status": status}, after)
