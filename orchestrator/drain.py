"""claim → load → decide → record: the only writer of status, counters and events."""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from orchestrator import announcements, failpoints, record
from orchestrator.claims import Claim
from orchestrator.decide import Agent, Command, Moment, Outcome, decide
from orchestrator.errors import Dead
from orchestrator.failpoints import Point
from orchestrator.lease_tables import LIVE
from orchestrator.ledger import fold
from orchestrator.lifecycle import Status, Verb
from orchestrator.pipeline import together
from orchestrator.record import Changes
from orchestrator.rows import ids, jsonb
from orchestrator.stops import Cause, Lease, Stage

MAILBOX, LETTERS = 50, 2_000
"""Commands taken per batch: from one agent's mailbox, so that one busy agent does not fill a batch; and from all
together, because even the largest commands must not outlast the transaction's time-out."""

NO_COMMAND = UUID(int=0)
"""No command's id: a drain of this one alone touches none."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the claimed agents, their leases and their mailboxes looked like after the lock, and the database's time
    then."""

    agents: dict[UUID, Agent]
    leases: dict[UUID, Lease]
    mail: dict[UUID, list[Command]]
    at: datetime


@dataclass(frozen=True)
class Batch:
    """What one transaction did: whom it claimed, how each command ended, and how many agents' usage it counted."""

    claim: Claim
    outcomes: list[Outcome] = field(default_factory=list)
    folded: int = 0

    @property
    def empty(self) -> bool:
        """Nothing was claimed: only this ends the drain's loop. (A mailbox found empty after the lock is normal.)"""
        return not self.claim.agents

    @cached_property
    def closed(self) -> list[UUID]:
        """The commands this batch closed, and those whose process it found standing still."""
        return [id_ for outcome in self.outcomes for id_ in (outcome.command.id, *outcome.quiesced)]


# Read after the lock, in statements of their own: a READ COMMITTED snapshot from before it could be too old.
# A lease that was read here cannot be fenced or granted anew before this transaction ends: so from the acceptance of an
# immediate stop on, nothing of an old epoch is written. A beat need not wait for us. In the order of ids, as everybody
# locks leases. Twice: locked before the mailboxes, so that whoever is seen to be fenced has the stop that did it in
# there; and read after them, with the agents, so that a word in there (that a process stands still, or is gone) is not
# judged by what was true before it.
# A transaction has its place in the feed from its first lock on. One that began later may have written an agent before
# that was locked here: it is ahead of us then, by less than all that have begun since (docs/decisions/0027). Rows that
# were written billions of transactions ago seem to be ahead of everybody, but by far more.
_BEGUN_SINCE = "pg_snapshot_xmax(pg_current_snapshot())::text::bigint - pg_current_xact_id()::text::bigint"
_LEASES = text("SELECT 1 FROM leases WHERE agent_id = ANY(CAST(:ids AS uuid[])) ORDER BY agent_id FOR KEY SHARE")
_AGENTS = text(f"""
    SELECT a.id, a.project_id, status, version, name, current_task, short_term_memory, long_term_memory_ref, session_id,
        last_activity_at, terminated_at, updated_at, holds, stop, quiesced_at, quiesced_by, clock_timestamp() AS now,
        -age(a.xmin)::bigint BETWEEN 1 AND (SELECT {_BEGUN_SINCE}) AS overtaken,
        lease.epoch, lease.live, lease.released_at, lease.acked
    FROM agents a LEFT JOIN LATERAL (
        SELECT l.epoch, {LIVE} AS live, CASE l.ended_by WHEN 'release' THEN l.ended_at END AS released_at,
            l.acked_at IS NOT NULL AS acked
        FROM leases l WHERE l.agent_id = a.id
        FOR KEY SHARE
    ) lease ON true
    WHERE a.id = ANY(CAST(:ids AS uuid[]))
""")
_MAILBOXES = text("""
    SELECT c.*
    FROM unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS mine (id, place)
    CROSS JOIN LATERAL (
        SELECT id, agent_id, verb, payload, reason, actor_type, actor_id, precondition, epoch, created_at, batch_id, seq
        FROM commands
        WHERE agent_id = mine.id AND state = 'queued' AND (CAST(:only AS uuid) IS NULL OR id = :only)
        ORDER BY seq LIMIT CASE WHEN mine.place <= :urgent THEN :more ELSE :most END
    ) c
    ORDER BY c.seq
""")

