"""The invariants, as SQL that finds what violates them. Nothing found is what every test, demo and fault must leave."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from orchestrator.lease_tables import LOST_AT
from orchestrator.lifecycle import Status, edges
from orchestrator.rollup_tables import TOKENS, USED
from orchestrator.rows import ids

NOW = "coalesce(CAST(:at AS timestamptz), now())"

GRACE = "60 seconds"
"""How long a command may be queued before it counts as lost."""

_EDGES = ", ".join(f"('{before}', '{after}')" for _, before, after in edges() if before is not None)

_COUNTERS_DIFFER = " OR ".join(
    f"coalesce(k.{c}, 0) <> coalesce(a.{c}, 0)" for c in (*Status, "tasks", "tokens", "cost")
)

_LIFECYCLE_FIELDS = ("name", "current_task", "long_term_memory_ref", "session_id")
"""What `changes` of the events fold into, as text; memory and holds are compared as JSON beside them."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One invariant, in a sentence, and how many rows violate it."""

    name: str
    sentence: str
    violations: int


INVARIANTS: dict[str, tuple[str, str]] = {
    "I1": (
        f"every command older than {GRACE} is closed",
        f"SELECT id FROM commands WHERE state = 'queued' AND created_at < {NOW} - interval '{GRACE}'",
    ),
    "I2": (
        "an applied command has at most one event, any other none",
        """SELECT e.command_id FROM events e JOIN commands c ON c.id = e.command_id
           WHERE c.state <> 'applied' OR c.version <> e.version
           UNION ALL SELECT command_id FROM events GROUP BY command_id HAVING count(*) > 1
           UNION ALL
           SELECT c.id FROM commands c LEFT JOIN events e ON e.command_id = c.id
           WHERE c.state = 'applied' AND c.verb NOT IN ('update', 'settle') AND e.command_id IS NULL""",
    ),
    "I3": (
        "an agent's versions are 1 to n, and n is its version",
        """SELECT a.id FROM agents a LEFT JOIN events e ON e.agent_id = a.id GROUP BY a.id, a.version
           HAVING count(e.version) <> a.version OR coalesce(min(e.version), 1) <> 1
               OR coalesce(max(e.version), 0) <> a.version""",
    ),
    "I4": (
        "each event begins where the one before it ended",
        """SELECT agent_id FROM (
               SELECT agent_id, before, lag(after) OVER (PARTITION BY agent_id ORDER BY version) AS previous FROM events
           ) chained WHERE before IS DISTINCT FROM previous""",
    ),
    "I5": (
        "every change of status is an edge of the table",
        f"""SELECT agent_id FROM events
           WHERE CASE WHEN before IS NULL THEN after <> 'idle'
                ELSE before <> after AND (before, after) NOT IN ({_EDGES}) END""",
    ),
    "I6": (
        "an agent is what its events make of it",
        f"""SELECT a.id FROM agents a CROSS JOIN LATERAL (
               SELECT (array_agg(e.after ORDER BY e.version DESC))[1] AS status,
                   jsonb_object_agg(f.key, f.value ORDER BY e.version) FILTER (WHERE f.key IS NOT NULL) AS fields
               FROM events e LEFT JOIN LATERAL jsonb_each(e.changes) f ON true WHERE e.agent_id = a.id
           ) h
           WHERE a.version > 0 AND (a.status IS DISTINCT FROM h.status
               OR a.holds IS DISTINCT FROM coalesce(h.fields -> 'holds', '[]')
               OR a.short_term_memory IS DISTINCT FROM coalesce(h.fields -> 'short_term_memory', '{{}}')
               OR {" OR ".join(f"a.{f} IS DISTINCT FROM h.fields ->> '{f}'" for f in _LIFECYCLE_FIELDS)})""",
    ),
    "I7": (
        "nothing follows a terminate but usage",
        "SELECT agent_id FROM events WHERE before = 'terminated'",
    ),
    "I8a": (
        "an agent's counters equal its counted ledger",
        """SELECT a.id FROM agents a LEFT JOIN (
               SELECT agent_id, sum(tasks_completed) AS tasks, sum(input_tokens + output_tokens) AS tokens,
                   coalesce(sum(cost), 0) AS cost
               FROM usage_entries WHERE folded GROUP BY agent_id
           ) u ON u.agent_id = a.id
           WHERE (a.tasks_completed, a.tokens_used, a.cost_incurred)
               IS DISTINCT FROM (coalesce(u.tasks, 0), coalesce(u.tokens, 0), coalesce(u.cost, 0))""",
    ),
    "I8b": (
        "a project's counters equal the sums over its agents",
        f"""SELECT p.id FROM projects p
           LEFT JOIN (
               SELECT project_id, {", ".join(f"sum({s}) AS {s}" for s in Status)},
                   sum(tasks_completed) AS tasks, sum(tokens_used) AS tokens, sum(cost_incurred) AS cost
               FROM project_counters GROUP BY project_id
           ) k ON k.project_id = p.id
           LEFT JOIN (
               SELECT project_id, {", ".join(f"count(*) FILTER (WHERE status = '{s}') AS {s}" for s in Status)},
                   sum(tasks_completed) AS tasks, sum(tokens_used) AS tokens, sum(cost_incurred) AS cost
               FROM agents GROUP BY project_id
           ) a ON a.project_id = p.id
           WHERE {_COUNTERS_DIFFER}""",
    ),
    "I9": (
        "every command, event and entry names an agent of its project",
        """SELECT c.id FROM commands c LEFT JOIN agents a ON a.id = c.agent_id AND a.project_id = c.project_id
           WHERE a.id IS NULL
           UNION ALL
           SELECT e.agent_id FROM events e LEFT JOIN agents a ON a.id = e.agent_id AND a.project_id = e.project_id
           WHERE a.id IS NULL
           UNION ALL
           SELECT u.agent_id FROM usage_entries u
           LEFT JOIN agents a ON a.id = u.agent_id AND a.project_id = u.project_id WHERE a.id IS NULL""",
    ),
    "I10": (
        "a request belongs to one user and key, and what it made exists",
        """SELECT r.user_id FROM requests r LEFT JOIN commands c ON c.id = r.command_id
           WHERE r.command_id IS NOT NULL AND c.id IS NULL
           UNION ALL SELECT user_id FROM requests GROUP BY user_id, key HAVING count(*) > 1""",
    ),
    "I11": (
        "an agent is paused exactly as long as it has a hold, one of each owner at most",
        """SELECT a.id FROM agents a CROSS JOIN LATERAL (
               SELECT min(CAST(h ->> 'until' AS timestamptz)) AS until, count(DISTINCT h ->> 'owner') AS owners
               FROM jsonb_array_elements(a.holds) h
           ) held
           WHERE (a.status IS NOT DISTINCT FROM 'paused') <> (a.holds <> '[]')
               OR a.hold_until IS DISTINCT FROM held.until OR held.owners <> jsonb_array_length(a.holds)""",
    ),
    "I12": (
        "at most one process holds an agent's lease, in the epoch that was granted last",
        """SELECT l.agent_id FROM leases l LEFT JOIN agents a ON a.id = l.agent_id AND a.project_id = l.project_id
           WHERE a.id IS NULL OR (l.ended_at IS NULL AND l.epoch IS DISTINCT FROM
               (SELECT max(t.epoch) FROM lease_tokens t WHERE t.agent_id = l.agent_id AND t.ended_at IS NULL))""",
    ),
    "I13": (
        "whoever is stopped stands still for a known cause, or is still being waited for",
        f"""SELECT a.id FROM agents a LEFT JOIN leases l ON l.agent_id = a.id
           WHERE (coalesce(a.status, '') IN ('paused', 'terminated')) <> (num_nonnulls(a.stop, a.quiesced_by) = 1)
               OR (a.stop IS NOT NULL AND coalesce(l.ended_at, {LOST_AT}, '-infinity') < {NOW} - interval '{GRACE}')
           UNION ALL
           SELECT c.id FROM commands c JOIN agents a ON a.id = c.agent_id
           WHERE c.quiesced_at < c.closed_at OR (c.quiesced_at IS NOT NULL AND c.state <> 'applied')
               OR (c.state = 'applied' AND c.verb = 'terminate' AND c.quiesced_at IS NULL AND a.stop IS NULL)""",
    ),
    "I14": (
        "the feed brings an agent's events in the order of their versions",
        """SELECT agent_id FROM (
               SELECT agent_id, xid, lag(xid) OVER (PARTITION BY agent_id ORDER BY version) AS previous FROM events
           ) told WHERE xid < previous""",
    ),
    "I15": (
        "what was used within an hour equals the counted entries of that hour",
        f"""SELECT project_id FROM (
               SELECT project_id, hour, model, agent_type_id, {", ".join(f"sum({name}) AS {name}" for name in USED)}
               FROM usage_hours GROUP BY project_id, hour, model, agent_type_id
           ) k FULL JOIN (
               SELECT u.project_id, date_trunc('hour', u.occurred_at, 'UTC') AS hour, coalesce(u.model, '') AS model,
                   a.agent_type_id, count(*) AS entries,
                   count(*) FILTER (WHERE u.cost IS NULL AND u.input_tokens + u.output_tokens > 0) AS unpriced,
                   {", ".join(f"sum(u.{name}) AS {name}" for name in (*TOKENS, "tasks_completed"))},
                   coalesce(sum(u.cost), 0) AS cost
               FROM usage_entries u JOIN agents a ON a.id = u.agent_id WHERE u.folded GROUP BY 1, 2, 3, 4
           ) u USING (project_id, hour, model, agent_type_id)
           WHERE {" OR ".join(f"k.{name} IS DISTINCT FROM u.{name}" for name in USED)}""",
    ),
}

