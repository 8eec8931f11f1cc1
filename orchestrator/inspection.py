"""The inspection: the invariants on a sample of what has changed last, again and again, at little cost.

`verify` judges everything that there is; this looks at some project's newest commands, their agents, and its sums where
they are small. What it finds is added up, for a counter that must never rise.
"""

import time as clock
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, Connection, Row, Table, Text, func, text

from orchestrator.columns import metadata, time
from orchestrator.db import Guard, begin
from orchestrator.verify import OF_A_PROJECT, OF_ITS_AGENTS, Finding, check_some

COMMANDS = 1_000
"""The newest of a project, whose agents are looked at."""

LONGEST = 10_000
"""Events of an agent that is looked at: all of them are read."""

AGENTS_AT_MOST = 20_000
"""A project's sums are compared where it has no more."""

SECONDS = 2.0
"""For so long another project is begun with."""

inspections = Table(
    "inspections",
    metadata,
    Column("invariant", Text, primary_key=True),
    Column("violations", BigInteger, nullable=False, server_default="0"),
    time("at", nullable=False, server_default=func.now()),
)

_PROJECTS = text("SELECT id FROM projects ORDER BY random() LIMIT 1000")
_AGENTS = text("""
    SELECT id FROM agents
    WHERE version <= :longest AND id IN (
        SELECT agent_id FROM commands WHERE project_id = :project ORDER BY seq DESC LIMIT :most
    )
""")
_SIZE = text("""
    SELECT coalesce(sum(idle + working + waiting + paused + terminated), 0)::bigint FROM project_counters
    WHERE project_id = :project
""")
# In the order of names: two inspections at once would deadlock.
_ADD = text("""
    INSERT INTO inspections AS i (invariant, violations)
    SELECT * FROM unnest(CAST(:names AS text[]), CAST(:counts AS bigint[])) AS n (name, count) ORDER BY name
    ON CONFLICT (invariant) DO UPDATE SET violations = i.violations + excluded.violations, at = now()
""")
_TOTALS = text("SELECT invariant, violations, extract(epoch FROM at)::float AS at FROM inspections")


def inspect() -> dict[str, int]:
    """Look at one project after the other, in no order, for a while: what was found, by invariant that is looked at,
    and added to what had been found before. Raises Unavailable."""
    counts = dict.fromkeys(OF_ITS_AGENTS | OF_A_PROJECT, 0)
    ends = clock.monotonic() + SECONDS
    for project_id in _projects():
        for finding in _findings(project_id):
            counts[finding.name] += finding.violations
        if clock.monotonic() > ends:
            break
    with begin(Guard.TOOL) as db:
        db.execute(_ADD, {"names": list(counts), "counts": list(counts.values())})
    return counts


def totals(db: Connection) -> Sequence[Row[Any]]:
    """What all inspections have found: invariant, violations, and when the last one was (`at`, epoch seconds)."""
    return db.execute(_TOTALS).all()


def _projects() -> list[UUID]:
    with begin(Guard.TOOL) as db:
        return list(db.execute(_PROJECTS).scalars())


def _findings(project_id: UUID) -> list[Finding]:
    with begin(Guard.TOOL) as db:
        agents = list(db.execute(_AGENTS, {"project": project_id, "most": COMMANDS, "longest": LONGEST}).scalars())
        small = db.execute(_SIZE, {"project": project_id}).scalar_one() <= AGENTS_AT_MOST
    with begin(Guard.TOOL) as db:
        return check_some(db, project_id, agents, sums=small)
