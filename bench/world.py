"""What the measurements act on: fleets, made past the door, and the clock of the database."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from orchestrator import verify
from orchestrator.db import Guard, autocommit, begin
from orchestrator.rows import NEW_ID


@dataclass(frozen=True)
class Fleet:
    """A project, and how many agents it has; they are called a-1, a-2 and so on."""

    project_id: UUID
    type_slug: str
    size: int

    @property
    def path(self) -> str:
        """Its address."""
        return f"/api/v1/projects/{self.project_id}"

    def agents(self, most: int) -> list[UUID]:
        """The ids of some of them."""
        found = sql("SELECT id FROM agents WHERE project_id = :p LIMIT :most", p=self.project_id, most=most)
        return [row.id for row in found]


_PROJECT = f"""
    WITH kind AS (INSERT INTO agent_types (id, slug, name) VALUES ({NEW_ID}, :slug, :slug) RETURNING id)
    INSERT INTO projects (id, slug, name, owner_id) SELECT {NEW_ID}, :slug, :slug, users.id FROM users RETURNING id
"""
_AGENTS = f"""
    INSERT INTO agents (id, project_id, agent_type_id, name, status, version, created_at, updated_at)
    SELECT {NEW_ID}, :project, t.id, 'a-' || n, 'idle', 1, now() - (:size - n) * interval '1 millisecond', now()
    FROM agent_types t CROSS JOIN generate_series(1, :size) n WHERE t.slug = :slug
"""
_BIRTHS = f"""
    INSERT INTO events (agent_id, version, project_id, command_id, verb, after, changes, actor_type, at)
    SELECT id, 1, project_id, {NEW_ID}, 'spawn', 'idle', jsonb_build_object('name', name), 'system', created_at
    FROM agents WHERE project_id = :project
"""
_COUNTED = "INSERT INTO project_counters (project_id, slot, idle) VALUES (:project, 0, :size)"


def fleet(slug: str, size: int) -> Fleet:
    """A new project with so many idle agents."""
    with begin(Guard.TOOL) as db:
        project = db.execute(text(_PROJECT), {"slug": slug}).scalar_one()
        values = {"project": project, "size": size, "slug": slug}
        for statement in (_AGENTS, _BIRTHS, _COUNTED):
            db.execute(text(statement), values)
    tidy()
    return Fleet(project, slug, size)


def tidy() -> None:
    """What autovacuum does sooner or later, now: so that each measurement begins alike."""
    with autocommit(Guard.TOOL) as db:
        db.exec_driver_sql("VACUUM (ANALYZE)")
        db.exec_driver_sql("CHECKPOINT")


def sql(statement: str, **values: Any) -> list[Any]:
    """The rows of a statement."""
    with begin(Guard.TOOL) as db:
        result = db.execute(text(statement), values)
        return list(result.all()) if result.returns_rows else []


def waiting() -> bool:
    """Whether any command waits; asked so that it costs next to nothing in a backlog."""
    return bool(sql("SELECT EXISTS (SELECT FROM commands WHERE state = 'queued') AS any")[0].any)


def violations() -> dict[str, int]:
    """The invariants that do not hold."""
    with begin(Guard.TOOL) as db:
        return {found.name: found.violations for found in verify.check(db) if found.violations}
