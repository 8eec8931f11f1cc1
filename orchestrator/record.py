"""The pen: agents, events, commands and counters of one batch, all in one round trip. Nobody else writes them."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, TextClause, text

from orchestrator import holds
from orchestrator.decide import Agent, Outcome
from orchestrator.ledger import NO_SUMS, Sums
from orchestrator.lifecycle import Status
from orchestrator.pipeline import together
from orchestrator.rows import document


class WorldChanged(RuntimeError):
    """A row this transaction had locked was not as it had read it; the batch is rolled back."""


_WRITE_AGENTS = text("""
    UPDATE agents a SET
        status = n.status, version = n.version, name = n.name, current_task = n.current_task,
        short_term_memory = n.short_term_memory, long_term_memory_ref = n.long_term_memory_ref,
        session_id = n.session_id, last_activity_at = n.last_activity_at, terminated_at = n.terminated_at,
        updated_at = n.updated_at, holds = n.holds, hold_until = n.hold_until,
        stop = n.stop, quiesced_at = n.quiesced_at, quiesced_by = n.quiesced_by,
        tasks_completed = a.tasks_completed + n.tasks,
        tokens_used = a.tokens_used + n.tokens, cost_incurred = a.cost_incurred + n.cost
    FROM json_to_recordset(:rows) AS n (id uuid, read bigint, status text, version bigint, name text, current_task text,
        short_term_memory jsonb, long_term_memory_ref text, session_id text, last_activity_at timestamptz,
        terminated_at timestamptz, updated_at timestamptz, holds jsonb, hold_until timestamptz, stop jsonb,
        quiesced_at timestamptz, quiesced_by text, tasks bigint, tokens numeric, cost numeric)
    WHERE a.id = n.id AND a.version = n.read
""")
_WRITE_EVENTS = text("""
    INSERT INTO events (agent_id, version, project_id, command_id, verb, before, after, changes, actor_type, actor_id,
        reason, at)
    SELECT agent_id, version, project_id, command_id, verb, before, after, changes, actor_type, actor_id, reason, :at
    FROM json_to_recordset(:rows) AS n (agent_id uuid, version bigint, project_id uuid, command_id uuid, verb text,
        before text, after text, changes jsonb, actor_type text, actor_id uuid, reason text)
""")
# Open is "not closed" here, which is the same as 'queued': before the planner has learnt of a sudden backlog it would
# take the partial index of what is queued, and read the whole backlog for each batch. A row without a state is that of
# a command which is closed already, and waited for its agent's process to stand still.
_CLOSE_COMMANDS = text("""
    UPDATE commands c SET state = coalesce(n.state, c.state), version = coalesce(n.version, c.version),
        error = coalesce(n.error, c.error), closed_at = coalesce(c.closed_at, :at),
        task_id = coalesce(c.task_id, :task_id), quiesced_at = n.quiesced_at, quiesced_by = n.quiesced_by
    FROM json_to_recordset(:rows) AS n (id uuid, state text, version bigint, error jsonb, quiesced_at timestamptz,
        quiesced_by text)
    WHERE c.id = n.id AND (c.closed_at IS NULL OR n.state IS NULL)
""")
_COUNT = text("""
    INSERT INTO project_counters AS k (project_id, slot, idle, working, waiting, paused, terminated,
        tasks_completed, tokens_used, cost_incurred)
    SELECT project_id, :slot, idle, working, waiting, paused, terminated, tasks, tokens, cost
    FROM json_to_recordset(:rows) AS n (project_id uuid, idle bigint, working bigint, waiting bigint, paused bigint,
        terminated bigint, tasks bigint, tokens numeric, cost numeric)
    ORDER BY project_id
    ON CONFLICT (project_id, slot) DO UPDATE SET
        idle = k.idle + excluded.idle, working = k.working + excluded.working, waiting = k.waiting + excluded.waiting,
        paused = k.paused + excluded.paused, terminated = k.terminated + excluded.terminated,
        tasks_completed = k.tasks_completed + excluded.tasks_completed,
        tokens_used = k.tokens_used + excluded.tokens_used, cost_incurred = k.cost_incurred + excluded.cost_incurred
