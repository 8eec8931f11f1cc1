"""What was used, as sums: of whole hours from the roll-up, of the rest from the ledger.

Both are written by one statement, so that they agree to the last digit. A project's ledger may have many millions of
entries; its roll-up has one row an hour for each model and type.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, TextClause, text

from orchestrator.rollup_tables import USED
from orchestrator.rows import Rows

_SINCE = "coalesce(CAST(:since AS timestamptz), '-infinity')"
_UNTIL = "coalesce(CAST(:until AS timestamptz), 'infinity')"
_FIRST = f"date_trunc('hour', {_SINCE} + interval '59 minutes 59.999999 seconds', 'UTC')"
_LAST = f"date_trunc('hour', {_UNTIL}, 'UTC')"
_BEFORE = (_SINCE, f"least({_FIRST}, {_UNTIL})")
_AFTER = (f"greatest({_LAST}, least({_FIRST}, {_UNTIL}))", _UNTIL)
"""What lies before the first whole hour, and after the last; where there is none, all of it lies before."""

_AMOUNTS = [name for name in USED if name not in {"entries", "unpriced"}]

_HOURS = f"""
    SELECT hour AS at, nullif(model, '') AS model, agent_type_id, entries, {", ".join(_AMOUNTS)} FROM usage_hours
    WHERE project_id = :project AND hour >= {_FIRST} AND hour < {_LAST}
"""
_ENTRIES = f"""
    SELECT u.occurred_at, u.model, a.agent_type_id, 1, {", ".join(f"u.{name}" for name in _AMOUNTS)}
    FROM usage_entries u JOIN agents a ON a.id = u.agent_id
    WHERE u.project_id = :project AND u.folded AND u.occurred_at >= {{}} AND u.occurred_at < {{}}
"""
_PIECES = " UNION ALL ".join((_HOURS, _ENTRIES.format(*_BEFORE), _ENTRIES.format(*_AFTER)))
_ONE_BY_ONE = f"""
    SELECT agent_id, 1 AS entries, {", ".join(_AMOUNTS)} FROM usage_entries
    WHERE project_id = :project AND folded AND occurred_at >= {_SINCE} AND occurred_at < {_UNTIL}
"""


def _summed(group: str, pieces: str, join: str = "") -> TextClause:
    return text(f"""
        SELECT {group} AS "group", sum(entries)::bigint AS entries, sum(input_tokens) AS input_tokens,
            sum(output_tokens) AS output_tokens, sum(cache_read_tokens) AS cache_read_tokens,
            sum(cache_write_tokens) AS cache_write_tokens, sum(input_tokens + output_tokens) AS tokens_used,
            coalesce(sum(cost), 0) AS cost_incurred, sum(tasks_completed) AS tasks_completed
        FROM ({pieces}) u {join} GROUP BY 1 ORDER BY 1 NULLS FIRST
    """)


_BY = {
    "model": _summed("model", _PIECES),
    "agent": _summed("agent_id::text", _ONE_BY_ONE),
    "agent_type": _summed("t.slug", _PIECES, "JOIN agent_types t ON t.id = u.agent_type_id"),
    "hour": _summed("to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:00:00\"Z\"')", _PIECES),
    "day": _summed("to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD')", _PIECES),
}


def by(db: Connection, project_id: UUID, group: str, since: datetime | None, until: datetime | None) -> Rows:
    """The project's counted usage per model, agent, agent_type, hour or day, as sums, in the order of `group`; from
    `since` on, and before `until`. By agent it takes as long as the project has entries then."""
    return db.execute(_BY[group], {"project": project_id, "since": since, "until": until}).all()
