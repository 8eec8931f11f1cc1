"""The roll-ups of the feed: how many agents were in each status, and how long commands took, minute by minute.

Each project's feed is read on from where it was left, and the place is written down in the same statement as what was
made of it. So an event counts once, whatever crashes, and what a crash left out is there as soon as a worker is.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, TextClause, text

from orchestrator.feed import HORIZON
from orchestrator.lifecycle import Status
from orchestrator.rollup_tables import TOGETHER, USED

EACH, MOST = 2_000, 10_000
"""Events of one project, and of all, that one statement reads."""

KEPT = "8 days"
"""How long the rows of events are kept: for as long as the pictures go back. Those of usage stay: they are what is
asked for of the ledger, which stays as well."""

FINE = "25 hours"
"""How long minutes are kept apart, longer than any picture goes back that has bins of less than an hour, and what each
process counted of usage. After that they are summed up, and few enough to be read for one picture or sum."""

SLICE = 5_000
"""Rows of each kind that are deleted or summed up at a time."""

BOUNDS = (
    1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1_000, 1_500, 2_000, 3_000, 5_000, 10_000,
    30_000, 60_000, 300_000,
)  # fmt: skip
"""Where the buckets of the latencies begin and end, in ms: bucket n ends with the nth of them."""

PARTS = ("waiting", "applying", "whole")
"""Of a latency: from accepted to taken by a worker, from there to written down, and both."""


def _adding(names: Iterable[str]) -> str:
    return ", ".join(f"{name} = k.{name} + excluded.{name}" for name in names)


_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtext('orchestrator.rollups'))")

_NAMES = ", ".join(Status)
_MOVED = ", ".join(
    f"(coalesce(sum(n) FILTER (WHERE after = '{status}'), 0) - coalesce(sum(n) FILTER (WHERE before = '{status}'), 0))"
    f"::bigint AS {status}"
    for status in Status
)
_SUMS = ", ".join(f"sum({status})::bigint AS {status}" for status in Status)
_ANY = " OR ".join(f"{status} <> 0" for status in Status)
_RECENT = f"minute > now() - interval '{KEPT}'"
_ADDED = _adding(Status)
_BUCKET = f"width_bucket(1000 * date_part('epoch', {{}}), CAST(ARRAY{list(BOUNDS)} AS float[]))"

# A statement of few rows from the first grouping on: thousands of events have few changes and few latencies.
_ROLL = text(f"""
    WITH piece AS MATERIALIZED (
        SELECT e.* FROM (SELECT id FROM projects ORDER BY random()) p
        LEFT JOIN rollups r ON r.project_id = p.id CROSS JOIN LATERAL (
            SELECT project_id, xid, agent_id, version, command_id, before, after, at, recorded_at,
                date_trunc('minute', at, 'UTC') AS minute
            FROM events
            WHERE project_id = p.id AND xid < {HORIZON} AND (xid, agent_id, version)
                > (coalesce(r.xid, '0'), coalesce(r.agent_id, '{"0" * 32}'), coalesce(r.version, 0))
            ORDER BY xid, agent_id, version LIMIT :each
        ) e LIMIT :most
    ), moved AS (
        SELECT project_id, minute, before, after, count(*) AS n FROM piece GROUP BY project_id, minute, before, after
    ), changed AS MATERIALIZED (
        SELECT project_id, minute, sum(n)::bigint AS n, {_MOVED} FROM moved GROUP BY project_id, minute
    ), fleet AS (
        INSERT INTO fleet_minutes AS k (project_id, minute, {_NAMES})
        SELECT project_id, minute, {_NAMES} FROM changed WHERE {_RECENT} AND ({_ANY})
        ON CONFLICT (project_id, minute) DO UPDATE SET {_ADDED}
    ), took AS (
        SELECT piece.project_id, minute, count(*) AS n,
            {_BUCKET.format("piece.at - c.created_at")} AS waiting,
            {_BUCKET.format("piece.recorded_at - piece.at")} AS applying,
            {_BUCKET.format("piece.recorded_at - c.created_at")} AS whole
        FROM piece JOIN commands c ON c.id = piece.command_id
        WHERE piece.recorded_at IS NOT NULL AND {_RECENT}
        GROUP BY piece.project_id, minute, waiting, applying, whole
    ), latency AS (
        INSERT INTO latency_minutes AS k (project_id, minute, bucket, waiting, applying, whole)
        SELECT project_id, minute, bucket, coalesce(sum(n) FILTER (WHERE part = 'waiting'), 0),
            coalesce(sum(n) FILTER (WHERE part = 'applying'), 0), coalesce(sum(n) FILTER (WHERE part = 'whole'), 0)
        FROM took CROSS JOIN LATERAL (VALUES
            ('waiting', took.waiting), ('applying', took.applying), ('whole', took.whole)
        ) t (part, bucket)
        GROUP BY project_id, minute, bucket
        ON CONFLICT (project_id, minute, bucket) DO UPDATE SET {_adding(PARTS)}
    ), place AS (
        INSERT INTO rollups AS k (project_id, xid, agent_id, version, {_NAMES})
        SELECT DISTINCT ON (project_id) project_id, xid, agent_id, version, {_NAMES}
        FROM piece JOIN (SELECT project_id, {_SUMS} FROM changed GROUP BY project_id) changes USING (project_id)
        ORDER BY project_id, xid DESC, agent_id DESC, version DESC
        ON CONFLICT (project_id) DO UPDATE SET
            xid = excluded.xid, agent_id = excluded.agent_id, version = excluded.version, {_ADDED}
    )
    SELECT coalesce(sum(n), 0)::bigint AS events, coalesce(max(n) = :each OR sum(n) >= :most, false) AS more
    FROM (SELECT sum(n) AS n FROM changed GROUP BY project_id) counted
