"""Suspects: agents in whose mailboxes something may lie that fails whoever applies it, or kills its process.

They are those of batches that failed or died. No batch claims them; they are drained one command at a time, beside all
others, until what was in their mailboxes then is done.
"""

from collections.abc import Iterable
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, Column, Connection, Table, Uuid, func, text

from orchestrator.columns import metadata, time
from orchestrator.rows import ids

suspects = Table(
    "suspects",
    metadata,
    Column("agent_id", Uuid, primary_key=True),
    Column("last_seq", BigInteger, nullable=False),
    time("due_at", nullable=False, server_default=func.now()),
    prefixes=["UNLOGGED"],  # a crash of the database is the end of every batch; what is bad would be found again
)


class Suspect(NamedTuple):
    """An agent, and the number of the last command that may be the bad one."""

    agent_id: UUID
    last_seq: int


TRUSTED = "NOT EXISTS (SELECT FROM suspects s WHERE s.agent_id = a.id)"
"""SQL for a claim: that nothing speaks against the agent `a`."""

REST_SECONDS = 1.0
"""For so long a suspect is left alone that was taken, and could not be drained to its end: somebody else has it, the
database is busy, or whoever had taken it died."""

# In the order of ids: two who name the same agents in different orders would deadlock.
_NAME = text("""
    INSERT INTO suspects (agent_id, last_seq)
    SELECT mine.id, coalesce(mail.last_seq, 0)
    FROM unnest(CAST(:ids AS uuid[])) AS mine (id)
    CROSS JOIN LATERAL (
        SELECT max(seq) AS last_seq FROM (
            SELECT seq FROM commands WHERE agent_id = mine.id AND state = 'queued' ORDER BY seq LIMIT :most
        ) oldest
    ) mail
    ON CONFLICT (agent_id) DO UPDATE SET last_seq = greatest(suspects.last_seq, excluded.last_seq)
""")
_TAKE = text(f"""
    UPDATE suspects SET due_at = clock_timestamp() + interval '{REST_SECONDS} s'
    WHERE agent_id = (
        SELECT agent_id FROM suspects
        WHERE due_at <= clock_timestamp() ORDER BY due_at, agent_id LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING agent_id, last_seq
""")
_WATCH = text("SELECT 1 FROM suspects WHERE agent_id = :agent FOR UPDATE SKIP LOCKED")
_WAIT_NO_LONGER = text("UPDATE suspects SET due_at = clock_timestamp() WHERE agent_id = :agent")
_CLEAR = text("DELETE FROM suspects WHERE agent_id = :agent")


def name(db: Connection, agent_ids: Iterable[UUID], most: int) -> None:
    """Suspect these agents, because of the oldest `most` commands that each has now."""
    db.execute(_NAME, {"ids": ids(sorted(set(agent_ids))), "most": most})


def take(db: Connection) -> Suspect | None:
    """The one that has waited the longest; nobody takes it again before it has rested, whatever becomes of us."""
    row = db.execute(_TAKE).one_or_none()
    return None if row is None else Suspect(row.agent_id, row.last_seq)


def watch(db: Connection, agent_id: UUID) -> bool:
    """Keep it for ourselves until this transaction ends; False where somebody else has it, or it is none any more."""
    return db.execute(_WATCH, {"agent": agent_id}).one_or_none() is not None


def wait_no_longer(db: Connection, agent_id: UUID) -> None:
    """Let it be taken again, after all others that wait."""
    db.execute(_WAIT_NO_LONGER, {"agent": agent_id})


def clear(db: Connection, agent_id: UUID) -> None:
    """Nothing speaks against it any more."""
    db.execute(_CLEAR, {"agent": agent_id})
