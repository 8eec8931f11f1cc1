"""The read side: one statement each. What is not born yet is not shown."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from orchestrator import access, cursors
from orchestrator.errors import Invalid, NotFound, Violation
from orchestrator.keys import Caller
from orchestrator.lifecycle import Status
from orchestrator.pipeline import together

DEEPEST_ROW = 10_000
"""Pages by number end here; the cursor goes on at constant cost."""

TOTAL_AT_LEAST = 10_000

Rows = Sequence[Row[Any]]

_AGENT = """
    SELECT a.*, t.name AS agent_type_name, t.slug AS agent_type_slug, p.name AS project_name, p.slug AS project_slug,
        (SELECT count(*) FROM issues i WHERE i.assigned_agent_id = a.id) AS assigned_issues_count
    FROM {agents} a
    JOIN agent_types t ON t.id = a.agent_type_id
    JOIN projects p ON p.id = a.project_id
"""
_ONE_AGENT = text(
    _AGENT.format(agents="agents")
    + "WHERE a.id = :agent AND a.project_id = :project AND (:superuser OR p.owner_id = :user) AND a.status IS NOT NULL"
)
_COUNTERS = ", ".join(f"coalesce(sum({status}), 0)::bigint AS {status}" for status in Status)
_METRICS = text(f"""
    SELECT {_COUNTERS}, coalesce(sum(tasks_completed), 0)::bigint AS tasks_completed,
        coalesce(sum(tokens_used), 0) AS tokens_used, coalesce(sum(cost_incurred), 0) AS cost_incurred
    FROM project_counters WHERE project_id = :project
""")
_OVERDUE = text("""
    SELECT coalesce(
        (SELECT created_at FROM commands WHERE state = 'queued' ORDER BY lane, turn, seq LIMIT 1)
            < now() - interval '1 second', false)
        OR EXISTS (
            SELECT FROM usage_entries u JOIN agents a ON a.id = u.agent_id
            WHERE NOT u.folded AND a.status IS NOT NULL AND u.created_at < now() - interval '1 second')
""")
_QUEUE = text("""
    SELECT count(*) AS depth, coalesce(extract(epoch FROM now() - min(created_at)), 0)::float AS age
    FROM (SELECT created_at FROM commands WHERE state = 'queued' ORDER BY lane, turn, seq LIMIT 10000) waiting
""")
_COMMAND = text("SELECT * FROM commands WHERE id = :id")
_AGENT_EVENTS = text("""
    SELECT * FROM events WHERE agent_id = :agent AND version > :version ORDER BY version LIMIT :limit
""")
_FEED = text("""
    SELECT * FROM events
    WHERE project_id = :project AND xid < pg_snapshot_xmin(pg_current_snapshot())
        AND (xid, agent_id, version) > (CAST(:xid AS xid8), :agent, :version)
    ORDER BY xid, agent_id, version LIMIT :limit
""")

GROUPS = {
    "model": "u.model",
    "agent": "u.agent_id::text",
    "agent_type": "(SELECT t.slug FROM agents a JOIN agent_types t ON t.id = a.agent_type_id WHERE a.id = u.agent_id)",
    "hour": "to_char(date_trunc('hour', u.occurred_at), 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
    "day": "to_char(date_trunc('day', u.occurred_at), 'YYYY-MM-DD')",
}
"""What usage can be grouped by, and the SQL of each group's name."""

