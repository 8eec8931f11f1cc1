"""What the console's pages show of many projects at once."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Row, text

from orchestrator import cursors
from orchestrator.errors import Invalid, NotFound, Violation
from orchestrator.fields import parse_uuid
from orchestrator.fleet import AGENT
from orchestrator.keys import Caller
from orchestrator.lifecycle import Status
from orchestrator.pipeline import together
from orchestrator.queries import narrowed
from orchestrator.rows import Rows

PROJECTS = 500
"""Projects that a page is about at most: the newest."""

LOOKED_AT = 5_000
"""Rows that are looked at for one line of what needs attention."""

WAITING_MINUTES = 30

NAMED = 5
"""Agents that have lost their lease and are named: the last ones."""

_COUNTED = ", ".join(f"coalesce(sum(k.{status}), 0)::bigint AS {status}" for status in Status)
_PROJECT = f"""
    SELECT p.id, p.slug, p.name, p.status, p.owner_id, p.created_at, c.* FROM projects p CROSS JOIN LATERAL (
        SELECT {_COUNTED}, coalesce(sum(tasks_completed), 0)::bigint AS tasks_completed,
            coalesce(sum(tokens_used), 0) AS tokens_used, coalesce(sum(cost_incurred), 0) AS cost_incurred
        FROM project_counters k WHERE k.project_id = p.id
    ) c
    WHERE (:superuser OR p.owner_id = :user)
"""
_PROJECTS = text(f"{_PROJECT} ORDER BY p.id DESC LIMIT {PROJECTS}")
_ONE_PROJECT = text(f"{_PROJECT} AND (p.slug = :name OR p.id = :id) ORDER BY p.id = :id DESC LIMIT 1")
_COUNT = text("SELECT count(*) FROM projects p WHERE (:superuser OR p.owner_id = :user)")
# Project by project: else all agents might be read to find that none is theirs.
_ANYBODY = text("""
    SELECT EXISTS (
        SELECT FROM projects p CROSS JOIN LATERAL (
            SELECT FROM agents a WHERE a.project_id = p.id AND a.status IS NOT NULL LIMIT 1
        ) one
        WHERE (:superuser OR p.owner_id = :user) AND p.id = coalesce(CAST(:project AS uuid), p.id)
    )
""")
_AGENT = text(f"{AGENT} WHERE a.id = :agent AND (:superuser OR p.owner_id = :user) AND a.status IS NOT NULL")
_NAMED = text("""
    SELECT id FROM agents WHERE project_id = ANY(CAST(:projects AS uuid[])) AND name = :name AND status IS NOT NULL
    LIMIT 2
""")

_MINE = "= ANY(CAST(:projects AS uuid[]))"
_LONG_WAITING = text(f"""
    SELECT count(*) AS n FROM (
        SELECT FROM agents WHERE project_id {_MINE} AND status = 'waiting'
            AND updated_at < now() - interval '{WAITING_MINUTES} minutes' LIMIT {LOOKED_AT}
    ) waiting
""")
_FAILED = text(f"""
    SELECT count(*) FILTER (WHERE state = 'dead') AS dead, count(*) FILTER (WHERE state = 'rejected') AS rejected
    FROM unnest(CAST(:projects AS uuid[])) AS mine (id) CROSS JOIN LATERAL (
        SELECT state, closed_at FROM commands WHERE project_id = mine.id AND state IN ('rejected', 'dead')
        ORDER BY seq DESC LIMIT {LOOKED_AT}
    ) c WHERE c.closed_at > now() - interval '1 hour'
""")
_LOST = text(f"""
    SELECT a.id, a.name, newest.n FROM (
        SELECT agent_id, ended_at, count(*) OVER () AS n FROM (
            SELECT agent_id, ended_at FROM leases
            WHERE project_id {_MINE} AND ended_by = 'expiry' AND ended_at > now() - interval '1 hour' LIMIT {LOOKED_AT}
        ) lost ORDER BY ended_at DESC LIMIT {NAMED}
    ) newest JOIN agents a ON a.id = newest.agent_id ORDER BY newest.ended_at DESC
""")
_UNPRICED = text(f"""
    SELECT coalesce(sum(unpriced), 0)::bigint AS n FROM usage_hours
    WHERE project_id {_MINE} AND hour > now() - interval '24 hours'
""")
_COMMANDS = """
    SELECT c.*, a.name AS agent_name, a.version AS agent_version, a.holds AS agent_holds, u.email AS actor_email,
        e.recorded_at, e.changes->'holds' AS holds_left, p.slug AS project_slug
    FROM projects p CROSS JOIN LATERAL (
        SELECT * FROM commands WHERE project_id = p.id{more} ORDER BY seq DESC LIMIT :limit
    ) c
    LEFT JOIN agents a ON a.id = c.agent_id LEFT JOIN users u ON u.id = c.actor_id
    LEFT JOIN events e ON e.command_id = c.id
    WHERE p.id = ANY(CAST(:projects AS uuid[])) ORDER BY c.seq DESC LIMIT :limit
"""
_SPENDERS = text(f"""
    SELECT a.id, a.name, t.name AS type_name, s.cost, s.tokens FROM (
        SELECT u.agent_id, sum(u.cost) AS cost, sum(u.input_tokens + u.output_tokens) AS tokens FROM (
            SELECT * FROM projects p CROSS JOIN LATERAL (
                SELECT agent_id, cost, input_tokens, output_tokens FROM usage_entries
                WHERE project_id = p.id AND folded AND occurred_at >= :since ORDER BY occurred_at DESC LIMIT {LOOKED_AT}
            ) e WHERE p.id {_MINE}
        ) u GROUP BY u.agent_id
    ) s JOIN agents a ON a.id = s.agent_id JOIN agent_types t ON t.id = a.agent_type_id
    ORDER BY s.cost DESC NULLS LAST, s.tokens DESC LIMIT :limit