OF_A_PROJECT = {"I8b"}
"""What is said of a project as a whole."""

OF_ITS_AGENTS = INVARIANTS.keys() - OF_A_PROJECT - {"I1", "I10", "I13", "I15"}
"""What can be said of some agents at any time: I1 and I13 say that workers are not behind, I10 is about keys, and I15
about all of a project's agents."""

_ONE_SNAPSHOT = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")

# What follows sees only these rows of the tables, under the tables' names.
_BY_AGENT = ("commands", "events", "usage_entries", "leases", "lease_tokens")
_THESE_AGENTS = "WITH agents AS (SELECT * FROM agents WHERE id = ANY(CAST(:agents AS uuid[])))" + "".join(
    f", {table} AS (SELECT * FROM {table} WHERE agent_id = ANY(CAST(:agents AS uuid[])))" for table in _BY_AGENT
)
_THIS_PROJECT = """
    WITH projects AS (SELECT * FROM projects WHERE id = :project),
        agents AS (SELECT * FROM agents WHERE project_id = :project),
        project_counters AS (SELECT * FROM project_counters WHERE project_id = :project)
"""


def check(db: Connection, at: datetime | None = None) -> list[Finding]:
    """Every invariant with its count, all judged on one snapshot; the transaction must have just begun.

    As of now, or of the moment `at` which the whole database has stood still since.
    """
    db.execute(_ONE_SNAPSHOT)
    return [_count(db, name, at=at) for name in INVARIANTS]


def check_some(db: Connection, project_id: UUID, agent_ids: Iterable[UUID], *, sums: bool) -> list[Finding]:
    """The same for these agents of a project alone, and for its sums if wanted: what takes as long as it has agents."""
    db.execute(_ONE_SNAPSHOT)
    found = [_count(db, name, _THESE_AGENTS, agents=ids(agent_ids)) for name in sorted(OF_ITS_AGENTS)]
    return found + [_count(db, name, _THIS_PROJECT, project=project_id) for name in sorted(OF_A_PROJECT) if sums]


def _count(db: Connection, name: str, among: str = "", at: datetime | None = None, **values: Any) -> Finding:
    sentence, offending = INVARIANTS[name]
    counting = text(f"{among} SELECT count(*) FROM ({offending}) offenders")
    return Finding(name, sentence, db.execute(counting, values | {"at": at}).scalar_one())