_USAGE = {
    name: text(f"""
        SELECT {group} AS "group", count(*) AS entries, sum(u.input_tokens) AS input_tokens,
            sum(u.output_tokens) AS output_tokens, sum(u.cache_read_tokens) AS cache_read_tokens,
            sum(u.cache_write_tokens) AS cache_write_tokens, sum(u.input_tokens + u.output_tokens) AS tokens_used,
            coalesce(sum(u.cost), 0) AS cost_incurred, sum(u.tasks_completed) AS tasks_completed
        FROM usage_entries u
        WHERE u.project_id = :project AND u.folded
            AND u.occurred_at >= coalesce(CAST(:since AS timestamptz), '-infinity')
            AND u.occurred_at < coalesce(CAST(:until AS timestamptz), 'infinity')
        GROUP BY 1 ORDER BY 1 NULLS FIRST
    """)
    for name, group in GROUPS.items()
}
_LATENCY = text("""
    SELECT coalesce(percentile_cont(0.5) WITHIN GROUP (ORDER BY took), 'NaN')::float AS p50,
        coalesce(percentile_cont(0.95) WITHIN GROUP (ORDER BY took), 'NaN')::float AS p95,
        coalesce(percentile_cont(0.99) WITHIN GROUP (ORDER BY took), 'NaN')::float AS p99
    FROM (
        SELECT extract(epoch FROM closed_at - created_at) AS took FROM commands
        WHERE created_at > now() - interval '1 minute' AND closed_at IS NOT NULL
    ) recent
""")
_KNOWN = text("SELECT 1 FROM agents WHERE id = :agent AND project_id = :project")
_NOT_QUEUED = text("""
    SELECT mine.id FROM unnest(CAST(:ids AS uuid[])) AS mine (id)
    WHERE NOT EXISTS (SELECT FROM commands c WHERE c.id = mine.id AND c.state = 'queued')
""")
_UNCOUNTED = text("""
    SELECT EXISTS (
        SELECT FROM unnest(CAST(:agents AS uuid[]), CAST(:reports AS text[])) AS mine (agent_id, report_id)
        JOIN usage_entries u USING (agent_id, report_id) WHERE NOT u.folded)
""")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which agents of a project; `type` is a slug or an id as text, `q` the beginning of a name."""

    status: Status | None = None
    type: str | None = None
    q: str | None = None

    @property
    def conditions(self) -> list[str]:
        """The SQL of what is set; the values are bound."""
        known = {
            "status": "status = :status",
            "type": "agent_type_id IN (SELECT id FROM agent_types WHERE slug = :type OR id::text = lower(:type))",
            "q": "name LIKE :q",
        }
        return [sql for name, sql in known.items() if getattr(self, name) is not None]

    @property
    def values(self) -> dict[str, Any]:
        """The bind parameters of `conditions`."""
        given = {"status": self.status and self.status.value, "type": self.type, "q": self.q and _prefix(self.q)}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def counted(self) -> bool:
        """Whether the project's counters know how many there are."""
        return self.type is None and self.q is None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of agents, newest first, and where it stands in the whole."""

    rows: Rows
    page: int
    limit: int
    total: int
    total_is_at_least: bool
    more: bool

    @property
    def total_pages(self) -> int:
        """0 when there is nothing."""
        return ceil(self.total / self.limit)

    @property
    def next_cursor(self) -> str | None:
        """Hand it back for the next page; None at the end."""
        last = self.rows[-1] if self.rows and self.more else None
        return last and cursors.encode(last.created_at.isoformat(), last.id)


def agent(db: Connection, caller: Caller, project_id: UUID, agent_id: UUID) -> Row[Any]:
    """One living or terminated agent; raises NotFound where the caller cannot see it, or it is not born yet."""
    who = {"superuser": caller.is_superuser, "user": caller.user_id}
    row = db.execute(_ONE_AGENT, who | {"project": project_id, "agent": agent_id}).one_or_none()
    if row is None:
        access.enter(db, caller, project_id)
        raise NotFound(f"there is no agent {agent_id} in this project")
    return row


def page(db: Connection, project_id: UUID, wanted: Filter, number: int, limit: int) -> Page:
    """Page `number` of the project's agents; raises Invalid where it lies deeper than DEEPEST_ROW."""
    if number * limit > DEEPEST_ROW:
        raise Invalid(Violation(f"pages end at row {DEEPEST_ROW}; go on with cursor, from next_cursor", "page"))
    rows = _agents(db, project_id, wanted, limit, [], {"offset": (number - 1) * limit})
    return _page(db, project_id, wanted, rows, number, limit)


def page_after(db: Connection, project_id: UUID, wanted: Filter, cursor: str, limit: int) -> Page:
    """The page that follows a cursor: no repeats and no gaps, whatever is spawned meanwhile."""
    at, id_ = cursors.decode(cursor, cursors.moment, cursors.uuid)
    beyond = ["(created_at, id) < (:after_at, :after_id)"]
    rows = _agents(db, project_id, wanted, limit, beyond, {"offset": 0, "after_at": at, "after_id": id_})
    return _page(db, project_id, wanted, rows, 1, limit)


def metrics(db: Connection, project_id: UUID) -> Row[Any]:
    """The project's counters, summed over their slots."""
    return db.execute(_METRICS, {"project": project_id}).one()


def commands(
    db: Connection, project_id: UUID, wanted: dict[str, Any], cursor: str | None, limit: int
) -> tuple[Rows, str | None]:
    """The project's commands, newest first, and the cursor of the next page. `wanted`: state, verb, agent_id."""
    conditions = ["project_id = :project", *(f"{name} = :{name}" for name in wanted)]
    values = wanted | {"project": project_id, "limit": limit + 1}
    if cursor is not None:
        conditions.append("seq < :seq")
        values["seq"] = cursors.decode(cursor, cursors.natural)[0]
    rows = db.execute(
        text(f"SELECT * FROM commands WHERE {' AND '.join(conditions)} ORDER BY seq DESC LIMIT :limit"), values
    ).all()
    return rows[:limit], cursors.encode(rows[limit - 1].seq) if len(rows) > limit else None


def outcome(db: Connection, caller: Caller, command: Row[Any]) -> tuple[Any, Any | None]:
    """A command the caller has seen before, and its agent, as they stand now, in one round trip.

    The agent is None where it is not born, or the caller cannot see it any more.
    """
    who = {"superuser": caller.is_superuser, "user": caller.user_id}
    place = {"project": command.project_id, "agent": command.agent_id}
    commands, agents = together(db, (_COMMAND, {"id": command.id}), (_ONE_AGENT, who | place))
    return commands.fetchone(), agents.fetchone()


