"""The usage ledger: entries in, once each; unfolded sums out, as deltas for the counters."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field
from sqlalchemy import Connection, text

from orchestrator.errors import Invalid, Violation, no_agent
from orchestrator.fields import Body, Id, Money, Prose, Tasks, Time, Tokens
from orchestrator.rows import columns

ReportId = Annotated[str, Field(min_length=1, max_length=128)]
Label = Annotated[str, Field(max_length=200)]

ENTRIES = 1_000
"""At most in one report."""

FOLD_PER_AGENT, FOLD_AT_MOST = 2_000, 20_000
"""Entries folded per batch: a million unfolded ones must not outlast the transaction's time-out."""


class Entry(Body):
    """What one model call used."""

    report_id: ReportId
    occurred_at: Time | None = None
    provider: Label | None = None
    model: Label | None = None
    input_tokens: Tokens = 0
    output_tokens: Tokens = 0
    cache_read_tokens: Tokens = 0
    cache_write_tokens: Tokens = 0
    cost: Money | None = None
    tasks_completed: Tasks = 0
    note: Prose | None = None


class AgentEntry(Entry):
    """The same, naming its agent."""

    agent_id: Id


class AgentReport(Body):
    """Up to 1,000 entries of one agent."""

    entries: Annotated[list[Entry], Field(min_length=1, max_length=ENTRIES)]


class ProjectReport(Body):
    """Up to 1,000 entries of any agents of a project."""

    entries: Annotated[list[AgentEntry], Field(min_length=1, max_length=ENTRIES)]


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a report: entries new to the ledger, repeats, and indexes whose content contradicts the first."""

    accepted: int
    duplicates: int
    conflicts: list[int]


@dataclass(frozen=True, slots=True)
class Sums:
    """What a fold adds to one agent's counters."""

    tasks_completed: int = 0
    tokens_used: int = 0
    cost_incurred: Decimal = Decimal(0)


NO_SUMS = Sums()

_STRANGERS = text("""
    SELECT mine.id FROM unnest(CAST(:ids AS uuid[])) AS mine (id)
    WHERE NOT EXISTS (
        SELECT FROM agents a WHERE a.id = mine.id AND a.project_id = :project
            AND (a.status IS NOT NULL
                OR EXISTS (SELECT FROM commands c WHERE c.agent_id = a.id AND c.state = 'queued' AND c.verb = 'spawn')))
""")

_TOO_OLD_OR_NEW = text("""
    SELECT i - 1 FROM unnest(CAST(:occurred_at AS timestamptz[])) WITH ORDINALITY AS given (at, i)
    WHERE at < now() - interval '35 days' OR at > now() + interval '5 minutes'
""")

# Inserted in key order: concurrent duplicates in any order deadlock each other.
_INSERT = text("""
    INSERT INTO usage_entries (agent_id, report_id, project_id, fingerprint, occurred_at, provider, model,
        input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost, cost_source, tasks_completed, note)
    SELECT e.agent_id, e.report_id, :project, e.fingerprint, coalesce(e.occurred_at, now()), e.provider, e.model,
        e.input_tokens, e.output_tokens, e.cache_read_tokens, e.cache_write_tokens,
        e.cost, CASE WHEN e.cost IS NOT NULL THEN 'reported' END, e.tasks_completed, e.note
    FROM unnest(CAST(:agent_id AS uuid[]), CAST(:report_id AS text[]), CAST(:fingerprint AS bytea[]),
        CAST(:occurred_at AS timestamptz[]), CAST(:provider AS text[]), CAST(:model AS text[]),
        CAST(:input_tokens AS bigint[]), CAST(:output_tokens AS bigint[]), CAST(:cache_read_tokens AS bigint[]),
        CAST(:cache_write_tokens AS bigint[]), CAST(:cost AS numeric[]), CAST(:tasks_completed AS bigint[]),
        CAST(:note AS text[]))
        WITH ORDINALITY AS e (agent_id, report_id, fingerprint, occurred_at, provider, model, input_tokens,
        output_tokens, cache_read_tokens, cache_write_tokens, cost, tasks_completed, note, place)
    ORDER BY e.agent_id, e.report_id, e.place
    ON CONFLICT DO NOTHING
""")

_CONFLICTS = text("""
    SELECT e.place - 1
    FROM unnest(CAST(:agent_id AS uuid[]), CAST(:report_id AS text[]), CAST(:fingerprint AS bytea[]))
        WITH ORDINALITY AS e (agent_id, report_id, fingerprint, place)
    JOIN usage_entries u USING (agent_id, report_id)
    WHERE u.fingerprint <> e.fingerprint
    ORDER BY e.place
""")

