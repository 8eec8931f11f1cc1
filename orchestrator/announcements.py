"""Announcements: whom a batch is at, written down outside of its transaction.

A batch that fails is drained again, command by command, so that one bad command does not stop the others. Where its
process died, nothing else is left that could say whom it was at.
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


class Died(NamedTuple):
    """A batch that has ended without a commit, and the agents it had claimed."""

    batch: int
    agents: Sequence[UUID]


LIVING = "SELECT pg_advisory_xact_lock(:batch)"
"""What a batch's transaction takes: a lock that ends with it, whatever becomes of its process. It has it before anybody
can read of the batch, so nobody takes a living one for dead."""

_ANNOUNCE = text("INSERT INTO announcements (batch, agents) VALUES (:batch, CAST(:agents AS uuid[]))")
_WITHDRAW = text("DELETE FROM announcements WHERE batch = :batch")
_ANY = text("SELECT EXISTS (SELECT FROM announcements)")
_DIED = text("SELECT batch, agents FROM announcements WHERE pg_try_advisory_xact_lock(batch) LIMIT 1")


def number() -> int:
    """A number for a batch."""
    return getrandbits(63)


def announce(batch: int, agents: Sequence[UUID]) -> None:
    """Say whom this batch is at; committed at once, on a connection of its own."""
    with autocommit(Guard.DRAIN) as apart:
        one_by_one(apart, (_ANNOUNCE, {"batch": batch, "agents": ids(agents)}))


def withdrawing(batch: int) -> Call:
    """What its transaction does next: what was announced is no longer said, if it is committed."""
    return _WITHDRAW, {"batch": batch}


def any_batches() -> bool:
    """Whether any batch is at work, or has died."""
    with autocommit(Guard.DRAIN) as db:
        [found] = one_by_one(db, (_ANY, {}))
        return bool(found.fetchall()[0][0])


def died(db: Connection) -> Died | None:
    """A batch that failed, or whose process died, and that nobody else is looking after; this transaction does from now
    on, until it ends."""
    row = db.execute(_DIED).one_or_none()
    return None if row is None else Died(row.batch, row.agents)


def withdraw(db: Connection, batch: int) -> None:
    """Forget it: its agents have been looked after."""
    db.execute(_WITHDRAW, {"batch": batch})
