"""The feed: every event of a project, or of all that somebody may see, in an order that skips and repeats nothing.

Identity order is not commit order. So events are read in the order of their transactions' ids, and only those that no
running transaction can precede: the feed lags behind the oldest one that writes.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Row, text

from orchestrator import cursors
from orchestrator.errors import Gone
from orchestrator.pipeline import Call, together

Events = Sequence[Row[Any]]

PIECE, SCAN = 1_000, 10_000
"""Events read at once where a filter leaves some out, and at most for one page."""

RESTORED = "the database was restored since this cursor was given out; read the agents anew and go on without it"

_NEWEST = UUID(int=2**128 - 1), 2**63 - 1
_HORIZON = "feed_position(pg_snapshot_xmin(pg_current_snapshot()))"
_AFTER = f"""
    xid < coalesce(CAST(:until AS xid8), {_HORIZON})
    AND (xid, agent_id, version) > (CAST(:xid AS xid8), :agent, :version)
    ORDER BY xid, agent_id, version LIMIT :limit
"""

_NOW = text(f"SELECT feed_position('0')::text AS era, {_HORIZON}::text AS horizon")
_OF_ONE = text(f"SELECT *, feed_position('0')::text AS era FROM events WHERE project_id = :project AND {_AFTER}")
# A look into each project's part of one index: it costs no other, which every event would have to be written to.
_OF_ALL = text(f"""
    SELECT e.*, feed_position('0')::text AS era, p.owner_id FROM projects p CROSS JOIN LATERAL (
        SELECT * FROM events WHERE project_id = p.id AND {_AFTER}
    ) e
    WHERE (CAST(:owner AS uuid) IS NULL OR p.owner_id = :owner)
        AND (CAST(:projects AS uuid[]) IS NULL OR p.id = ANY(CAST(:projects AS uuid[])))
    ORDER BY e.xid, e.agent_id, e.version LIMIT :limit
""")


class Position(NamedTuple):
    """A place in the feed, right after some event; cursors are made of it."""

    era: int
    xid: int
    agent_id: UUID
    version: int

    def cursor(self) -> str:
        """As clients see it."""
        return cursors.encode(*self)


class Scope(NamedTuple):
    """Whose events: of these projects, and of this owner's; None: of any."""

    project_ids: tuple[UUID, ...] | None = None
    owner_id: UUID | None = None

    def has(self, event: Any) -> bool:
        """Whether it is one of them; where the owner counts, it must have been read for more than one project."""
        if self.project_ids is not None and event.project_id not in self.project_ids:
            return False
        return self.owner_id is None or self.owner_id == event.owner_id


class Wanted(NamedTuple):
    """Which events: an agent's, with a verb, that left the agent in a status; None: any."""

    agent_id: UUID | None = None
    verb: str | None = None
    status: str | None = None

    def has(self, event: Any) -> bool:
        """Whether it is one of them."""
        return (
            self.agent_id in (None, event.agent_id)
            and self.verb in (None, event.verb)
            and self.status in (None, event.after)
        )


EVERYTHING = Wanted()


def place(cursor: str, field: str) -> Position:
    """The position that a cursor stands for; raises Invalid, naming `field`, where it is none."""
    kinds = (cursors.natural, cursors.natural, cursors.uuid, cursors.natural)
    return Position(*cursors.decode(cursor, *kinds, field=field))


def position(event: Any) -> Position:
    """The position right after an event, which must have been read with its era."""
    return Position(int(event.era), int(event.xid), event.agent_id, event.version)


def now(db: Connection) -> Position:
    """The position after all that can be read now."""
    return _end(db.execute(_NOW).one())


def read(db: Connection, scope: Scope, after: Position | None, limit: int, until: Position | None = None) -> Events:
    """The events after a position, or from the first on, oldest first; where `until` is given, none after that.

    Raises Gone where the position is of another era: what was read there may never have happened.
    """
    at = after or Position(0, 0, UUID(int=0), 0)
    span = {"xid": str(at.xid), "agent": at.agent_id, "version": at.version, "until": until and str(until.xid + 1)}
    current, found = together(db, (_NOW, {}), _call(scope, span | {"limit": limit}))
    era = int(current.fetchone().era)  # type: ignore[union-attr]
    if after is not None and after.era != era:
        raise Gone(RESTORED)
    return found.fetchall()


def page(
    db: Connection, scope: Scope, after: Position | None, limit: int, wanted: Wanted
) -> tuple[list[Row[Any]], Position | None]:
    """So many events after a position, and where to go on: None at the end of the feed.

    Where a filter leaves out much, there may be fewer of them, or none, and more behind. Raises Gone as `read` does.
    """
    if wanted == EVERYTHING:
        rows = list(read(db, scope, after, limit + 1))
        return rows[:limit], position(rows[limit - 1]) if len(rows) > limit else None
    found: list[Row[Any]] = []
    for event in _scan(db, scope, after):
        if len(found) == limit:
            return found, position(found[-1])
        after = position(event)
        if wanted.has(event):
            found.append(event)
    return found, None if after is None else _rest(db, scope, after)


def _scan(db: Connection, scope: Scope, after: Position | None) -> Iterator[Row[Any]]:
    for _ in range(SCAN // PIECE):
        rows = read(db, scope, after, PIECE)
        yield from rows
        if len(rows) < PIECE:
            return
        after = position(rows[-1])


def _rest(db: Connection, scope: Scope, after: Position) -> Position | None:
    return after if read(db, scope, after, 1) else None


def _end(row: Any) -> Position:
    return Position(int(row.era), int(row.horizon) - 1, *_NEWEST)


def _call(scope: Scope, values: dict[str, Any]) -> Call:
    projects = scope.project_ids
    if projects is not None and len(projects) == 1 and scope.owner_id is None:
        return _OF_ONE, values | {"project": projects[0]}
    return _OF_ALL, values | {"owner": scope.owner_id, "projects": None if projects is None else list(projects)}
