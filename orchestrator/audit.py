"""The audit: who did what to which agent, newest first."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection, TextClause, text

from orchestrator import cursors
from orchestrator.feed import EVERYTHING, HORIZON, Wanted
from orchestrator.rows import Rows

SCAN, LEAST = 10_000, 500
"""Events that are looked through for one page where a filter leaves some out: of all projects together, and of each at
least."""

_LAST = (2**64 - 1, UUID(int=2**128 - 1), 2**63 - 1)

_KEY = "xid, agent_id, version"
_BACK = "ORDER BY xid DESC, agent_id DESC, version DESC"
_BEFORE = f"xid < {HORIZON} AND ({_KEY}) < (CAST(:xid AS xid8), :agent, :version)"
_MINE = "unnest(CAST(:projects AS uuid[])) AS mine (id) CROSS JOIN LATERAL"

_PLACES = f"{_MINE} (SELECT {_KEY} FROM events WHERE project_id = mine.id AND {_BEFORE}{{more}} {_BACK} LIMIT :limit) k"
# Fenced: else all that the project's other agents have done might be looked through for it.
_PLACES_OF_AGENT = f"""
    (SELECT * FROM events WHERE agent_id = :of_agent AND project_id = ANY(CAST(:projects AS uuid[])) OFFSET 0) one
    WHERE {_BEFORE}{{more}}
"""
# The places first, which one index alone has: else a page would read so many events of each project.
_EVENTS = f"""
    SELECT e.*, a.name AS agent_name, u.email AS actor_email, p.slug AS project_slug,
        extract(epoch FROM e.recorded_at - c.created_at)::float AS took
    FROM (SELECT {_KEY} FROM {{places}} {_BACK} LIMIT :limit) place
    JOIN events e USING (agent_id, version) JOIN agents a ON a.id = e.agent_id JOIN projects p ON p.id = e.project_id
    LEFT JOIN users u ON u.id = e.actor_id LEFT JOIN commands c ON c.id = e.command_id
    ORDER BY e.xid DESC, e.agent_id DESC, e.version DESC
"""
# How far a page looks back: to where one of the projects has so many events.
_FLOOR = text(f"""
    SELECT {_KEY} FROM {_MINE} (
        SELECT {_KEY} FROM events WHERE project_id = mine.id AND {_BEFORE} {_BACK} OFFSET :scan LIMIT 1
    ) k {_BACK} LIMIT 1
""")


def events(
    db: Connection,
    projects: Sequence[UUID],
    cursor: str | None,
    limit: int,
    wanted: Wanted = EVERYTHING,
    agent_id: UUID | None = None,
) -> tuple[Rows, str | None]:
    """The newest events of these projects, or those before a cursor, that are wanted; and the next page's cursor.

    Where a filter leaves out much, there may be fewer of them, or none, and a cursor all the same.
    """
    place = _LAST if cursor is None else cursors.decode(cursor, cursors.natural, cursors.uuid, cursors.natural)
    values = dict(zip(("xid", "agent", "version"), (str(place[0]), *place[1:]), strict=True))
    values |= {"projects": list(projects), "limit": limit + 1, "of_agent": agent_id, **wanted._asdict()}
    floor = None
    if wanted != EVERYTHING and agent_id is None:
        floor = db.execute(_FLOOR, values | {"scan": max(SCAN // (len(projects) or 1), LEAST) - 1}).one_or_none()
    if floor is not None:
        values |= {"floor_xid": str(floor.xid), "floor_agent": floor.agent_id, "floor_version": floor.version}
    rows = db.execute(_statement(wanted, agent_id, floor is not None), values).all()
    end = rows[limit - 1] if len(rows) > limit else floor
    return rows[:limit], None if end is None else cursors.encode(end.xid, end.agent_id, end.version)


def _statement(wanted: Wanted, agent_id: UUID | None, has_floor: bool) -> TextClause:
    more = [] if wanted.verb is None else ["verb = :verb"]
    more += [] if wanted.status is None else ["after = :status"]
    more += [f"({_KEY}) >= (CAST(:floor_xid AS xid8), :floor_agent, :floor_version)"] if has_floor else []
    places = _PLACES if agent_id is None else _PLACES_OF_AGENT
    return text(_EVENTS.format(places=places.format(more="".join(f" AND {each}" for each in more))))
