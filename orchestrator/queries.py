"""The rest of the read side, one statement each: commands, an agent's events, and how the queue stands."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from orchestrator import cursors
from orchestrator.claims import Marks
from orchestrator.fleet import ONE_AGENT
from orchestrator.keys import Caller
from orchestrator.pipeline import together
from orchestrator.rows import Rows
from orchestrator.states import State
from orchestrator.turns import BULK, URGENT
from orchestrator.upkeep import COMMANDS_KEPT

_OVERDUE = text(f"""
    SELECT bool_or(created_at < now() - interval '1 second') FROM (
        (SELECT created_at FROM commands
        WHERE state = 'queued' AND lane = {URGENT} AND turn = 0 AND seq >= :urgent
        ORDER BY lane, turn, seq LIMIT 1)
        UNION ALL
        (SELECT created_at FROM commands
        WHERE state = 'queued' AND lane = {BULK} AND turn >= :bulk
        ORDER BY lane, turn, seq LIMIT 1)
        UNION ALL
        (SELECT created_at FROM usage_entries WHERE NOT folded AND created_at >= to_timestamp(:usage)
        ORDER BY created_at LIMIT 1)
    ) first
""")
_QUEUE = text("""
    SELECT count(*) AS depth, coalesce(extract(epoch FROM now() - min(created_at)), 0)::float AS age
    FROM (SELECT created_at FROM commands WHERE state = 'queued' ORDER BY lane, turn, seq LIMIT 10000) waiting
""")
_COMMAND = text("SELECT * FROM commands WHERE id = :id")
# What was not applied is counted, and the rest taken for applied: so none is told of any more once its commands may
# have been deleted, though the newest is kept for its turn.
_BATCH = text(f"""
    SELECT b.id, b.total, b.verb, s.*
    FROM batches b CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE c.state = 'queued') AS queued,
            count(*) FILTER (WHERE c.state = 'rejected') AS rejected,
            count(*) FILTER (WHERE c.state = 'cancelled') AS cancelled, count(*) FILTER (WHERE c.state = 'dead') AS dead
        FROM commands c WHERE c.batch_id = b.id AND c.state <> 'applied'
    ) s
    WHERE b.id = :batch AND b.project_id = :project
        AND (b.created_at > now() - interval '{COMMANDS_KEPT}' OR s.queued > 0)
""")
_AGENT_EVENTS = text("""
    SELECT *, feed_position('0')::text AS era FROM events
    WHERE agent_id = :agent AND version > :version ORDER BY version LIMIT :limit
""")
# Else all that is newer would be looked through. A batch may have been deleted before its last commands.
_AMONG_ITS_BATCH = f"""
    seq BETWEEN coalesce((SELECT first_seq FROM batches WHERE id = :batch_id), 0)
    AND coalesce((SELECT last_seq FROM batches WHERE id = :batch_id), {2**63 - 1})"""
_LATENCY = text("""
    SELECT coalesce(percentile_cont(0.5) WITHIN GROUP (ORDER BY took), 'NaN')::float AS p50,
        coalesce(percentile_cont(0.95) WITHIN GROUP (ORDER BY took), 'NaN')::float AS p95,
        coalesce(percentile_cont(0.99) WITHIN GROUP (ORDER BY took), 'NaN')::float AS p99
    FROM (
        SELECT extract(epoch FROM closed_at - created_at) AS took FROM commands
        WHERE closed_at > now() - interval '1 minute'
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


def commands(
    db: Connection, project_id: UUID, wanted: dict[str, Any], cursor: str | None, limit: int
) -> tuple[Rows, str | None]:
    """The project's commands, newest first, and the cursor of the next page. `wanted`: any of state, verb, agent_id and
    batch_id."""
    more, values = narrowed(wanted, cursor)
    statement = text(f"SELECT * FROM commands WHERE project_id = :project{more} ORDER BY seq DESC LIMIT :limit")
    rows = db.execute(statement, values | {"project": project_id, "limit": limit + 1}).all()
    return rows[:limit], cursors.encode(rows[limit - 1].seq) if len(rows) > limit else None


def narrowed(wanted: dict[str, Any], cursor: str | None) -> tuple[str, dict[str, Any]]:
    """What narrows a search among commands to those wanted and older than the cursor: its SQL, each condition after an
    AND, and its values. `wanted` has values by the columns' names."""
    values = dict(wanted)
    conditions = [f"{name} = :{name}" for name in wanted if name != "state"]
    if "state" in wanted:  # in so many words: what failed has an index of its own
        conditions.append(f"state = '{State(wanted['state'])}'")
    if "batch_id" in wanted:
        conditions.append(_AMONG_ITS_BATCH)
    if cursor is not None:
        conditions.append("seq < :seq")
        values["seq"] = cursors.decode(cursor, cursors.natural)[0]
    return "".join(f" AND {condition}" for condition in conditions), values


def outcome(db: Connection, caller: Caller, command: Row[Any]) -> tuple[Any, Any | None]:
    """A command the caller has seen before, and its agent, as they stand now, in one round trip.

    The agent is None where it is not born, or the caller cannot see it any more.
    """
    who = {"superuser": caller.is_superuser, "user": caller.user_id}
    place = {"project": command.project_id, "agent": command.agent_id}
    commands, agents = together(db, (_COMMAND, {"id": command.id}), (ONE_AGENT, who | place))
    return commands.fetchone(), agents.fetchone()


def batch(db: Connection, project_id: UUID, batch_id: UUID) -> Row[Any] | None:
    """A batch of the project: its id, total, and how many of its commands are not applied, by state. None where it is
    over and as old as commands are kept."""
    return db.execute(_BATCH, {"batch": batch_id, "project": project_id}).one_or_none()


def agent_events(db: Connection, agent_id: UUID, after_version: int, limit: int) -> tuple[Rows, bool]:
    """The agent's history from the version after `after_version` on, oldest first; whether there is more."""
    rows = db.execute(_AGENT_EVENTS, {"agent": agent_id, "version": after_version, "limit": limit + 1}).all()
    return rows[:limit], len(rows) > limit


def overdue(db: Connection, start: Marks) -> bool:
    """Whether a command or a usage entry has waited for more than a second; what lies before `start` is not seen."""
    return bool(db.execute(_OVERDUE, start._asdict()).scalar_one())


def queue(db: Connection) -> Row[Any]:
    """How many commands wait (depth, counted up to 10,000) and how long the oldest of them has (age, seconds)."""
    return db.execute(_QUEUE).one()


def latency(db: Connection) -> Row[Any]:
    """Seconds from accepted to closed, of commands closed in the last minute: p50, p95, p99; NaN if there are none.
    A command is closed at the time its batch has read; the batch commits some milliseconds later."""
    return db.execute(_LATENCY).one()


def knows(db: Connection, project_id: UUID, agent_id: UUID) -> bool:
    """Whether the project has this agent, born or not."""
    return db.execute(_KNOWN, {"project": project_id, "agent": agent_id}).one_or_none() is not None


def not_queued(db: Connection, ids: Iterable[UUID]) -> list[UUID]:
    """Which of these ids, of commands and of anything else, are not those of queued commands."""
    return list(db.execute(_NOT_QUEUED, {"ids": list(ids)}).scalars())


def counted(db: Connection, reports: Sequence[tuple[UUID, str]]) -> bool:
    """Whether all of these usage entries, (agent id, report id) each, have been counted."""
    agents, ids = zip(*reports, strict=True)
    return not db.execute(_UNCOUNTED, {"agents": list(agents), "reports": list(ids)}).scalar_one()
