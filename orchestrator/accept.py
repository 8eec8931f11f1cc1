"""From caller and order to a committed command row. It judges nothing that can still change; the drain does."""

from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Row, text
from uuid_utils.compat import uuid7

from orchestrator import access, idempotency
from orchestrator.errors import Conflict, Invalid, NotFound, Problem, Unavailable, Violation, no_agent
from orchestrator.fences import fencing
from orchestrator.idempotency import Once
from orchestrator.keys import Caller
from orchestrator.orders import Order, Spawn
from orchestrator.rows import jsonb
from orchestrator.states import ProjectStatus


@dataclass(frozen=True, slots=True)
class Accepted:
    """A command row; `replayed` when an earlier request with the same key made it."""

    command: Row[Any]
    replayed: bool = False


class Conditions(NamedTuple):
    """What must hold when a command is applied: the agent's version, the epoch of its lease."""

    precondition: int | None = None
    epoch: int | None = None


ALWAYS = Conditions()

# Each statement is built once, in two forms: with an Idempotency-Key the request row comes first, and whoever
# loses the race for it inserts nothing at all.
_CLAIM_KEY = """
    ours AS (
        INSERT INTO requests (user_id, key, fingerprint, command_id)
        SELECT :user, :key, :fingerprint, :id FROM place
        ON CONFLICT DO NOTHING RETURNING command_id
    ),"""

_COMMAND = """
    command AS (
        INSERT INTO commands (id, project_id, agent_id, verb, payload, reason, actor_id, precondition, epoch)
        SELECT :id, place.project_id, place.agent_id, :verb, :payload, :reason, :user, :precondition, :epoch
        FROM place{ours} RETURNING *
    )"""

_FENCE = "," + fencing("command")

_AGENT_PLACE = """
    WITH place AS (
        SELECT a.project_id, a.id AS agent_id FROM agents a JOIN projects p ON p.id = a.project_id
        WHERE a.id = :agent AND p.id = :project AND (:superuser OR p.owner_id = :user)
            AND coalesce(CAST(:until AS timestamptz) > now(), true)
    ),"""

_SPAWN_PLACE = """
    WITH place AS (
        SELECT p.id AS project_id, CAST(:agent AS uuid) AS agent_id, t.id AS agent_type_id
        FROM projects p CROSS JOIN agent_types t
        WHERE p.id = :project AND (:superuser OR p.owner_id = :user) AND p.status = 'active'
            AND t.id = :agent_type_id AND t.is_active
    ),"""

# The agent comes last: were it first, twenty parallel retries would leave twenty agents.
_UNBORN = """,
    unborn AS (
        INSERT INTO agents (id, project_id, agent_type_id, name, current_task, short_term_memory,
            long_term_memory_ref, session_id)
        SELECT command.agent_id, command.project_id, place.agent_type_id, :name, :current_task, :short_term_memory,
            :long_term_memory_ref, :session_id
        FROM command CROSS JOIN place
    )"""


def _statements(place: str, then: str = "") -> dict[bool, Any]:
    ending = f"{then} SELECT * FROM command"
    return {
        False: text(place + _COMMAND.format(ours="") + ending),
        True: text(place + _CLAIM_KEY + _COMMAND.format(ours=", ours") + ending),
    }


_ACCEPT = _statements(_AGENT_PLACE)
_ACCEPT_AND_FENCE = _statements(_AGENT_PLACE, _FENCE)
_SPAWN = _statements(_SPAWN_PLACE, _UNBORN)

_COMMAND_BY_ID = text("SELECT * FROM commands WHERE id = :id")
_TYPE = text("SELECT * FROM agent_types WHERE id = :agent_type_id")
_RESERVE_NAME = text("SELECT pg_advisory_xact_lock(hashtextextended(:project || '/' || :name, 0))")
_NAMESAKE = text("""
    SELECT a.id FROM agents a
    WHERE a.project_id = :project AND a.name = :name AND a.status IS DISTINCT FROM 'terminated'
        AND (a.status IS NOT NULL
            OR EXISTS (SELECT FROM commands c WHERE c.agent_id = a.id AND c.state = 'queued' AND c.verb = 'spawn'))
    LIMIT 1
""")
_IS_AGENT = text("SELECT 1 FROM agents WHERE id = :agent AND project_id = :project")
_LOCK_AGENT = text("SELECT 1 FROM agents WHERE id = :agent FOR NO KEY UPDATE")
_CANCEL = text("""
    UPDATE commands SET state = 'cancelled', closed_at = clock_timestamp()
    WHERE id = :id AND state = 'queued' RETURNING *
""")


def accept(
    db: Connection,
    caller: Caller,
    project_id: UUID,
    agent_id: UUID,
    order: Order,
    *,
    once: Once | None = None,
    conditions: Conditions = ALWAYS,
) -> Accepted:
    """One command for an agent that exists, in one statement. An immediate stop ends the agent's lease with it.

    Raises NotFound for a project or agent the caller cannot see, KeyReused when `once` belongs to another request,
    Invalid for a pause until a time that has passed.
    """
    values = _values(caller, project_id, agent_id, order, once) | conditions._asdict()
    statements = _ACCEPT_AND_FENCE if order.fences else _ACCEPT
    row = db.execute(statements[once is not None], values).one_or_none()
    if row is not None:
        return Accepted(row)
    access.enter(db, caller, project_id)
    if replayed := replay(db, caller, once):
        return replayed
    if db.execute(_IS_AGENT, {"agent": agent_id, "project": project_id}).one_or_none():
        raise Invalid(Violation("must lie in the future", "until"))
    raise no_agent(agent_id)


