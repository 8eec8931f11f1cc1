"""claim → load → decide → record: the only writer of status, counters and events."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, TextClause, text

from orchestrator.decide import Agent, Command, Outcome, decide
from orchestrator.ledger import NO_SUMS, Sums, fold
from orchestrator.lifecycle import Status, Verb
from orchestrator.models import State
from orchestrator.rows import columns, jsonb

MAILBOX = 50
"""Commands taken from one agent's mailbox per batch, so that one busy agent does not fill a batch."""


class WorldChanged(RuntimeError):
    """A row this transaction had locked was not as it had read it; the batch is rolled back."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The agents this transaction has locked: those with mail, those with uncounted usage; full when more may wait."""

    mail: Sequence[UUID]
    usage: Sequence[UUID]
    full: bool = False

    @property
    def agents(self) -> list[UUID]:
        """Every claimed agent once."""
        return list(dict.fromkeys((*self.mail, *self.usage)))


@dataclass(frozen=True, slots=True)
class Load:
    """What the claim's agents and mailboxes looked like after the lock, and the database's time then."""

    claim: Claim
    agents: dict[UUID, Agent]
    mail: dict[UUID, list[Command]]
    at: datetime


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction did; `full` when its claim reached its limit, so that more may wait."""

    claim: Claim
    outcomes: list[Outcome] = field(default_factory=list)
    folded: int = 0

    @property
    def empty(self) -> bool:
        """Nothing was claimed: only this ends the drain's loop. (A mailbox found empty after the lock is normal.)"""
        return not self.claim.agents

    @property
    def closed(self) -> list[UUID]:
        """The commands this batch closed."""
        return [outcome.command.id for outcome in self.outcomes]

    def count(self, state: str) -> int:
        """How many commands ended in `state`."""
        return sum(outcome.state == state for outcome in self.outcomes)


# The LIMIT stands outside the lock: inside a subquery, one locked agent with a long mailbox would fill it, and the
# claim would come back empty while thousands wait. NO KEY, because foreign keys at the door take a key-share lock.
_CLAIM_MAIL = text("""
    SELECT a.id FROM commands c JOIN agents a ON a.id = c.agent_id
    WHERE c.state = 'queued'
    ORDER BY c.lane, c.turn, c.seq LIMIT :limit
    FOR NO KEY UPDATE OF a SKIP LOCKED
""")
_CLAIM_USAGE = text("""
    SELECT a.id FROM usage_entries u JOIN agents a ON a.id = u.agent_id
    WHERE NOT u.folded AND a.status IS NOT NULL
    LIMIT :limit
    FOR NO KEY UPDATE OF a SKIP LOCKED
""")
_CLAIM_ONE = text("SELECT id FROM agents WHERE id = :agent FOR NO KEY UPDATE SKIP LOCKED")

# Read after the lock, in statements of their own: a READ COMMITTED snapshot from before it could be too old.
_AGENTS = text("""
    SELECT id, project_id, status, version, name, current_task, short_term_memory, long_term_memory_ref, session_id,
        last_activity_at, terminated_at, updated_at
    FROM agents WHERE id = ANY(CAST(:ids AS uuid[]))
""")
_MAILBOXES = text("""
    SELECT c.*, clock_timestamp() AS at
    FROM unnest(CAST(:ids AS uuid[])) AS mine (id)
    CROSS JOIN LATERAL (
        SELECT id, agent_id, verb, payload, reason, actor_type, actor_id, precondition, seq
        FROM commands WHERE agent_id = mine.id AND state = 'queued' ORDER BY seq LIMIT :most
    ) c
    ORDER BY c.seq
""")
_NOW = text("SELECT clock_timestamp()")

