"""The fleet as it can be read: one agent, a page of them, their sums. What is not born yet is not shown."""

import re
from dataclasses import dataclass
from math import ceil
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from orchestrator import access, cursors
from orchestrator.errors import Invalid, Violation, no_agent
from orchestrator.keys import Caller
from orchestrator.lifecycle import Status
from orchestrator.rows import Rows

DEEPEST_ROW = 10_000
"""Pages by number end here; the cursor goes on at constant cost."""

TOTAL_AT_LEAST = 10_000

AGENT = """
    SELECT a.*, t.name AS agent_type_name, t.slug AS agent_type_slug, p.name AS project_name, p.slug AS project_slug,
        (SELECT count(*) FROM issues i WHERE i.assigned_agent_id = a.id) AS assigned_issues_count
    FROM agents a
    JOIN agent_types t ON t.id = a.agent_type_id
    JOIN projects p ON p.id = a.project_id
"""
ONE_AGENT = text(
    AGENT
    + "WHERE a.id = :agent AND a.project_id = :project AND (:superuser OR p.owner_id = :user) AND a.status IS NOT NULL"
)
_COUNTERS = ", ".join(f"coalesce(sum({status}), 0)::bigint AS {status}" for status in Status)
_METRICS = text(f"""
    SELECT {_COUNTERS}, coalesce(sum(tasks_completed), 0)::bigint AS tasks_completed,
        coalesce(sum(tokens_used), 0) AS tokens_used, coalesce(sum(cost_incurred), 0) AS cost_incurred
    FROM project_counters WHERE project_id = :project
""")

_NEWEST = "ORDER BY created_at DESC, id DESC"

# As the index of names has them. Agents are counted in an index's order, though it does not matter: where many match,
# the planner would rather read the table until it has enough. It does not know where in there a project's lie, and may
# read all other projects' before them.
_BY_NAME = "ORDER BY name USING ~<~"

# One value, so that an index can lead to it in the order of the page. A slug can look like another type's id.
_OF_TYPE = """agent_type_id = (
    SELECT id FROM agent_types WHERE slug = :type OR id::text = lower(:type)
    ORDER BY id::text <> lower(:type) LIMIT 1)"""

# Among the project's commands from the first to the last of the batch, next to all of which are of it: an index of what
# was applied of each batch would cost every command an entry.
_OF_BATCH = """id IN (
    SELECT c.agent_id FROM batches b JOIN commands c ON c.project_id = b.project_id AND c.batch_id = b.id
        AND c.seq BETWEEN b.first_seq AND b.last_seq AND c.state = 'applied'
    WHERE b.id = :of_batch AND b.project_id = :project)"""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which agents of a project; `type` is a slug or an id as text, `q` the beginning of a name, and of a `batch` they
    are those that a command of it was applied to."""

    status: Status | None = None
    type: str | None = None
    q: str | None = None
    batch: UUID | None = None

    @property
    def conditions(self) -> list[str]:
        """The SQL of what is set; the values are bound."""
        known = {
            "status": "status = :status",
            "type": _OF_TYPE,
            "q": "name LIKE :q",
            "batch": _OF_BATCH,
        }
        return [sql for name, sql in known.items() if getattr(self, name) is not None]

    @property
    def values(self) -> dict[str, Any]:
        """The bind parameters of `conditions`."""
        status, q = self.status and self.status.value, self.q and _prefix(self.q)
        given = {"status": status, "type": self.type, "q": q, "of_batch": self.batch}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def counted(self) -> bool:
        """Whether the project's counters know how many there are."""
        return self.type is None and self.q is None and self.batch is None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of agents, newest first, and where it stands in the whole."""

    rows: Rows
    page: int | None
    """None behind a cursor, where pages have no number."""
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
    row = db.execute(ONE_AGENT, who | {"project": project_id, "agent": agent_id}).one_or_none()
    if row is None:
        access.enter(db, caller, project_id)
        raise no_agent(agent_id)
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
    return _page(db, project_id, wanted, rows, None, limit)


def metrics(db: Connection, project_id: UUID) -> Row[Any]:
    """The project's counters, summed over their slots."""
    return db.execute(_METRICS, {"project": project_id}).one()


def _agents(
    db: Connection, project_id: UUID, wanted: Filter, limit: int, more: list[str], values: dict[str, Any]
) -> Rows:
    ids = f"SELECT id FROM ({_matching(wanted, more)}) found {_NEWEST} LIMIT :limit OFFSET :offset"
    values = wanted.values | values | {"project": project_id, "limit": limit + 1}
    these = f"WHERE a.id = ANY(ARRAY({ids})) ORDER BY a.created_at DESC, a.id DESC"
    return db.execute(text(AGENT + these), values).all()


def _matching(wanted: Filter, more: list[str]) -> str:
    """The ids to choose a page from, such that indexes alone give them in its order. In that by type, the status comes
    before the time: there is a search for each, as far as the page may need it."""
    conditions = " AND ".join(["project_id = :project", "status IS NOT NULL", *wanted.conditions, *more])
    search = f"SELECT id, created_at FROM agents WHERE {conditions}"
    if wanted.type is None or wanted.status is not None:
        return search
    return " UNION ALL ".join(
        f"({search} AND status = '{status}' {_NEWEST} LIMIT CAST(:limit AS bigint) + :offset)" for status in Status
    )


def _page(db: Connection, project_id: UUID, wanted: Filter, rows: Rows, number: int | None, limit: int) -> Page:
    total, at_least = _total(db, project_id, wanted)
    return Page(rows[:limit], number, limit, total, at_least, more=len(rows) > limit)


def _total(db: Connection, project_id: UUID, wanted: Filter) -> tuple[int, bool]:
    """How many agents match, and whether that is only a lower bound."""
    if wanted.counted:
        counters = metrics(db, project_id)
        return sum(getattr(counters, status) for status in ([wanted.status] if wanted.status else Status)), False
    conditions = " AND ".join(["project_id = :project", "status IS NOT NULL", *wanted.conditions])
    order = _NEWEST if wanted.status else _BY_NAME if wanted.q else ""
    counting = f"SELECT count(*) FROM (SELECT FROM agents WHERE {conditions} {order} LIMIT {TOTAL_AT_LEAST + 1}) found"
    found = db.execute(text(counting), wanted.values | {"project": project_id}).scalar_one()
    return min(found, TOTAL_AT_LEAST), found > TOTAL_AT_LEAST


def _prefix(q: str) -> str:
    """A LIKE pattern for names that begin with `q`."""
    return re.sub(r"([\\%_])", r"\\\1", q) + "%"
