"""Eras: one begins with a database, and another where it goes on from an older state, or on another server.

The feed is read in the order of transaction ids, which each server counts for itself; and after the backup that was
restored, cursors and epochs of leases were given out that it does not know of. So both go on from far beyond. How far
is left to chance, too: the number names the era, and one backup may be restored twice.
"""

import secrets

from sqlalchemy import Column, Connection, Table, Text, text

from orchestrator.columns import metadata

whereabouts = Table("whereabouts", metadata, Column("place", Text, primary_key=True))
"""Where the database was at its last start: a row, which a backup takes along."""

JUMP = 2**32
"""More than any server can have counted between a backup and its loss."""

# Which server, which database of it, and which of the histories that it can have had: a standby that is promoted, or a
# recovery to some moment, begins a new one.
_HERE = """
    SELECT concat_ws('/', system_identifier, (SELECT oid FROM pg_database WHERE datname = current_database()),
        left(pg_walfile_name(pg_current_wal_lsn()), 8)) FROM pg_control_system()
"""
_HAS_MOVED = text(f"SELECT EXISTS (SELECT FROM whereabouts WHERE place <> ({_HERE}))")
_LEFT = text("DELETE FROM whereabouts")
_ARRIVED = text(f"INSERT INTO whereabouts (place) {_HERE}")

# Nobody may be about to write an event under the old positions.
_ALONE = text("LOCK TABLE events IN SHARE ROW EXCLUSIVE MODE")
_LAST = """
    SELECT max(newest.xid) FROM projects p CROSS JOIN LATERAL (
        SELECT xid FROM events WHERE project_id = p.id ORDER BY xid DESC, agent_id DESC, version DESC LIMIT 1
    ) newest
"""
_IS_BEHIND = text(f"SELECT coalesce(({_LAST}) >= feed_position(pg_snapshot_xmax(pg_current_snapshot())), false)")
_REACHED = text(f"SELECT greatest(feed_position(pg_current_xact_id()), ({_LAST}))::text")
_IS_NEW = text("SELECT feed_position('0') = '0' AND NOT EXISTS (SELECT FROM projects)")
# A row for whoever was never leased as well: its first lease may have been granted since.
_SEATS = text("""
    INSERT INTO leases (agent_id, project_id, ended_at, ended_by)
    SELECT id, project_id, now(), 'fence' FROM agents WHERE status IS DISTINCT FROM 'terminated'
    ON CONFLICT DO NOTHING
""")
_EPOCHS = text("UPDATE leases SET epoch = epoch + :jump")
_TOKENS = text("UPDATE lease_tokens SET epoch = epoch + :jump WHERE ended_at IS NULL")


def begin_where_needed(db: Connection) -> None:
    """Begin an era where the database has none yet; and a new one where it has come from elsewhere since its last
    start: it may have lost what was answered last."""
    if _is_new(db) or is_behind(db) or db.execute(_HAS_MOVED).scalar_one():
        begin(db)
    else:
        _note(db)


def is_behind(db: Connection) -> bool:
    """Whether there are events whose place in the feed this server has not reached yet: it would show neither them nor,
    to whoever has read them, any new ones."""
    return bool(db.execute(_IS_BEHIND).scalar_one())


def begin(db: Connection) -> None:
    """Begin a new era. New events come after all that anybody can have read, and whoever held a lease is fenced: it is
    lost in its time, for its beats count no more."""
    db.execute(_ALONE)
    beyond = int(db.execute(_REACHED).scalar_one()) + JUMP + secrets.randbelow(JUMP)
    db.execute(text(_position(beyond)))
    db.execute(_SEATS)
    for statement in (_EPOCHS, _TOKENS):
        db.execute(statement, {"jump": JUMP})
    _note(db)


def _is_new(db: Connection) -> bool:
    """Whether nothing has happened here yet. Its first era must be nobody else's, too: or a cursor of another new
    database might be taken for one of this."""
    return bool(db.execute(_IS_NEW).scalar_one())


def _note(db: Connection) -> None:
    db.execute(_LEFT)
    db.execute(_ARRIVED)


def _position(beyond: int) -> str:
    """A constant in a function, not a row: each new event asks for it, and so it costs nothing to look up."""
    return f"""
        CREATE OR REPLACE FUNCTION feed_position(xid8) RETURNS xid8 LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN CAST(CAST(CAST(CAST($1 AS text) AS numeric) + {beyond} AS text) AS xid8)
    """