_WRITE_AGENTS = text("""
    UPDATE agents a SET
        status = n.status, version = n.version, name = n.name, current_task = n.current_task,
        short_term_memory = n.short_term_memory, long_term_memory_ref = n.long_term_memory_ref,
        session_id = n.session_id, last_activity_at = n.last_activity_at, terminated_at = n.terminated_at,
        updated_at = n.updated_at, tasks_completed = a.tasks_completed + n.tasks,
        tokens_used = a.tokens_used + n.tokens, cost_incurred = a.cost_incurred + n.cost
    FROM unnest(CAST(:id AS uuid[]), CAST(:read AS bigint[]), CAST(:status AS text[]), CAST(:version AS bigint[]),
        CAST(:name AS text[]), CAST(:current_task AS text[]), CAST(:short_term_memory AS jsonb[]),
        CAST(:long_term_memory_ref AS text[]), CAST(:session_id AS text[]), CAST(:last_activity_at AS timestamptz[]),
        CAST(:terminated_at AS timestamptz[]), CAST(:updated_at AS timestamptz[]), CAST(:tasks AS bigint[]),
        CAST(:tokens AS numeric[]), CAST(:cost AS numeric[]))
        AS n (id, read, status, version, name, current_task, short_term_memory, long_term_memory_ref, session_id,
        last_activity_at, terminated_at, updated_at, tasks, tokens, cost)
    WHERE a.id = n.id AND a.version = n.read
""")
_WRITE_EVENTS = text("""
    INSERT INTO events (agent_id, version, project_id, command_id, verb, before, after, changes, actor_type, actor_id,
        reason, at)
    SELECT * FROM unnest(CAST(:agent_id AS uuid[]), CAST(:version AS bigint[]), CAST(:project_id AS uuid[]),
        CAST(:command_id AS uuid[]), CAST(:verb AS text[]), CAST(:before AS text[]), CAST(:after AS text[]),
        CAST(:changes AS jsonb[]), CAST(:actor_type AS text[]), CAST(:actor_id AS uuid[]), CAST(:reason AS text[]),
        CAST(:at AS timestamptz[]))
""")
_CLOSE_COMMANDS = text("""
    UPDATE commands c SET state = n.state, version = n.version, error = n.error, closed_at = :at, task_id = :task_id
    FROM unnest(CAST(:id AS uuid[]), CAST(:state AS text[]), CAST(:version AS bigint[]), CAST(:error AS jsonb[]))
        AS n (id, state, version, error)
    WHERE c.id = n.id AND c.state = 'queued'
""")
_COUNT = text("""
    INSERT INTO project_counters AS k (project_id, slot, idle, working, waiting, paused, terminated,
        tasks_completed, tokens_used, cost_incurred)
    SELECT project_id, :slot, idle, working, waiting, paused, terminated, tasks, tokens, cost
    FROM unnest(CAST(:project_id AS uuid[]), CAST(:idle AS bigint[]), CAST(:working AS bigint[]),
        CAST(:waiting AS bigint[]), CAST(:paused AS bigint[]), CAST(:terminated AS bigint[]), CAST(:tasks AS bigint[]),
        CAST(:tokens AS numeric[]), CAST(:cost AS numeric[]))
        AS n (project_id, idle, working, waiting, paused, terminated, tasks, tokens, cost)
    ORDER BY project_id
    ON CONFLICT (project_id, slot) DO UPDATE SET
        idle = k.idle + excluded.idle, working = k.working + excluded.working, waiting = k.waiting + excluded.waiting,
        paused = k.paused + excluded.paused, terminated = k.terminated + excluded.terminated,
        tasks_completed = k.tasks_completed + excluded.tasks_completed,
        tokens_used = k.tokens_used + excluded.tokens_used, cost_incurred = k.cost_incurred + excluded.cost_incurred
""")
_COUNT_ATTEMPT = text("""
    UPDATE commands SET attempts = attempts + :more
    WHERE id = (SELECT id FROM commands WHERE agent_id = :agent AND state = 'queued' ORDER BY seq LIMIT 1)
    RETURNING id, attempts
""")
_BURY = text("""
    UPDATE commands SET state = 'dead', closed_at = clock_timestamp(), task_id = :task_id, error = :error
    WHERE id = :id AND state = 'queued'
""")


@dataclass(frozen=True, slots=True)
class Drainer:
    """One process's way of draining: its slot in the project counters, and the Celery task it works for."""

    slot: int
    task_id: str | None = None

    def drain(self, db: Connection, claim: Claim, mailbox: int = MAILBOX) -> Batch:
        """Empty the mailboxes of the claimed agents and count their usage; the caller commits."""
        return self._record(db, *_decide(_load(db, claim, mailbox)))

    def _record(self, db: Connection, load: Load, after: dict[UUID, Agent], outcomes: list[Outcome]) -> Batch:
        sums = fold(db, [id_ for id_ in load.claim.usage if after[id_].status is not None])
        _write_agents(db, load.agents, after, sums)
        _write_events(db, after, outcomes, load.at)
        self._close(db, outcomes, load.at)
        self._count(db, load.agents, after, sums)
        return Batch(load.claim, outcomes, len(sums))

    def _close(self, db: Connection, outcomes: list[Outcome], at: datetime) -> None:
        rows = [
            {"id": o.command.id, "state": o.state.value, "version": o.version, "error": jsonb(o.error)}
            for o in outcomes
        ]
        _write_all(db, _CLOSE_COMMANDS, rows, at=at, task_id=self.task_id)

    def _count(
        self, db: Connection, before: dict[UUID, Agent], after: dict[UUID, Agent], sums: dict[UUID, Sums]
    ) -> None:
        deltas: dict[UUID, dict[str, Any]] = defaultdict(_no_delta)
        for id_, agent in after.items():
            _add(deltas, before[id_], agent, sums.get(id_, NO_SUMS))
        rows = [{"project_id": id_, **delta} for id_, delta in deltas.items()]
        _write_all(db, _COUNT, rows, slot=self.slot)