# Updated by their place, from a list that is made once: whoever has the agent's lock is the only one to move them. The
# planner, if it knows of none that waits, would look for each by anything else among all that wait of its agent (hence
# IS NOT TRUE as well, which no partial index knows), and would make a mere subquery's list anew for each row of the
# ledger. The order is what one index alone gives, and the drain may not sort: else an agent's would be looked for among
# all that wait. (Were the ledger partitioned, a place would need its partition's name.)
_FOLD = text("""
    WITH folded AS (
        UPDATE usage_entries e SET folded = true
        WHERE e.folded IS NOT TRUE AND e.ctid = ANY(ARRAY(
            SELECT u.place
            FROM unnest(CAST(:ids AS uuid[])) AS mine (id)
            CROSS JOIN LATERAL (
                SELECT ctid AS place FROM usage_entries WHERE agent_id = mine.id AND NOT folded
                ORDER BY occurred_at LIMIT :each
            ) u
            LIMIT :most
        ))
        RETURNING e.*
    ), hours AS (
        INSERT INTO usage_hours AS k (project_id, hour, model, agent_type_id, slot, entries, unpriced, input_tokens,
            output_tokens, cache_read_tokens, cache_write_tokens, tasks_completed, cost)
        SELECT f.project_id, date_trunc('hour', f.occurred_at, 'UTC'), coalesce(f.model, ''), a.agent_type_id, :slot,
            count(*), count(*) FILTER (WHERE f.cost IS NULL AND f.input_tokens + f.output_tokens > 0),
            sum(f.input_tokens), sum(f.output_tokens), sum(f.cache_read_tokens), sum(f.cache_write_tokens),
            sum(f.tasks_completed), coalesce(sum(f.cost), 0)
        FROM folded f JOIN agents a ON a.id = f.agent_id GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
        ON CONFLICT (project_id, hour, model, agent_type_id, slot) DO UPDATE SET
            entries = k.entries + excluded.entries, unpriced = k.unpriced + excluded.unpriced,
            input_tokens = k.input_tokens + excluded.input_tokens,
            output_tokens = k.output_tokens + excluded.output_tokens,
            cache_read_tokens = k.cache_read_tokens + excluded.cache_read_tokens,
            cache_write_tokens = k.cache_write_tokens + excluded.cache_write_tokens,
            tasks_completed = k.tasks_completed + excluded.tasks_completed, cost = k.cost + excluded.cost
    )
    SELECT agent_id, sum(tasks_completed)::bigint AS tasks_completed,
        sum(input_tokens + output_tokens) AS tokens_used, coalesce(sum(cost), 0) AS cost_incurred
    FROM folded GROUP BY agent_id
""")


def take(db: Connection, project_id: UUID, entries: Sequence[AgentEntry]) -> Taken:
    """Write a report into the ledger, each (agent, report id) once; the workers count it.

    The caller has been let into the project. Raises Invalid, naming the entry, when an agent is not of this
    project or a time lies outside the window; nothing of the report is taken then.
    """
    rows = [_row(entry) for entry in entries]
    _check(db, project_id, rows)
    accepted = db.execute(_INSERT, columns(rows) | {"project": project_id}).rowcount
    if accepted == len(rows):
        return Taken(accepted, 0, [])
    keys = {name: [row[name] for row in rows] for name in ("agent_id", "report_id", "fingerprint")}
    return Taken(accepted, len(rows) - accepted, list(db.execute(_CONFLICTS, keys).scalars()))


def strangers(db: Connection, project_id: UUID, agent_ids: Iterable[UUID]) -> set[UUID]:
    """Which of these are no agents of the project: unknown, another project's, or never to be born."""
    return set(db.execute(_STRANGERS, {"ids": list(agent_ids), "project": project_id}).scalars())


def fold(db: Connection, agent_ids: Sequence[UUID], slot: int) -> dict[UUID, Sums]:
    """Mark the unfolded entries of these agents (locked by the caller) as counted, and add them to their hours, in this
    process's slot; what each adds to its agent."""
    if not agent_ids:
        return {}
    rows = db.execute(_FOLD, {"ids": list(agent_ids), "each": FOLD_PER_AGENT, "most": FOLD_AT_MOST, "slot": slot})
    return {row.agent_id: Sums(row.tasks_completed, int(row.tokens_used), row.cost_incurred) for row in rows}


def _row(entry: AgentEntry) -> dict[str, Any]:
    given = entry.model_dump_json(exclude={"agent_id"}, exclude_none=True)
    return entry.model_dump() | {"fingerprint": sha256(given.encode()).digest()}


def _check(db: Connection, project_id: UUID, rows: Sequence[dict[str, Any]]) -> None:
    unknown_ids = strangers(db, project_id, {row["agent_id"] for row in rows})
    unknown = [
        Violation(no_agent(row["agent_id"]).detail, f"entries.{i}.agent_id")
        for i, row in enumerate(rows)
        if row["agent_id"] in unknown_ids
    ]
    if unknown:
        raise Invalid(*unknown)
    _check_times(db, [row["occurred_at"] for row in rows])


def _check_times(db: Connection, times: Sequence[datetime | None]) -> None:
    if not any(times):
        return
    outside: Iterable[int] = db.execute(_TOO_OLD_OR_NEW, {"occurred_at": list(times)}).scalars()
    late = [
        Violation("must be from 35 days ago to 5 minutes ahead", f"entries.{i}.occurred_at") for i in sorted(outside)
    ]
    if late:
        raise Invalid(*late)
