"""Reads at a million agents: what a page, a filter and the sums cost in the database, without the time to render."""

import time
from collections.abc import Callable
from statistics import median, quantiles
from typing import Any

from sqlalchemy import Connection

from bench.world import Fleet, sql
from orchestrator import access, cursors, fleet
from orchestrator.db import autocommit
from orchestrator.fleet import Filter
from orchestrator.keys import Caller
from orchestrator.lifecycle import Status

TIMES = 200
PAGE = 100
EVERYBODY = Filter()

Read = Callable[[Connection], Any]


def reads(agents: Fleet) -> dict[str, float]:
    """Milliseconds of each read, p50 and p99; each with the check that the caller may."""
    caller, status = _caller(), _commonest(agents)

    def page(wanted: Filter) -> Read:
        return lambda db: fleet.page(db, agents.project_id, wanted, 1, PAGE)

    kinds: dict[str, Read] = {
        "first page": page(EVERYBODY),
        "deep cursor": _deep(agents),
        "metrics": lambda db: fleet.metrics(db, agents.project_id),
        "page by status": page(Filter(status=status)),
        "page by a status of nobody": page(Filter(status=Status.WAITING)),
        "page by type": page(Filter(type=agents.type_slug)),
        "page by type and status": page(Filter(status=status, type=agents.type_slug)),
        "page by name": page(Filter(q="a-77")),
        "page by a name of all": page(Filter(q="a-")),
    }
    found: dict[str, float] = {}
    for name, read in kinds.items():
        took = sorted(_milliseconds(agents, caller, read) for _ in range(TIMES))
        found |= {f"{name}, p50 ms": median(took), f"{name}, p99 ms": quantiles(took, n=100)[-1]}
    return found


def totals(agents: Fleet) -> dict[str, float]:
    """How far each total is from the truth; where it is said to be a lower bound, it is none."""
    status = _commonest(agents)
    kinds = {
        "total": EVERYBODY,
        "total by status": Filter(status=status),
        "total by type and status": Filter(status=status, type=agents.type_slug),
    }
    return {f"{name}, off by": _off(agents, wanted) for name, wanted in kinds.items()}


def _commonest(agents: Fleet) -> Status:
    """A status that next to all have: a page of none, and a total of 0, would be no measure."""
    (row,) = sql(
        "SELECT mode() WITHIN GROUP (ORDER BY status) AS status FROM agents WHERE project_id = :p", p=agents.project_id
    )
    return Status(row.status)


def _off(agents: Fleet, wanted: Filter) -> float:
    with autocommit() as db:
        page = fleet.page(db, agents.project_id, wanted, 1, 1)
    condition = "" if wanted.status is None else f"AND status = '{wanted.status}'"
    (row,) = sql(f"SELECT count(*) AS n FROM agents WHERE project_id = :p {condition}", p=agents.project_id)
    good = page.total == row.n if not page.total_is_at_least else fleet.TOTAL_AT_LEAST <= page.total <= row.n
    return 0.0 if good else float(abs(row.n - page.total))


def _deep(agents: Fleet) -> Read:
    (row,) = sql(
        "SELECT created_at, id FROM agents WHERE project_id = :p ORDER BY created_at, id OFFSET :deep LIMIT 1",
        p=agents.project_id, deep=agents.size // 10,
    )  # fmt: skip
    cursor = cursors.encode(row.created_at.isoformat(), row.id)
    return lambda db: fleet.page_after(db, agents.project_id, EVERYBODY, cursor, PAGE)


def _milliseconds(agents: Fleet, caller: Caller, read: Read) -> float:
    with autocommit() as db:
        began = time.perf_counter()
        access.enter(db, caller, agents.project_id)
        read(db)
        return 1000 * (time.perf_counter() - began)


def _caller() -> Caller:
    (row,) = sql("SELECT * FROM users LIMIT 1")
    return Caller(row.id, row.email, True, True, None, "bench", "")
