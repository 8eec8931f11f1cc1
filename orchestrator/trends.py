"""What the pictures show: the fleet by status, commands' latencies and costs over time, from the roll-ups."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from orchestrator.lifecycle import Status
from orchestrator.rollups import BOUNDS, PARTS
from orchestrator.rows import Rows

QUANTILES = (0.5, 0.95, 0.99)

LEAST = BOUNDS[0] / 2
"""What the first bucket's commands are said to have taken at least, in ms."""

_LATER = ", ".join(
    f"coalesce(sum({status}) OVER (ORDER BY start DESC ROWS UNBOUNDED PRECEDING EXCLUDE CURRENT ROW), 0)::bigint"
    f" AS {status}"
    for status in Status
)
_SUMS = ", ".join(f"sum(coalesce(m.{status}, 0)) AS {status}" for status in Status)
_NOW_LESS = ", ".join(f"(n.{status} - later.{status})::bigint AS {status}" for status in Status)
_TOTALS = ", ".join(f"coalesce(sum({status}), 0) AS {status}" for status in Status)

_BINS = """
    generate_series(date_bin(make_interval(secs => :step), CAST(:since AS timestamptz), 'epoch'),
        CAST(:until AS timestamptz), make_interval(secs => :step)) AS start
"""
_MINE = "project_id = ANY(CAST(:projects AS uuid[]))"

# What was at the end of a bin is what is now, less what has changed after it.
_FLEET = text(f"""
    WITH n AS (SELECT {_TOTALS} FROM rollups WHERE {_MINE}), changes AS (
        SELECT b.start, {_SUMS} FROM {_BINS.replace(" AS start", " AS b (start)")} LEFT JOIN fleet_minutes m
            ON m.minute >= b.start AND m.minute < b.start + make_interval(secs => :step) AND m.{_MINE}
        GROUP BY b.start
    ), later AS (SELECT start, {_LATER} FROM changes)
    SELECT later.start, {_NOW_LESS} FROM later CROSS JOIN n ORDER BY later.start
""")
_LATENCY = text(f"""
    SELECT date_bin(make_interval(secs => :step), minute, 'epoch') AS start, bucket, sum(waiting)::bigint AS waiting,
        sum(applying)::bigint AS applying, sum(whole)::bigint AS whole
    FROM latency_minutes WHERE minute >= :since AND minute <= :until AND {_MINE}
    GROUP BY 1, 2 ORDER BY 1, 2
""")
_COST = text(f"""
    SELECT date_bin(make_interval(secs => :step), hour, 'epoch') AS start, sum(cost) AS cost,
        sum(input_tokens + output_tokens) AS tokens, sum(unpriced)::bigint AS unpriced
    FROM usage_hours WHERE hour >= :since AND hour <= :until AND {_MINE} GROUP BY 1 ORDER BY 1
""")
_GROUPS = {
    "model": ("model", "nullif(u.model, '')"),
    "type": ("agent_type_id", "(SELECT name FROM agent_types t WHERE t.id = u.agent_type_id)"),
    "project": ("project_id", "(SELECT name FROM projects p WHERE p.id = u.project_id)"),
}
"""What costs can be grouped by: the column, and the SQL of its name."""

# No cost is known where none was named: it is not nothing.
_KNOWN = "CASE WHEN sum(unpriced) = 0 OR sum(cost) > 0 THEN sum(cost) END"

_COST_BY = {
    group: text(f"""
        SELECT {name} AS name, {_KNOWN} AS cost, sum(input_tokens + output_tokens) AS tokens,
            sum(entries)::bigint AS entries
        FROM usage_hours u WHERE hour >= :since AND hour <= :until AND {_MINE}
        GROUP BY u.{column} ORDER BY sum(cost) DESC, tokens DESC, u.{column} LIMIT :limit
    """)
    for group, (column, name) in _GROUPS.items()
}
_UNPRICED = text(f"""
    SELECT nullif(model, '') AS name, sum(entries)::bigint AS entries, sum(unpriced)::bigint AS unpriced
    FROM usage_hours WHERE hour >= :since AND hour <= :until AND {_MINE}
    GROUP BY model HAVING sum(unpriced) > 0 ORDER BY unpriced DESC, model LIMIT :limit
""")
_HAS_UNPRICED = text(f"SELECT EXISTS (SELECT FROM usage_hours WHERE {_MINE} AND unpriced > 0)")

