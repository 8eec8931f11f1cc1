"""Users, keys, projects, agent types and issues: what agents live among. These change at once, without a queue."""

import re
import secrets
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, Table, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from uuid_utils.compat import uuid7

from orchestrator import access, cursors, idempotency, keys
from orchestrator.errors import Conflict, Forbidden, Invalid, NotFound, Violation, no_agent
from orchestrator.fields import is_uuid
from orchestrator.idempotency import Once
from orchestrator.keys import Caller
from orchestrator.models import agent_types, agents, api_keys, issues, projects, users
from orchestrator.states import KeyKind

_HAS_PASSED = text("SELECT coalesce(CAST(:at AS timestamptz) <= now(), false)")

Made = tuple[Row[Any], bool]
"""A row, and whether an earlier request with the same Idempotency-Key made it."""


def create_user(db: Connection, caller: Caller, once: Once | None, values: dict[str, Any]) -> Made:
    """A new user. Raises Conflict where the e-mail address is taken."""
    return _create(db, caller, once, users, values, unique="email")


def change_user(db: Connection, caller: Caller, once: Once | None, user_id: UUID, values: dict[str, Any]) -> Made:
    """The user after the change. Raises NotFound."""
    return _change(db, caller, once, users, user_id, values, "user")


def user(db: Connection, user_id: UUID) -> Row[Any]:
    """One user. Raises NotFound."""
    return _find(db, users, user_id, "user")


def create_project(db: Connection, caller: Caller, once: Once | None, values: dict[str, Any]) -> Made:
    """A new project, its caller's own unless a superuser names another owner. Raises Conflict for a taken slug."""
    owner = _owner(db, caller, values.get("owner_id") or caller.user_id)
    return _create(db, caller, once, projects, _with_slug(values) | {"owner_id": owner}, unique="slug")


def change_project(db: Connection, caller: Caller, once: Once | None, project_id: UUID, values: dict[str, Any]) -> Made:
    """The project after the change. Only a superuser gives it to another owner."""
    access.enter(db, caller, project_id)
    if "owner_id" in values:
        _owner(db, caller, values["owner_id"])
    return _change(db, caller, once, projects, project_id, values, "project")


def create_type(db: Connection, caller: Caller, once: Once | None, values: dict[str, Any]) -> Made:
    """A new agent type. Raises Conflict for a taken slug."""
    return _create(db, caller, once, agent_types, _with_slug(values), unique="slug")


def change_type(db: Connection, caller: Caller, once: Once | None, type_id: UUID, values: dict[str, Any]) -> Made:
    """The agent type after the change. Raises NotFound."""
    return _change(db, caller, once, agent_types, type_id, values, "agent type")


def agent_type(db: Connection, type_id: UUID) -> Row[Any]:
    """One agent type. Raises NotFound."""
    return _find(db, agent_types, type_id, "agent type")


def create_issue(db: Connection, caller: Caller, once: Once | None, project_id: UUID, values: dict[str, Any]) -> Made:
    """A new work item. Raises Invalid where the assigned agent is not of this project."""
    access.enter(db, caller, project_id)
    _check_assignee(db, project_id, values)
    return _create(db, caller, once, issues, values | {"project_id": project_id})


def change_issue(
    db: Connection, caller: Caller, once: Once | None, project_id: UUID, issue_id: UUID, values: dict[str, Any]
) -> Made:
    """The work item after the change. Raises NotFound, Invalid."""
    issue(db, caller, project_id, issue_id)
    _check_assignee(db, project_id, values)
    return _change(db, caller, once, issues, issue_id, values, "issue")


def issue(db: Connection, caller: Caller, project_id: UUID, issue_id: UUID) -> Row[Any]:
    """One work item of the project. Raises NotFound."""
    access.enter(db, caller, project_id)
    here = select(issues).where(issues.c.id == issue_id, issues.c.project_id == project_id)
    row = db.execute(here).one_or_none()
    if row is None:
        raise NotFound(f"there is no issue {issue_id} in this project")
    return row


def create_key(db: Connection, caller: Caller, values: dict[str, Any]) -> tuple[Row[Any], str]:
    """A new API key and its secret; for another user only where the caller is a superuser.

    Raises Invalid for a user that there is not, and for a key that would be dead at its birth.
    """
    user_id = _own_or_any(caller, values.pop("user_id", None))
    if db.execute(select(users.c.id).where(users.c.id == user_id)).one_or_none() is None:
        raise Invalid(Violation(f"there is no user {user_id}", "user_id"))
    if db.execute(_HAS_PASSED, {"at": values.get("expires_at")}).scalar_one():
        raise Invalid(Violation("must lie in the future", "expires_at"))
    return keys.issue(db, user_id, **values)