def agent_events(db: Connection, agent_id: UUID, after_version: int, limit: int) -> tuple[Rows, bool]:
    """The agent's history from the version after `after_version` on, oldest first; whether there is more."""
    rows = db.execute(_AGENT_EVENTS, {"agent": agent_id, "version": after_version, "limit": limit + 1}).all()
    return rows[:limit], len(rows) > limit


def feed(db: Connection, project_id: UUID, after: str | None, limit: int) -> tuple[Rows, bool]:
    """The project's events after a cursor, oldest first, without gap or repeat; whether there is more.

    Only what no running transaction can precede is shown: identity order is not commit order.
    """
    xid, agent_id, version = (0, UUID(int=0), 0)
    if after is not None:
        xid, agent_id, version = cursors.decode(after, cursors.natural, cursors.uuid, cursors.natural, field="after")
    values = {"project": project_id, "xid": str(xid), "agent": agent_id, "version": version, "limit": limit + 1}
    rows = db.execute(_FEED, values).all()
    return rows[:limit], len(rows) > limit


def feed_cursor(event: Row[Any]) -> str:
    """The cursor that stands right after an event."""
    return cursors.encode(event.xid, event.agent_id, event.version)


def usage(db: Connection, project_id: UUID, group_by: str, since: Any, until: Any) -> Rows:
    """The project's counted usage per group, as sums; `group_by` is a key of GROUPS."""
    values = {"project": project_id, "since": since, "until": until}
    return db.execute(_USAGE[group_by], values).all()


def overdue(db: Connection) -> bool:
    """Whether a command or a usage entry has waited for more than a second."""
    return bool(db.execute(_OVERDUE).scalar_one())


def queue(db: Connection) -> Row[Any]:
    """How many commands wait (depth, counted up to 10,000) and how long the oldest of them has (age, seconds)."""
    return db.execute(_QUEUE).one()


def latency(db: Connection) -> Row[Any]:
    """Seconds from accepted to closed of the last minute's commands: p50, p95, p99; NaN where there were none."""
    return db.execute(_LATENCY).one()


def knows(db: Connection, project_id: UUID, agent_id: UUID) -> bool:
    """Whether the project has this agent, born or not."""
    return db.execute(_KNOWN, {"project": project_id, "agent": agent_id}).one_or_none() is not None


def not_queued(db: Connection, ids: Sequence[UUID]) -> list[UUID]:
    """Which of these ids, of commands and of anything else, are not those of queued commands."""
    return list(db.execute(_NOT_QUEUED, {"ids": list(ids)}).scalars())


def counted(db: Connection, reports: Sequence[tuple[UUID, str]]) -> bool:
    """Whether all of these usage entries, (agent id, report id) each, have been counted."""
    agents, ids = zip(*reports, strict=True)
    return not db.execute(_UNCOUNTED, {"agents": list(agents), "reports": list(ids)}).scalar_one()


def _agents(
    db: Connection, project_id: UUID, wanted: Filter, limit: int, more: list[str], values: dict[str, Any]
) -> Rows:
    conditions = " AND ".join(["project_id = :project", "status IS NOT NULL", *wanted.conditions, *more])
    newest = "ORDER BY created_at DESC, id DESC"
    inner = f"(SELECT * FROM agents WHERE {conditions} {newest} LIMIT :limit OFFSET :offset)"
    values = wanted.values | values | {"project": project_id, "limit": limit + 1}
    return db.execute(text(_AGENT.format(agents=inner) + "ORDER BY a.created_at DESC, a.id DESC"), values).all()


def _page(db: Connection, project_id: UUID, wanted: Filter, rows: Rows, number: int, limit: int) -> Page:
    total, at_least = _total(db, project_id, wanted)
    return Page(rows[:limit], number, limit, total, at_least, more=len(rows) > limit)


def _total(db: Connection, project_id: UUID, wanted: Filter) -> tuple[int, bool]:
    """How many agents match, and whether that is only a lower bound."""
    if wanted.counted:
        counters = metrics(db, project_id)
        return sum(getattr(counters, status) for status in ([wanted.status] if wanted.status else Status)), False
    conditions = " AND ".join(["project_id = :project", "status IS NOT NULL", *wanted.conditions])
    counting = f"SELECT count(*) FROM (SELECT FROM agents WHERE {conditions} LIMIT {TOTAL_AT_LEAST + 1}) found"
    found = db.execute(text(counting), wanted.values | {"project": project_id}).scalar_one()
    return min(found, TOTAL_AT_LEAST), found > TOTAL_AT_LEAST


def _prefix(q: str) -> str:
    """A LIKE pattern for names that begin with `q`."""
    return re.sub(r"([\\%_])", r"\\\1", q) + "%"