ONE_BIN = 1e10
"""Seconds of a step that is longer than any window: bins begin in 1970."""


class Window(NamedTuple):
    """From when until when, in bins of so many seconds (`step`)."""

    since: datetime
    until: datetime
    step: float


class Latency(NamedTuple):
    """Milliseconds of the commands of one bin: the quantiles of each part, and how many they were."""

    start: datetime
    number: int
    quantiles: dict[str, tuple[float, ...]]


def fleet(db: Connection, projects: Sequence[UUID], window: Window) -> Rows:
    """How many agents were in each status at the end of each bin: `start`, and a number by status. Behind the present
    by the time since the last roll-up."""
    return db.execute(_FLEET, _values(projects, window)).all()


def latency(db: Connection, projects: Sequence[UUID], window: Window) -> list[Latency]:
    """How long commands took, for the bins in which some were applied."""
    rows = db.execute(_LATENCY, _values(projects, window)).all()
    return [_latency(start, list(bin_)) for start, bin_ in groupby(rows, lambda row: row.start)]


def cost(db: Connection, projects: Sequence[UUID], window: Window) -> Rows:
    """What was spent in each bin in which something was used: `start`, `cost` in USD, `tokens`, and how many of the
    reports named no cost (`unpriced`)."""
    return db.execute(_COST, _values(projects, window)).all()


def spent(bins: Rows) -> Decimal | None:
    """What was spent in all of them; None where nothing but reports without a cost is known."""
    known = sum((row.cost for row in bins), Decimal())
    return known if known or not any(row.unpriced for row in bins) else None


def has_unpriced(db: Connection, projects: Sequence[UUID]) -> bool:
    """Whether any report, of whatever time, named no cost."""
    return bool(db.execute(_HAS_UNPRICED, {"projects": list(projects)}).scalar_one())


def cost_by(db: Connection, projects: Sequence[UUID], window: Window, group: str, limit: int) -> Rows:
    """The same summed up by model, type or project, the most expensive first; `cost` is None where nothing but reports
    without one is known."""
    return db.execute(_COST_BY[group], _values(projects, window) | {"limit": limit}).all()


def unpriced(db: Connection, projects: Sequence[UUID], window: Window, limit: int) -> Rows:
    """The models whose entries named no cost, and how many of them did not."""
    return db.execute(_UNPRICED, _values(projects, window) | {"limit": limit}).all()


def quantile(counts: Sequence[int], q: float) -> float:
    """The value below which the share `q` of a histogram's entries lies, in ms, as if each bucket's were spread evenly;
    `counts`: one for each bucket. NaN where there are none."""
    left = q * sum(counts)
    if not left:
        return float("nan")
    bounds = (LEAST, *BOUNDS, BOUNDS[-1])
    for bucket, count in enumerate(counts):
        if count and left <= count:
            low, high = bounds[bucket], bounds[bucket + 1]
            return low + (high - low) * left / count
        left -= count
    return bounds[-1]


def _values(projects: Sequence[UUID], window: Window) -> dict[str, Any]:
    return window._asdict() | {"projects": list(projects)}


def _latency(start: datetime, rows: Rows) -> Latency:
    histograms: dict[str, list[int]] = {part: [0] * (len(BOUNDS) + 1) for part in PARTS}
    for row in rows:
        for part in PARTS:
            histograms[part][row.bucket] = getattr(row, part)
    return Latency(
        start,
        sum(histograms["whole"]),
        {part: tuple(quantile(counts, q) for q in QUANTILES) for part, counts in histograms.items()},
    )