def revoke_key(db: Connection, caller: Caller, once: Once | None, key_id: UUID) -> bool:
    """End a key's life, within a second everywhere; whether an earlier request with the same key did it.

    Raises NotFound for a key the caller may not see.
    """
    mine = api_keys.c.id == key_id
    if not caller.is_superuser:
        mine &= api_keys.c.user_id == caller.user_id
    if idempotency.claim(db, caller, once, subject_id=key_id):
        return True
    revoked = update(api_keys).where(mine, api_keys.c.revoked_at.is_(None)).values(revoked_at=text("now()"))
    if not db.execute(revoked).rowcount:
        raise NotFound(f"there is no key {key_id}")
    return False


def own_keys(caller: Caller, user_id: UUID | None) -> Any:
    """The condition that selects the living API keys of a user, the caller's own where none is named."""
    mine = (api_keys.c.user_id == _own_or_any(caller, user_id)) & api_keys.c.revoked_at.is_(None)
    return mine & (api_keys.c.kind == KeyKind.KEY.value)


def own_projects(caller: Caller) -> Any:
    """The condition that selects the projects the caller may see."""
    return True if caller.is_superuser else projects.c.owner_id == caller.user_id


def listed(
    db: Connection, table: Table, condition: Any, cursor: str | None, limit: int
) -> tuple[Sequence[Row[Any]], str | None]:
    """A page of a table's rows that meet the condition, newest first, and the next page's cursor."""
    query = select(table).where(condition).order_by(table.c.id.desc()).limit(limit + 1)
    if cursor is not None:
        query = query.where(table.c.id < cursors.decode(cursor, cursors.uuid)[0])
    rows = db.execute(query).all()
    return rows[:limit], cursors.encode(rows[limit - 1].id) if len(rows) > limit else None


def _create(
    db: Connection, caller: Caller, once: Once | None, table: Table, values: dict[str, Any], unique: str | None = None
) -> Made:
    id_ = uuid7()
    if before := idempotency.claim(db, caller, once, subject_id=id_):
        return _find(db, table, before.subject_id, table.name), True
    adding = upsert(table).values(id=id_, **values)
    if unique is not None:
        adding = adding.on_conflict_do_nothing(index_elements=[unique])
    row = db.execute(adding.returning(table)).one_or_none()
    if row is None:
        raise Conflict(f"the {unique} {values[unique or '']!r} is taken", field=unique)
    return row, False


def _change(
    db: Connection, caller: Caller, once: Once | None, table: Table, id_: UUID, values: dict[str, Any], noun: str
) -> Made:
    if idempotency.claim(db, caller, once, subject_id=id_):
        return _find(db, table, id_, noun), True
    if not values:
        return _find(db, table, id_, noun), False
    row = db.execute(update(table).where(table.c.id == id_).values(**values).returning(table)).one_or_none()
    if row is None:
        raise NotFound(f"there is no {noun} {id_}")
    return row, False


def _find(db: Connection, table: Table, id_: UUID, noun: str) -> Row[Any]:
    row = db.execute(select(table).where(table.c.id == id_)).one_or_none()
    if row is None:
        raise NotFound(f"there is no {noun} {id_}")
    return row


def _with_slug(values: dict[str, Any]) -> dict[str, Any]:
    """Made from the name where none is given; a name without a Latin letter or digit, or that reads as an id, gets a
    random one."""
    made = re.sub(r"[^a-z0-9]+", "-", values["name"].lower()).strip("-")[:100].strip("-")
    made = "" if is_uuid(made) else made
    return values | {"slug": values.get("slug") or made or secrets.token_hex(4)}


def _own_or_any(caller: Caller, user_id: UUID | None) -> UUID:
    if user_id not in (None, caller.user_id) and not caller.is_superuser:
        raise Forbidden("only a superuser may handle another user's keys")
    return user_id or caller.user_id


def _owner(db: Connection, caller: Caller, user_id: UUID) -> UUID:
    if user_id != caller.user_id:
        if not caller.is_superuser:
            raise Forbidden("only a superuser may name another owner")
        if db.execute(select(users.c.id).where(users.c.id == user_id)).one_or_none() is None:
            raise Invalid(Violation(f"there is no user {user_id}", "owner_id"))
    return user_id


def _check_assignee(db: Connection, project_id: UUID, values: dict[str, Any]) -> None:
    agent_id = values.get("assigned_agent_id")
    if agent_id is None:
        return
    known = select(agents.c.id).where(agents.c.id == agent_id, agents.c.project_id == project_id)
    if db.execute(known).one_or_none() is None:
        raise Invalid(Violation(no_agent(agent_id).detail, "assigned_agent_id"))