def claim(db: Connection, limit: int) -> Claim:
    """Lock agents that nobody else is draining, by up to `limit` waiting commands and as many uncounted entries."""
    mail = db.execute(_CLAIM_MAIL, {"limit": limit}).scalars().all()
    usage = db.execute(_CLAIM_USAGE, {"limit": limit}).scalars().all()
    return Claim(list(dict.fromkeys(mail)), list(dict.fromkeys(usage)), full=max(len(mail), len(usage)) >= limit)


def claim_one(db: Connection, agent_id: UUID) -> Claim:
    """Lock this agent, if nobody else has."""
    mine = db.execute(_CLAIM_ONE, {"agent": agent_id}).scalars().all()
    return Claim(mine, mine)


def count_attempt(db: Connection, agent_id: UUID, more: int = 1) -> tuple[UUID, int] | None:
    """Add to the attempts of the agent's oldest queued command: its id and new count; None for an empty mailbox."""
    row = db.execute(_COUNT_ATTEMPT, {"agent": agent_id, "more": more}).one_or_none()
    return row and (row.id, row.attempts)


def bury(db: Connection, command_id: UUID, task_id: str | None) -> None:
    """Close a command as dead: it failed each time it was tried."""
    message = "the command failed five times and was given up; its agent was not changed by it"
    error = {"code": "internal", "message": message, "field": None}
    db.execute(_BURY, {"id": command_id, "task_id": task_id, "error": jsonb(error)})


def _load(db: Connection, claim: Claim, mailbox: int) -> Load:
    ids = claim.agents
    agents = {row.id: _agent(row._asdict()) for row in db.execute(_AGENTS, {"ids": ids})}
    rows = db.execute(_MAILBOXES, {"ids": ids, "most": mailbox}).all()
    mail: dict[UUID, list[Command]] = defaultdict(list)
    for row in rows:
        mail[row.agent_id].append(_command(row))
    at = rows[-1].at if rows else db.execute(_NOW).scalar_one()
    return Load(claim, agents, mail, at)


def _agent(row: dict[str, Any]) -> Agent:
    return Agent(**row | {"status": row["status"] and Status(row["status"])})


def _command(row: Any) -> Command:
    return Command(
        row.id, row.agent_id, Verb(row.verb), row.payload, row.reason, row.actor_type, row.actor_id, row.precondition
    )


def _decide(load: Load) -> tuple[Load, dict[UUID, Agent], list[Outcome]]:
    after: dict[UUID, Agent] = {}
    outcomes: list[Outcome] = []
    for id_, agent in load.agents.items():
        after[id_], ended = decide(agent, load.mail.get(id_, ()), load.at)
        outcomes += ended
    return load, after, outcomes


def _write_agents(
    db: Connection, before: dict[UUID, Agent], after: dict[UUID, Agent], sums: dict[UUID, Sums]
) -> None:
    rows = [
        _agent_row(agent, before[id_].version, sums.get(id_, NO_SUMS))
        for id_, agent in after.items()
        if agent.version != before[id_].version or id_ in sums
    ]
    _write_all(db, _WRITE_AGENTS, rows)


def _agent_row(agent: Agent, read: int, sums: Sums) -> dict[str, Any]:
    fields = {name: getattr(agent, name) for name in Agent.__slots__ if name != "project_id"}
    counters = {"tasks": sums.tasks_completed, "tokens": Decimal(sums.tokens_used), "cost": sums.cost_incurred}
    return fields | counters | {"read": read, "short_term_memory": jsonb(agent.short_term_memory)}


def _write_events(db: Connection, after: dict[UUID, Agent], outcomes: Iterable[Outcome], at: datetime) -> None:
    rows = [
        {
            "agent_id": o.command.agent_id,
            "version": o.version,
            "project_id": after[o.command.agent_id].project_id,
            "command_id": o.command.id,
            "verb": o.event.verb.value,
            "before": o.event.before,
            "after": o.event.after,
            "changes": jsonb(o.event.changes),
            "actor_type": o.command.actor_type,
            "actor_id": o.command.actor_id,
            "reason": o.command.reason,
            "at": at,
        }
        for o in outcomes
        if o.event is not None
    ]
    _write_all(db, _WRITE_EVENTS, rows)


def _write_all(db: Connection, statement: TextClause, rows: Sequence[dict[str, Any]], **common: Any) -> None:
    if rows and db.execute(statement, columns(rows) | common).rowcount != len(rows):
        raise WorldChanged(f"{len(rows)} rows were to be written, not all were as they had been read")


def _no_delta() -> dict[str, Any]:
    return {status.value: 0 for status in Status} | {"tasks": 0, "tokens": Decimal(0), "cost": Decimal(0)}


def _add(deltas: dict[UUID, dict[str, Any]], before: Agent, after: Agent, sums: Sums) -> None:
    if before.status is after.status and sums is NO_SUMS:
        return
    delta = deltas[after.project_id]
    for status, by in ((before.status, -1), (after.status, 1)):
        if status is not None:
            delta[status.value] += by
    delta["tasks"] += sums.tasks_completed
    delta["tokens"] += sums.tokens_used
    delta["cost"] += sums.cost_incurred
