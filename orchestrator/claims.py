"""Claims: whose mailboxes one transaction empties. It locks agents that nobody else has locked, urgent mail first."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from orchestrator import announcements
from orchestrator.announcements import LIVING
from orchestrator.pipeline import together
from orchestrator.suspects import TRUSTED
from orchestrator.turns import BULK, URGENT


class Marks(NamedTuple):
    """Where in the queue a claim begins: what is urgent by its number, what came in bulk by its turn, usage by when it
    came (epoch seconds)."""

    urgent: int = 0
    bulk: float = 0.0
    usage: float = 0.0

    def beyond(self, other: "Marks") -> "Marks":
        """The later of both, of each kind."""
        return Marks(max(self.urgent, other.urgent), max(self.bulk, other.bulk), max(self.usage, other.usage))


FRONT = Marks()

BULK_AT_MOST = 200
"""Commands of the bulk lane in one claim: with two workers at a backlog, another project's hundred are done after three
hundred of it, and what is urgent waits for little. (A larger one is no faster.)"""

LATE = Marks(urgent=10_000, bulk=3.0, usage=60.0)
"""How far behind what was found first a later walk begins: what was numbered early is often committed a little late."""


@dataclass(frozen=True)
class Claim:
    """The agents this transaction has locked: those with mail, those with uncounted usage; full when more may wait."""

    mail: Sequence[UUID]
    usage: Sequence[UUID]
    urgent: int = 0
    """How many of those with mail, the first ones, have some that was sent one by one."""
    marks: Marks = FRONT
    """Where the next claim may begin, in lanes that are full: closed commands that an old snapshot keeps in the index
    lie before it."""
    full: bool = False
    batch: int | None = None
    """The number under which it can be announced."""

    @cached_property
    def agents(self) -> list[UUID]:
        """Every claimed agent once."""
        return list(dict.fromkeys((*self.mail, *self.usage)))


# The LIMIT stands outside the lock: inside a subquery, one locked agent with a long mailbox would fill it, and the
# claim would come back empty while thousands wait. NO KEY, because foreign keys at the door take a key-share lock. Each
# lane is walked in the order of its index, and the urgent one first.
_CLAIM = text(f"""
    WITH living AS MATERIALIZED ({LIVING}), urgent AS (
        SELECT a.id, c.lane, c.turn, c.seq FROM commands c JOIN agents a ON a.id = c.agent_id
        WHERE c.state = 'queued' AND c.lane = {URGENT} AND c.turn = 0 AND c.seq >= :urgent AND {TRUSTED}
        ORDER BY c.lane, c.turn, c.seq LIMIT :limit
        FOR NO KEY UPDATE OF a SKIP LOCKED
    ), bulk AS (
        SELECT a.id, c.lane, c.turn, c.seq FROM commands c JOIN agents a ON a.id = c.agent_id
        WHERE c.state = 'queued' AND c.lane = {BULK} AND c.turn >= :bulk AND {TRUSTED}
        ORDER BY c.lane, c.turn, c.seq LIMIT least(:limit, {BULK_AT_MOST})
        FOR NO KEY UPDATE OF a SKIP LOCKED
    ), usage AS (
        SELECT a.id, NULL::smallint AS lane, extract(epoch FROM u.created_at)::float AS turn, NULL::bigint AS seq
        FROM usage_entries u JOIN agents a ON a.id = u.agent_id
        WHERE NOT u.folded AND u.created_at >= to_timestamp(:usage) AND {TRUSTED}
        ORDER BY u.created_at LIMIT :limit
        FOR NO KEY UPDATE OF a SKIP LOCKED
    )
    SELECT found.* FROM (SELECT * FROM urgent UNION ALL SELECT * FROM bulk UNION ALL SELECT * FROM usage) found
    CROSS JOIN living
""")
# Locked or not: what another worker has in hand is still to be done, if that worker dies. Where nothing is queued, the
# first will be what comes next.
_FIRST = text(f"""
    SELECT coalesce(
        (SELECT seq FROM commands WHERE state = 'queued' AND lane = {URGENT} AND turn = 0
            ORDER BY lane, turn, seq LIMIT 1),
        (SELECT last_value FROM commands_seq_seq)
    ) AS urgent, coalesce(
        (SELECT turn FROM commands WHERE state = 'queued' AND lane = {BULK} ORDER BY lane, turn, seq LIMIT 1),
        (SELECT max(end_turn) FROM batches),
        0
    ) AS bulk, extract(epoch FROM coalesce(
        (SELECT created_at FROM usage_entries WHERE NOT folded ORDER BY created_at LIMIT 1),
        now()
    ))::float AS usage
""")
_CLAIM_ONE = text("SELECT id FROM agents WHERE id = :agent FOR NO KEY UPDATE SKIP LOCKED")


def claim(db: Connection, limit: int, start: Marks = FRONT) -> Claim:
    """Lock agents that nobody else is draining, and that are no suspects: by up to `limit` waiting commands of each
    lane (of bulk at most BULK_AT_MOST), and as many uncounted entries."""
    batch = announcements.number()
    [found] = together(db, (_CLAIM, {"limit": limit, "batch": batch} | start._asdict()))
    rows = found.fetchall()
    urgent = [row for row in rows if row.lane == URGENT]
    bulk = [row for row in rows if row.lane == BULK]
    entries = rows[len(urgent) + len(bulk) :]
    more_urgent, more_bulk = len(urgent) >= limit, len(bulk) >= min(limit, BULK_AT_MOST)
    marks = Marks(urgent[0].seq if more_urgent else 0, max(0.0, bulk[0].turn - LATE.bulk) if more_bulk else 0.0)
    full = more_urgent or more_bulk or len(entries) >= limit
    return Claim(_once(urgent + bulk), _once(entries), len(_once(urgent)), marks, full, batch)


def _once(rows: Sequence[Any]) -> list[UUID]:
    return list(dict.fromkeys(row.id for row in rows))


def first(db: Connection) -> Marks:
    """Some way before the first that waits of each kind, whoever has it in hand; walks from the very front."""
    row = db.execute(_FIRST).one()
    return FRONT.beyond(Marks(row.urgent - LATE.urgent, row.bulk - LATE.bulk, row.usage - LATE.usage))


def claim_one(db: Connection, agent_id: UUID) -> Claim:
    """Lock this agent for its mail alone, if nobody else has."""
    return Claim(db.execute(_CLAIM_ONE, {"agent": agent_id}).scalars().all(), ())


def claim_usage(db: Connection, agent_id: UUID) -> Claim:
    """Lock this agent for its usage alone, if nobody else has."""
    return Claim((), db.execute(_CLAIM_ONE, {"agent": agent_id}).scalars().all())