""")

_PRUNE = {
    table: text(f"""
        DELETE FROM {table} WHERE ctid = ANY(ARRAY(
            SELECT ctid FROM {table} WHERE minute < now() - interval '{KEPT}' LIMIT :slice))
    """)
    for table in ("fleet_minutes", "latency_minutes")
}


def _summing_up(table: str, time: str, keys: Sequence[str], into: tuple[str, str], sums: Sequence[str]) -> TextClause:
    """Old rows of `table` whose column is not yet what it is to be (`into`), summed up to one that is."""
    column, value = into
    key, amounts = ", ".join((*keys, column)), ", ".join(sums)
    return text(f"""
        WITH old AS (
            DELETE FROM {table} WHERE ctid = ANY(ARRAY(
                SELECT ctid FROM {table}
                WHERE {time} < date_trunc('hour', now() - interval '{FINE}', 'UTC') AND {column} <> {value}
                LIMIT :slice FOR UPDATE SKIP LOCKED)) -- late usage is counted hour by hour: neither waits for the other
            RETURNING {", ".join(keys)}, {value} AS {column}, {amounts}
        ), summed AS (
            INSERT INTO {table} AS k ({key}, {amounts})
            SELECT {key}, {", ".join(f"sum({name})" for name in sums)} FROM old GROUP BY {key}
            ON CONFLICT ({key}) DO UPDATE SET {_adding(sums)}
        )
        SELECT count(*) FROM old
    """)


_HOUR = ("minute", "date_trunc('hour', minute, 'UTC')")
_SUM_UP = {
    "fleet_minutes": _summing_up("fleet_minutes", "minute", ["project_id"], _HOUR, tuple(Status)),
    "latency_minutes": _summing_up("latency_minutes", "minute", ["project_id", "bucket"], _HOUR, PARTS),
    "usage_hours": _summing_up(
        "usage_hours", "hour", ["project_id", "hour", "model", "agent_type_id"], ("slot", str(TOGETHER)), USED
    ),
}


class Rolled(NamedTuple):
    """How many events were rolled up, and whether there may be more."""

    events: int
    more: bool


def roll(db: Connection) -> Rolled:
    """Roll up what has happened since, some of each project; nothing where another process is at it. The caller
    commits."""
    if not db.execute(_LOCK).scalar_one():
        return Rolled(0, more=False)
    row = db.execute(_ROLL, {"each": EACH, "most": MOST}).one()
    return Rolled(row.events, row.more)


def prune(db: Connection) -> dict[str, int]:
    """Delete a slice of what is older than it need be; how many rows of each table."""
    return {table: db.execute(statement, {"slice": SLICE}).rowcount for table, statement in _PRUNE.items()}


def sum_up(db: Connection) -> dict[str, int]:
    """Sum up a slice of what is old and still apart, in rows of the same tables: minutes to hours, and what several
    processes counted; how many rows of each. Nothing where a roll-up is under way, which may be about to add to one."""
    free = db.execute(_LOCK).scalar_one()
    return {
        f"{table}_summed_up": db.execute(statement, {"slice": SLICE}).scalar_one() if free else 0
        for table, statement in _SUM_UP.items()
    }