""")


_UNTOLD = dict.fromkeys(("state", "version", "error", "quiesced_at", "quiesced_by"))
"""Of a command: what is None stays as it is."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a batch decided: agents as they were read and as they are now, how each command ended, the usage to be added
    by agent, and the database's time."""

    before: dict[UUID, Agent]
    after: dict[UUID, Agent]
    outcomes: Sequence[Outcome]
    sums: dict[UUID, Sums]
    at: datetime


def write(db: Connection, changes: Changes, slot: int, task_id: str | None) -> None:
    """Write down a batch. `slot` is this process's row in each project's counters.

    Raises WorldChanged when a locked row is not as it was read.
    """
    writes: list[tuple[TextClause, list[dict[str, Any]], dict[str, Any]]] = [
        (_WRITE_AGENTS, _agent_rows(changes), {}),
        (_WRITE_EVENTS, _event_rows(changes), {"at": changes.at}),
        (_CLOSE_COMMANDS, _command_rows(changes), {"at": changes.at, "task_id": task_id}),
        (_COUNT, _counter_rows(changes), {"slot": slot}),
    ]
    due = [(sql, rows, common) for sql, rows, common in writes if rows]
    done = together(db, *((sql, {"rows": document(rows)} | common) for sql, rows, common in due))
    if [cursor.rowcount for cursor in done] != [len(rows) for _, rows, _ in due]:
        raise WorldChanged("not every row was as it had been read")


def _agent_rows(changes: Changes) -> list[dict[str, Any]]:
    before, sums = changes.before, changes.sums
    return [
        _agent_row(agent, before[id_].version, sums.get(id_, NO_SUMS))
        for id_, agent in changes.after.items()
        if agent != before[id_] or id_ in sums
    ]


def _agent_row(agent: Agent, read: int, sums: Sums) -> dict[str, Any]:
    row = agent._asdict()
    stop, quiesced_at, quiesced_by = row.pop("stage")
    return row | {
        "read": read,
        "hold_until": holds.earliest(agent.holds) if agent.holds else None,
        "stop": stop,
        "quiesced_at": quiesced_at,
        "quiesced_by": quiesced_by,
        "tasks": sums.tasks_completed,
        "tokens": sums.tokens_used,
        "cost": sums.cost_incurred,
    }


def _event_rows(changes: Changes) -> list[dict[str, Any]]:
    return [
        {
            "agent_id": o.command.agent_id,
            "version": o.version,
            "project_id": changes.after[o.command.agent_id].project_id,
            "command_id": o.command.id,
            "verb": o.event.verb.value,
            "before": o.event.before,
            "after": o.event.after,
            "changes": o.event.changes,
            "actor_type": o.command.actor_type,
            "actor_id": o.command.actor_id,
            "reason": o.command.reason,
        }
        for o in changes.outcomes
        if o.event is not None
    ]


def _command_rows(changes: Changes) -> list[dict[str, Any]]:
    rows: dict[UUID, dict[str, Any]] = {}
    for o in changes.outcomes:
        rows[o.command.id] = _UNTOLD | {"state": o.state.value, "version": o.version, "error": o.error}
        for id_ in o.quiesced:
            still = {"quiesced_at": changes.at, "quiesced_by": o.stage.quiesced_by}
            rows[id_] = rows.get(id_, _UNTOLD) | still
    return [{"id": id_, **row} for id_, row in rows.items()]


def _counter_rows(changes: Changes) -> list[dict[str, Any]]:
    deltas: dict[UUID, dict[str, Any]] = defaultdict(_no_delta)
    for id_, agent in changes.after.items():
        _add(deltas, changes.before[id_], agent, changes.sums.get(id_, NO_SUMS))
    return [{"project_id": id_, **delta} for id_, delta in deltas.items()]


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
