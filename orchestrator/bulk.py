"""Commands in bulk, as a list: what is wrong with one is said of it alone, the others are accepted together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text
from uuid_utils.compat import uuid7

from orchestrator import turns
from orchestrator.accept import born_with, name_taken, why_no_spawn
from orchestrator.errors import Invalid, Problem, Violation, no_agent
from orchestrator.fences import fencing
from orchestrator.fields import parse_uuid
from orchestrator.keys import Caller
from orchestrator.letters import Letter, read
from orchestrator.lifecycle import Verb
from orchestrator.orders import Pause, Spawn
from orchestrator.rows import columns, jsonb


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a list, item by item: each with `index`, `command_id`, `agent_id` and `error`; ids as text."""

    batch_id: str
    accepted: int
    refused: int
    items: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class World:
    """What the items are judged by."""

    project: Row[Any]
    now: datetime
    agents: set[UUID]
    types: dict[UUID, Row[Any]]
    names: dict[str, UUID]
    """The names that are asked for as unique ones and are taken, by which agent."""


# Locked, so that what is judged here still holds at the commit.
_PROJECT = text("SELECT *, clock_timestamp() AS now FROM projects WHERE id = :project FOR SHARE")
_TYPES = text("SELECT * FROM agent_types WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR SHARE")
_AGENTS = text("SELECT id FROM agents WHERE id = ANY(CAST(:ids AS uuid[])) AND project_id = :project")
_RESERVE_NAMES = text("""
    SELECT pg_advisory_xact_lock(hashtextextended(CAST(:project AS text) || '/' || wanted.name, 0))
    FROM (SELECT name FROM unnest(CAST(:names AS text[])) AS given (name) ORDER BY name) wanted
""")
_NAMESAKES = text("""
    SELECT a.name, a.id FROM agents a
    WHERE a.project_id = :project AND a.name = ANY(CAST(:names AS text[])) AND a.status IS DISTINCT FROM 'terminated'
        AND (a.status IS NOT NULL
            OR EXISTS (SELECT FROM commands c WHERE c.agent_id = a.id AND c.state = 'queued' AND c.verb = 'spawn'))
""")

_ACCEPT = text(f"""
    WITH {turns.FIRST_TURN}, command AS (
        INSERT INTO commands (id, project_id, agent_id, batch_id, lane, turn, verb, payload, reason, actor_id)
        SELECT g.id, :project, g.agent_id, :batch, {turns.BULK}, first.turn + (g.place - 1) / {turns.PER_TURN}, g.verb,
            g.payload, g.reason, :user
        FROM first CROSS JOIN unnest(CAST(:id AS uuid[]), CAST(:agent_id AS uuid[]), CAST(:verb AS text[]),
            CAST(:payload AS jsonb[]), CAST(:reason AS text[]))
            WITH ORDINALITY AS g (id, agent_id, verb, payload, reason, place)
        ORDER BY g.place
        RETURNING seq
    )
    INSERT INTO batches (id, project_id, actor_id, total, end_turn, first_seq, last_seq)
    SELECT :batch, :project, :user, :total, first.turn + :total / {turns.PER_TURN}, sent.first, sent.last
    FROM first CROSS JOIN (SELECT min(seq) AS first, max(seq) AS last FROM command) sent
""")
_UNBORN = text("""
    INSERT INTO agents (id, project_id, agent_type_id, name, current_task, short_term_memory, long_term_memory_ref,
        session_id)
    SELECT agent_id, :project, agent_type_id, name, current_task, short_term_memory, long_term_memory_ref, session_id
    FROM unnest(CAST(:agent_id AS uuid[]), CAST(:agent_type_id AS uuid[]), CAST(:name AS text[]),
        CAST(:current_task AS text[]), CAST(:short_term_memory AS jsonb[]), CAST(:long_term_memory_ref AS text[]),
        CAST(:session_id AS text[]))
        AS g (agent_id, agent_type_id, name, current_task, short_term_memory, long_term_memory_ref, session_id)
""")
_STOPPED = (
    "(SELECT agent_id, CAST(:project AS uuid) AS project_id FROM unnest(CAST(:stopped AS uuid[])) AS s (agent_id)) s"
)
_FENCE = text(f"WITH {fencing(_STOPPED)} SELECT count(*) FROM fence")


