"""Announcements: whom a batch is at, written down outside of its transaction.

Of one that failed, or whose process died, they are suspects; nothing else is left then that could say whom it was at.
"""

from collections.abc import Sequence
from random import getrandbits
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, Column, Connection, Table, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY

from orchestrator.columns import metadata
from orchestrator.db import Guard, autocommit
from orchestrator.pipeline import Call, one_by_one
from orchestrator.rows import ids

announcements = Table(
    "announcements",
    metadata,
    Column("batch", BigInteger, primary_key=True, autoincrement=False),
    Column("agents", ARRAY(Uuid), nullable=False),
    prefixes=["UNLOGGED"],  # a crash of the database is the end of every batch
)


class Look(NamedTuple):
    """Batches that have ended, though they are announced; and whether there are any suspects."""

    ended: Sequence[int]
    suspects: bool


LIVING = "SELECT pg_advisory_xact_lock(:batch)"
"""What a batch's transaction takes: a lock that ends with it, whatever becomes of its process. It has it before anybody
can read of the batch, so nobody takes a living one for dead."""

_ANNOUNCE = text("INSERT INTO announcements (batch, agents) VALUES (:batch, CAST(:agents AS uuid[]))")
_WITHDRAW = text("DELETE FROM announcements WHERE batch = :batch")
_LOOK = text("""
    SELECT ARRAY(SELECT batch FROM announcements WHERE pg_try_advisory_xact_lock(batch)) AS ended,
        EXISTS (SELECT FROM suspects) AS suspects
""")
_LOCK = text("SELECT batch FROM unnest(CAST(:batches AS bigint[])) AS b (batch) WHERE pg_try_advisory_xact_lock(batch)")
_WITHDRAW_MANY = text("DELETE FROM announcements WHERE batch = ANY(CAST(:batches AS bigint[])) RETURNING agents")


def number() -> int:
    """A number for a batch."""
    return getrandbits(63)


def announce(batch: int, agents: Sequence[UUID]) -> None:
    """Say whom this batch is at; committed at once, on a connection of its own."""
    with autocommit(Guard.DRAIN) as apart:
        one_by_one(apart, (_ANNOUNCE, {"batch": batch, "agents": ids(agents)}))


def withdraw(batch: int) -> None:
    """No longer say whom this batch was at: it failed, and none of them is to blame."""
    with autocommit(Guard.DRAIN) as apart:
        one_by_one(apart, withdrawing(batch))


def withdrawing(batch: int) -> Call:
    """What its transaction does next: what was announced is no longer said, if it is committed."""
    return _WITHDRAW, {"batch": batch}


def look() -> Look:
    """See whether something went wrong."""
    with autocommit(Guard.DRAIN) as db:
        [found] = one_by_one(db, (_LOOK, {}))
        [row] = found.fetchall()
        return Look(row.ended, row.suspects)


def take_down(db: Connection, ended: Sequence[int]) -> list[UUID]:
    """Withdraw what batches have announced that have ended: the agents of those that were not committed.

    Whoever saw one may have begun to look before it was committed, and tried its lock after that; so what is there is
    read anew, once the locks are ours. What others take down at this moment is theirs.
    """
    ours = list(db.execute(_LOCK, {"batches": list(ended)}).scalars())
    return [agent for agents in db.execute(_WITHDRAW_MANY, {"batches": ours}).scalars() for agent in agents]
