"""A backlog of a million: does the last tenth go as fast as the first, and does a worker's memory stay what it was."""

from collections.abc import Iterator
from contextlib import contextmanager

from bench import bulk, singles
from bench.stack import Stack, memory
from bench.world import Fleet, sql
from orchestrator.db import Guard, begin

PATIENCE_SECONDS = 900

_TENTHS = """
    SELECT extract(epoch FROM percentile_disc(0.1) WITHIN GROUP (ORDER BY closed_at) - min(closed_at))::float AS first,
        extract(epoch FROM max(closed_at) - percentile_disc(0.9) WITHIN GROUP (ORDER BY closed_at))::float AS last,
        extract(epoch FROM max(closed_at) - min(closed_at))::float AS whole
    FROM commands WHERE project_id = :project AND seq > :mark
"""


def drained(stack: Stack, url: str, agents: Fleet, verb: str) -> dict[str, float]:
    """Commands per second, the last tenth's share of the first tenth's rate, and the MiB by which a worker grew."""
    mark, before = singles.now(agents), memory()
    bulk.send(stack, url, agents, verb)
    singles.until_applied(agents, PATIENCE_SECONDS)
    (row,) = sql(_TENTHS, project=agents.project_id, mark=mark)
    grown = max(after - before[name] for name, after in memory().items() if name.startswith("worker"))
    return {"rate": agents.size / row.whole, "last tenth / first": row.first / row.last, "grown, MiB": grown}


@contextmanager
def old_snapshot() -> Iterator[None]:
    """What a backup does: nothing that is deleted meanwhile can be cleared away."""
    with begin(Guard.TOOL) as db:
        db.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        db.exec_driver_sql("SELECT 1 FROM commands LIMIT 1")
        yield
