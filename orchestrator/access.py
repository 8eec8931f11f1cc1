"""Who may see what: a project's owner and superusers; for anyone else it does not exist."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from orchestrator.errors import Forbidden, NotFound
from orchestrator.keys import ALIVE, Caller

_PROJECT = text("SELECT * FROM projects WHERE id = :project AND (:superuser OR owner_id = :user)")
_STILL = text(f"""
    SELECT mine.number
    FROM unnest(CAST(:keys AS uuid[]), CAST(:superusers AS boolean[]), CAST(:projects AS uuid[]))
        WITH ORDINALITY AS mine (key_id, superuser, project_id, number)
    JOIN api_keys k ON k.id = mine.key_id AND {ALIVE}
    JOIN users u ON u.id = k.user_id AND u.is_active AND (u.is_superuser OR NOT mine.superuser)
    LEFT JOIN projects p ON p.id = mine.project_id
    WHERE u.is_superuser OR mine.project_id IS NULL OR p.owner_id = u.id
""")
_COMMAND = text("SELECT * FROM commands WHERE id = :id AND project_id = :project")


def enter(db: Connection, caller: Caller, project_id: UUID) -> Row[Any]:
    """The project's row; raises NotFound, in the same words, where there is none or it is another's."""
    values = {"project": project_id, "superuser": caller.is_superuser, "user": caller.user_id}
    row = db.execute(_PROJECT, values).one_or_none()
    if row is None:
        raise NotFound(f"there is no project {project_id}")
    return row


def still(db: Connection, entered: Sequence[tuple[Caller, UUID | None]]) -> set[int]:
    """Which of those who have entered a project, or none in particular, would be let in again as who they were: their
    places in the sequence."""
    values = {
        "keys": [caller.key_id for caller, _ in entered],
        "superusers": [caller.is_superuser for caller, _ in entered],
        "projects": [project_id for _, project_id in entered],
    }
    return {number - 1 for number in db.execute(_STILL, values).scalars()}


def admit(db: Connection, caller: Caller, project_id: UUID) -> None:
    """Raises as `enter` does. Asks nobody for the token of a lease: the gate has seen that this is its project."""
    if caller.tenure is None or caller.tenure.project_id != project_id:
        enter(db, caller, project_id)


def command(db: Connection, caller: Caller, project_id: UUID, command_id: UUID) -> Row[Any]:
    """The command's row; raises NotFound where the caller cannot see it."""
    enter(db, caller, project_id)
    row = db.execute(_COMMAND, {"id": command_id, "project": project_id}).one_or_none()
    if row is None:
        raise NotFound(f"there is no command {command_id} in this project")
    return row


def demand_superuser(caller: Caller) -> None:
    """Raises Forbidden for anyone but a superuser."""
    if not caller.is_superuser:
        raise Forbidden("only a superuser may do that")