def accept_list(db: Connection, caller: Caller, project_id: UUID, items: Sequence[Any]) -> Receipt:
    """Accept the items that can be, in order, and say of each of the others what is wrong with it.

    The caller has been let into the project. The answer has ids as text, so that it can be kept.
    """
    letters, refused = read(items)
    turns.wait_for(db, project_id)
    world = _look(db, project_id, letters)
    accepted = []
    for letter in letters:
        problem = _judge(letter, world)
        if problem is None:
            accepted.append(letter)
        else:
            refused[letter.index] = problem
    batch_id = uuid7()
    _write(db, caller, project_id, batch_id, accepted)
    return _receipt(batch_id, accepted, refused, items)


def _look(db: Connection, project_id: UUID, letters: Sequence[Letter]) -> World:
    place = {"project": project_id}
    spawns = [letter.order for letter in letters if isinstance(letter.order, Spawn)]
    others = [letter.agent_id for letter in letters if letter.order.verb is not Verb.SPAWN]
    project = db.execute(_PROJECT, place).one()
    types = db.execute(_TYPES, {"ids": list({order.agent_type_id for order in spawns})}).all() if spawns else []
    names = {order.name for order in spawns if order.unique_name}
    return World(
        project,
        project.now,
        set(db.execute(_AGENTS, place | {"ids": others}).scalars()) if others else set(),
        {row.id: row for row in types},
        _taken(db, project_id, names) if names else {},
    )


def _taken(db: Connection, project_id: UUID, names: Iterable[str]) -> dict[str, UUID]:
    """Let one request at a time look for each of these names; which are taken, by whom."""
    wanted = {"project": project_id, "names": list(names)}
    db.execute(_RESERVE_NAMES, wanted)
    return {row.name: row.id for row in db.execute(_NAMESAKES, wanted)}


def _judge(letter: Letter, world: World) -> Problem | None:
    order = letter.order
    if isinstance(order, Spawn):
        return _judge_spawn(letter.agent_id, order, world)
    if letter.agent_id not in world.agents:
        return no_agent(letter.agent_id)
    if isinstance(order, Pause) and order.until is not None and order.until <= world.now:
        return Invalid(Violation("must lie in the future", "until"))
    return None


def _judge_spawn(agent_id: UUID, order: Spawn, world: World) -> Problem | None:
    problem = why_no_spawn(world.project, world.types.get(order.agent_type_id), order)
    if problem is not None or not order.unique_name:
        return problem
    if order.name in world.names:
        return name_taken(world.names[order.name], order)
    world.names[order.name] = agent_id
    return None


def _write(db: Connection, caller: Caller, project_id: UUID, batch_id: UUID, letters: Sequence[Letter]) -> None:
    place = {"project": project_id}
    given: dict[str, Any] = {
        "id": [letter.command_id for letter in letters],
        "agent_id": [letter.agent_id for letter in letters],
        "verb": [letter.order.verb.value for letter in letters],
        "payload": [jsonb(letter.order.payload()) for letter in letters],
        "reason": [letter.order.reason for letter in letters],
    }
    db.execute(_ACCEPT, given | place | {"batch": batch_id, "user": caller.user_id, "total": len(letters)})
    unborn = [{"agent_id": x.agent_id} | born_with(x.order) for x in letters if isinstance(x.order, Spawn)]
    if unborn:
        db.execute(_UNBORN, columns(unborn) | place)
    stopped = list({letter.agent_id for letter in letters if letter.order.fences})
    if stopped:
        db.execute(_FENCE, place | {"stopped": stopped})


def _receipt(batch_id: UUID, accepted: Sequence[Letter], refused: dict[int, Problem], items: Sequence[Any]) -> Receipt:
    told: dict[int, dict[str, Any]] = {
        letter.index: {"command_id": str(letter.command_id), "agent_id": str(letter.agent_id), "error": None}
        for letter in accepted
    }
    for index, problem in refused.items():
        told[index] = {"command_id": None, "agent_id": _named(items[index]), "error": _error(problem)}
    return Receipt(
        str(batch_id), len(accepted), len(refused), [{"index": index} | told[index] for index in range(len(items))]
    )


def _named(item: Any) -> str | None:
    """The agent an item names, where it names one."""
    try:
        return str(parse_uuid(item["agent_id"]))
    except (TypeError, KeyError, ValueError):
        return None


def _error(problem: Problem) -> dict[str, Any]:
    return {"code": problem.code, "message": problem.detail, "field": problem.violations[0].field}