""")
_EVENTS_OF = text("""
    SELECT e.*, u.email AS actor_email, c.task_id, extract(epoch FROM e.at - c.created_at)::float AS waited,
        extract(epoch FROM e.recorded_at - e.at)::float AS applied
    FROM events e LEFT JOIN users u ON u.id = e.actor_id LEFT JOIN commands c ON c.id = e.command_id
    WHERE e.agent_id = :agent ORDER BY e.version DESC LIMIT :limit
""")
_USAGE_OF = text(f"""
    SELECT model, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
        sum(cache_read_tokens) AS cache_read_tokens, sum(cost) AS cost, count(*) AS entries,
        count(*) FILTER (WHERE cost IS NULL AND input_tokens + output_tokens > 0) AS unpriced
    FROM (SELECT * FROM usage_entries WHERE agent_id = :agent AND folded LIMIT {LOOKED_AT}) u
    GROUP BY model ORDER BY sum(cost) DESC NULLS LAST, 1
""")


class Attention(NamedTuple):
    """What somebody should look at: how many agents have waited for long, commands that died or were refused and leases
    that were lost within the hour (`losers`: by whom, the last NAMED), and usage without a price within a day. Each is
    counted up to LOOKED_AT."""

    waiting: int
    dead: int
    rejected: int
    lost: int
    losers: Rows
    unpriced: int


class Story(NamedTuple):
    """An agent's latest events, newest first, and its usage by model."""

    events: Rows
    usage: Rows


def projects(db: Connection, caller: Caller) -> Rows:
    """The projects that the caller may see, newest first, with their counters."""
    return db.execute(_PROJECTS, _who(caller)).all()


def number(db: Connection, caller: Caller) -> int:
    """How many projects the caller may see."""
    return int(db.execute(_COUNT, _who(caller)).scalar_one())


def has_agents(db: Connection, caller: Caller, project_id: UUID | None) -> bool:
    """Whether there has ever been an agent in this project, or in any that the caller may see."""
    return bool(db.execute(_ANYBODY, _who(caller) | {"project": project_id}).scalar_one())


def project(db: Connection, caller: Caller, name: str) -> Row[Any]:
    """The project with this slug or id. Raises NotFound where the caller cannot see it."""
    try:
        id_: UUID | None = parse_uuid(name)
    except ValueError:
        id_ = None
    row = db.execute(_ONE_PROJECT, _who(caller) | {"name": name.lower(), "id": id_}).one_or_none()
    if row is None:
        raise NotFound(f"there is no project {name}")
    return row


def agent(db: Connection, caller: Caller, agent_id: UUID) -> Row[Any]:
    """One agent of any project. Raises NotFound where the caller cannot see it, or it is not born yet."""
    row = db.execute(_AGENT, _who(caller) | {"agent": agent_id}).one_or_none()
    if row is None:
        raise NotFound(f"there is no agent {agent_id}")
    return row


def agent_named(db: Connection, projects: Sequence[UUID], name: str) -> UUID:
    """The id of the agent of these projects with this name. Raises Invalid where there is none, or more than one."""
    found = db.execute(_NAMED, {"projects": list(projects), "name": name}).scalars().all()
    if len(found) == 1:
        return UUID(str(found[0]))
    why = f"several agents are called {name!r}; name it by its id" if found else f"there is no agent {name!r}"
    raise Invalid(Violation(why, "agent"))


def attention(db: Connection, projects: Sequence[UUID]) -> Attention:
    """What needs somebody's attention in these projects."""
    mine = {"projects": list(projects)}
    asked = ((_LONG_WAITING, mine), (_FAILED, mine), (_LOST, mine), (_UNPRICED, mine))
    waiting, failed, losers, unpriced = (cursor.fetchall() for cursor in together(db, *asked))
    lost = losers[0].n if losers else 0
    return Attention(waiting[0].n, failed[0].dead, failed[0].rejected, lost, losers, unpriced[0].n)


def commands(
    db: Connection, projects: Sequence[UUID], wanted: dict[str, Any], cursor: str | None, limit: int
) -> tuple[Rows, str | None]:
    """The newest commands of these projects; `wanted`: any of state (one of State), verb, agent_id, batch_id and id."""
    more, values = narrowed(wanted, cursor)
    values |= {"projects": list(projects), "limit": limit + 1}
    rows = db.execute(text(_COMMANDS.format(more=more)), values).all()
    return rows[:limit], cursors.encode(rows[limit - 1].seq) if len(rows) > limit else None


def spenders(db: Connection, projects: Sequence[UUID], since: Any, limit: int) -> Rows:
    """The agents with the highest costs among each project's newest reports."""
    return db.execute(_SPENDERS, {"projects": list(projects), "since": since, "limit": limit}).all()


def story(db: Connection, agent_id: UUID, limit: int) -> Story:
    """What has happened to an agent, and what it has used."""
    mine = {"agent": agent_id}
    happened, used = together(db, (_EVENTS_OF, mine | {"limit": limit}), (_USAGE_OF, mine))
    return Story(happened.fetchall(), used.fetchall())


def _who(caller: Caller) -> dict[str, Any]:
    return {"superuser": caller.is_superuser, "user": caller.user_id}
