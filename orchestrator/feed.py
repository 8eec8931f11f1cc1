"""The feed: every event of a project, or of all that somebody may see, in an order that skips and repeats nothing.

Identity order is not commit order. So events are read in the order of their transactions' ids, and only those that no
running transaction can precede: the feed lags behind the oldest one that writes.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Row, text

from orchestrator import cursors
from orchestrator.errors import Gone
from orchestrator.pipeline import Call, together

Events = Sequence[Row[Any]]

PIECE, SCAN = 1_000, 10_000
"""Events read at once where a filter leaves some out, and at most for one page."""

NOT_OURS = (
    "this cursor is not of this feed: the database was restored since it was given out, or is another one; read the"
    " agents anew and go on without it"
)

EACH = 100
"""Events of one project that are read at once where a look may go far back over many."""

_NEWEST = UUID(int=2**128 - 1), 2**63 - 1

HORIZON = "feed_position(pg_snapshot_xmin(pg_current_snapshot()))"
"""As SQL: before it, no event can come any more."""

_SPAN = f"""
    xid < {HORIZON} AND (xid, agent_id, version) > (CAST(:xid AS xid8), :agent, :version)
    AND (xid, agent_id, version) <= (CAST(:until_xid AS xid8), :until_agent, :until_version)
    ORDER BY xid, agent_id, version
"""

_NOW = text(f"""
    SELECT feed_position('0')::text AS era, {HORIZON}::text AS horizon,
        feed_position(pg_snapshot_xmax(pg_current_snapshot()))::text AS next
""")
_OF_ONE = text(f"""
    SELECT *, feed_position('0')::text AS era FROM events WHERE project_id = :project AND {_SPAN} LIMIT :limit
""")
# A look into each project's part of one index: it costs no other, which every event would have to be written to.
_OF_ALL = text(f"""
    SELECT e.*, feed_position('0')::text AS era, p.owner_id FROM projects p CROSS JOIN LATERAL (
        SELECT * FROM events WHERE project_id = p.id AND {_SPAN} LIMIT :each
    ) e
    WHERE (CAST(:owner AS uuid) IS NULL OR p.owner_id = :owner)
        AND (CAST(:projects AS uuid[]) IS NULL OR p.id = ANY(CAST(:projects AS uuid[])))
    ORDER BY e.xid, e.agent_id, e.version LIMIT :limit
""")
_OF_AGENT = text(f"""
    SELECT e.*, feed_position('0')::text AS era, p.owner_id FROM (
        SELECT * FROM events WHERE agent_id = :of_agent AND {_SPAN} LIMIT :limit
    ) e JOIN projects p ON p.id = e.project_id
    WHERE (CAST(:owner AS uuid) IS NULL OR p.owner_id = :owner)
        AND (CAST(:projects AS uuid[]) IS NULL OR p.id = ANY(CAST(:projects AS uuid[])))
    ORDER BY e.xid, e.version
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


FIRST, LAST = Position(0, 0, UUID(int=0), 0), Position(0, 2**64 - 1, *_NEWEST)
"""Before and after all that there can be, in any era."""


class Stand(NamedTuple):
    """How the feed stands: the position after all that can be read (`now`), and the first transaction that can have
    written nothing yet (`next`). An agent's own history may show events between the two."""

    now: Position
    next: int

    def knows(self, position: Position) -> bool:
        """Whether it can be this feed's: of this era, and not beyond all that has happened."""
        return position.era == self.now.era and position.xid < self.next


class Scope(NamedTuple):
    """Whose events: of these projects, of this owner's, and of this agent; None: of any."""

    project_ids: tuple[UUID, ...] | None = None
    owner_id: UUID | None = None
    agent_id: UUID | None = None

    def has(self, event: Any) -> bool:
        """Whether it is one of them. Where the owner counts, it must have been read for all projects: only then is it
        known."""
        return (
            (self.project_ids is None or event.project_id in self.project_ids)
            and (self.owner_id is None or event.owner_id == self.owner_id)
            and self.agent_id in (None, event.agent_id)
        )


class Piece(NamedTuple):
    """Some of the feed: its events, oldest first, and whether there are no more in the span that was asked for."""

    events: Events
    is_whole: bool


class Wanted(NamedTuple):
    """Which events: with a verb, that left the agent in a status; None: any."""

    verb: str | None = None
    status: str | None = None

    def has(self, event: Any) -> bool:
        """Whether it is one of them."""
        return self.verb in (None, event.verb) and self.status in (None, event.after)


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
    return stand(db).now


def stand(db: Connection) -> Stand:
    """How the feed stands now."""
    return _stand(db.execute(_NOW).one())


def read(
    db: Connection, scope: Scope, after: Position | None, limit: int, until: Position = LAST, each: int | None = None
) -> Piece:
    """At most so many events after a position, or from the first on, and none after `until`; `each`: at most so many of
    each project.

    Raises Gone where the position is of another era, or beyond what there is: what was read there may never have
    happened.
    """
    begin, each = after or FIRST, limit + 1 if each is None or _is_one(scope) else each
    span = {"xid": str(begin.xid), "agent": begin.agent_id, "version": begin.version, "limit": limit + 1, "each": each}
    span |= {"until_xid": str(until.xid), "until_agent": until.agent_id, "until_version": until.version}
    current, found = together(db, (_NOW, {}), _call(scope, span))
    if after is not None and not _stand(current.fetchone()).knows(after):
        raise Gone(NOT_OURS)
    return _cut(found.fetchall(), limit, each)


def _stand(row: Any) -> Stand:
    return Stand(Position(int(row.era), int(row.horizon) - 1, *_NEWEST), int(row.next))


def _cut(events: Events, limit: int, each: int) -> Piece:
    """Up to where nothing is missing: a project of which there are `each` may have more behind them."""
    counts = Counter(event.project_id for event in events)
    last = {event.project_id: number for number, event in enumerate(events, 1)}
    end = min([limit, len(events), *(last[project] for project, count in counts.items() if count == each)])
    return Piece(events[:end], end == len(events) and each not in counts.values())


def page(
    db: Connection, scope: Scope, after: Position | None, limit: int, wanted: Wanted
) -> tuple[list[Row[Any]], Position | None]:
    """So many events after a position, and where to go on: None at the end of the feed.

    Where a filter leaves out much, there may be fewer of them, or none, and more behind. Raises Gone as `read` does.
    """
    found: list[Row[Any]] = []
    for _ in range(SCAN // PIECE):
        events, is_whole = read(db, scope, after, limit + 1 if wanted == EVERYTHING else PIECE, each=EACH)
        for event in events:
            if len(found) == limit:
                return found, position(found[-1])
            found += [event] if wanted.has(event) else []
        if is_whole:
            return found, None
        after = position(events[-1])
    return found, after


def _call(scope: Scope, values: dict[str, Any]) -> Call:
    projects = scope.project_ids
    values |= {"owner": scope.owner_id, "projects": None if projects is None else list(projects)}
    if scope.agent_id is not None:
        return _OF_AGENT, values | {"of_agent": scope.agent_id}
    if projects is not None and _is_one(scope):
        return _OF_ONE, values | {"project": projects[0]}
    return _OF_ALL, values


def _is_one(scope: Scope) -> bool:  # that is, one project's
    is_named = scope.project_ids is not None and len(scope.project_ids) == 1 and scope.owner_id is None
    return is_named or scope.agent_id is not None