_COUNT_ATTEMPT = text("""
    UPDATE commands SET attempts = attempts + 1
    WHERE id = (
        SELECT id FROM commands WHERE agent_id = :agent AND state = 'queued' AND seq <= :last ORDER BY seq LIMIT 1
    )
    RETURNING id, attempts
""")
_GIVE_BACK = text("UPDATE commands SET attempts = attempts - 1 WHERE id = :id AND state = 'queued'")
_BURY = text("""
    UPDATE commands SET state = 'dead', closed_at = clock_timestamp(), task_id = :task_id, error = :error
    WHERE id = :id AND state = 'queued'
""")


@dataclass(frozen=True, slots=True)
class Drainer:
    """One process's way of draining: its slot in the project counters, and the Celery task it works for."""

    slot: int
    task_id: str | None = None

    def drain(self, db: Connection, claim: Claim, only: UUID | None = None) -> Batch:
        """Empty the mailboxes of the claimed agents, but for the bounds of a batch, and count their usage; the caller
        commits. With `only`, no command but that one is touched.
        """
        if not claim.agents:
            return Batch(claim)
        load = _load(db, claim, only)
        after, outcomes = _decide(load)
        failpoints.reach(Point.DECIDED, (outcome.command.id for outcome in outcomes))
        sums = fold(db, claim.usage, self.slot)
        record.write(db, Changes(load.agents, after, outcomes, sums, load.at), self.slot, self.task_id)
        return Batch(claim, outcomes, len(sums))


def count_attempt(db: Connection, agent_id: UUID, last_seq: int) -> tuple[UUID, int] | None:
    """Count an attempt at the oldest queued command of the agent, which is claimed, up to this one: its id and attempts
    so far; None where there is none."""
    row = db.execute(_COUNT_ATTEMPT, {"agent": agent_id, "last": last_seq}).one_or_none()
    return row and (row.id, row.attempts)


def give_back(db: Connection, command_id: UUID) -> None:
    """Take back an attempt that was not the command's fault, or not made."""
    db.execute(_GIVE_BACK, {"id": command_id})


def bury(db: Connection, command_id: UUID, task_id: str | None) -> bool:
    """Close a command as dead, since it failed each time it was tried; False if it is closed already."""
    error = jsonb(Dead().as_record())
    return bool(db.execute(_BURY, {"id": command_id, "task_id": task_id, "error": error}).rowcount)


def _load(db: Connection, claim: Claim, only: UUID | None) -> Load:
    agents, urgent = claim.agents, claim.urgent
    these = {"ids": ids(agents)}
    # Who has urgent mail may have much before it.
    mailboxes = {"urgent": urgent, "more": _share(urgent), "most": _share(len(agents)), "only": only}
    first = [] if claim.batch is None else [announcements.withdrawing(claim.batch)]
    *_, letters, rows = together(db, *first, (_LEASES, these), (_MAILBOXES, these | mailboxes), (_AGENTS, these))
    found = rows.fetchall()
    leases = {row.id: Lease(row.epoch, row.live, row.released_at, row.acked) for row in found if row.epoch is not None}
    overtaken = {row.id for row in found if row.overtaken}  # their mail is left for the next claim: events keep order
    mail: dict[UUID, list[Command]] = defaultdict(list)
    for row in letters:
        if row.agent_id not in overtaken:
            mail[row.agent_id].append(_command(row))
    return Load({row.id: _agent(row) for row in found}, leases, mail, found[0].now)


def _share(mailboxes: int) -> int:
    """How many letters each of so many mailboxes may add to a batch."""
    return max(1, min(MAILBOX, LETTERS // (mailboxes or 1)))


def _agent(row: Any) -> Agent:
    stage = Stage(row.stop, row.quiesced_at, row.quiesced_by and Cause(row.quiesced_by))
    return Agent(
        row.id, row.project_id, row.status and Status(row.status), row.version, row.name, row.current_task,
        row.short_term_memory, row.long_term_memory_ref, row.session_id, row.last_activity_at, row.terminated_at,
        row.updated_at, row.holds, stage,
    )  # fmt: skip


def _command(row: Any) -> Command:
    return Command(
        row.id, row.agent_id, Verb(row.verb), row.payload, row.reason, row.actor_type, row.actor_id, row.precondition,
        row.epoch, row.created_at, row.batch_id,
    )  # fmt: skip


def _decide(load: Load) -> tuple[dict[UUID, Agent], list[Outcome]]:
    """The agents as they are afterwards, and how each command ended."""
    after: dict[UUID, Agent] = {}
    outcomes: list[Outcome] = []
    for id_, agent in load.agents.items():
        after[id_], ended = decide(agent, load.mail.get(id_, ()), Moment(load.at, load.leases.get(id_)))
        outcomes += ended
    return after, outcomes