def spawn(db: Connection, caller: Caller, project_id: UUID, order: Spawn, *, once: Once | None = None) -> Accepted:
    """One spawn: command and unborn agent, in one statement.

    Raises NotFound (project, agent type), Conflict (archived project; name taken, where the order asks for
    a unique one), Invalid (inactive type, other project in the body), KeyReused.
    """
    if order.project_id not in (None, project_id):
        raise _other_project(project_id)
    if order.unique_name and (replayed := _reserve_name(db, caller, project_id, order, once)):
        return replayed
    values = _values(caller, project_id, uuid7(), order, once) | born_with(order) | ALWAYS._asdict()
    row = db.execute(_SPAWN[once is not None], values).one_or_none()
    if row is not None:
        return Accepted(row)
    project = access.enter(db, caller, project_id)
    if replayed := replay(db, caller, once):
        return replayed
    kind = db.execute(_TYPE, {"agent_type_id": order.agent_type_id}).one_or_none()
    raise why_no_spawn(project, kind, order) or Unavailable(retry_after=1)  # what stood against it may just be gone


def cancel(
    db: Connection, caller: Caller, project_id: UUID, command_id: UUID, once: Once | None = None
) -> tuple[Row[Any], bool]:
    """Close a queued command as cancelled; its row, and whether an earlier request with the same key did it.

    Locks the agent as the drain does: else a drain that has already read the command would apply what was answered
    as cancelled. Raises NotFound, Conflict when it is closed already, Unavailable when the agent stays locked.
    """
    command = access.command(db, caller, project_id, command_id)
    if command.actor_type == "system":
        raise Conflict(f"command {command_id} is the system's own and cannot be cancelled")
    if idempotency.claim(db, caller, once, command_id=command_id):
        return db.execute(_COMMAND_BY_ID, {"id": command_id}).one(), True  # read anew: we may have waited for it
    db.execute(_LOCK_AGENT, {"agent": command.agent_id})
    cancelled = db.execute(_CANCEL, {"id": command_id}).one_or_none()
    if cancelled is None:
        state = db.execute(_COMMAND_BY_ID, {"id": command_id}).one().state
        raise Conflict(f"command {command_id} is {state} already; only a queued one can be cancelled")
    return cancelled, False


def replay(db: Connection, caller: Caller, once: Once | None) -> Accepted | None:
    """The command an earlier request with this key made; None where the key is free. Raises KeyReused."""
    request = idempotency.earlier(db, caller, once)
    if request is None:
        return None
    return Accepted(db.execute(_COMMAND_BY_ID, {"id": request.command_id}).one(), replayed=True)


def _values(caller: Caller, project_id: UUID, agent_id: UUID, order: Order, once: Once | None) -> dict[str, Any]:
    payload = order.payload()
    return {
        "id": uuid7(),
        "user": caller.user_id,
        "superuser": caller.is_superuser,
        "project": project_id,
        "agent": agent_id,
        "verb": order.verb.value,
        "payload": jsonb(payload),
        "reason": order.reason,
        "until": payload.get("until"),
        "key": once and once.key,
        "fingerprint": once and once.fingerprint,
    }


def born_with(order: Spawn) -> dict[str, Any]:
    """The columns an unborn agent has from its spawn."""
    fields = ("name", "agent_type_id", "current_task", "long_term_memory_ref", "session_id")
    return {name: getattr(order, name) for name in fields} | {"short_term_memory": jsonb(order.short_term_memory or {})}


def _reserve_name(db: Connection, caller: Caller, project_id: UUID, order: Spawn, once: Once | None) -> Accepted | None:
    """Let one spawn at a time look for this name; the next one's look begins after this one's commit."""
    access.enter(db, caller, project_id)
    db.execute(_RESERVE_NAME, {"project": str(project_id), "name": order.name})
    if replayed := replay(db, caller, once):
        return replayed
    namesake = db.execute(_NAMESAKE, {"project": project_id, "name": order.name}).scalar_one_or_none()
    if namesake is not None:
        raise name_taken(namesake, order)
    return None


def why_no_spawn(project: Row[Any], kind: Row[Any] | None, order: Spawn) -> Problem | None:
    """What speaks against a spawn in this project, of this agent type; None where nothing does."""
    if order.project_id not in (None, project.id):
        return _other_project(project.id)
    if kind is None:
        return NotFound(f"there is no agent type {order.agent_type_id}", field="agent_type_id")
    if not kind.is_active:
        return Invalid(Violation(f"agent type {kind.name!r} is inactive", "agent_type_id"))
    if project.status == ProjectStatus.ARCHIVED:
        return Conflict(f"project {project.slug!r} is archived and takes no new agents")
    return None


def name_taken(by: UUID, order: Spawn) -> Conflict:
    """What is said to a spawn that asks for a name of its own where a live agent has it."""
    return Conflict(f"agent {by} has the name {order.name!r} already", field="name", agent_id=str(by))


def _other_project(project_id: UUID) -> Invalid:
    return Invalid(Violation(f"must equal the project in the address, {project_id}", "project_id"))
