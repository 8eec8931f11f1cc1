"""How a process becomes an agent: it finds or spawns it, and has its lease as soon as that can be had."""

import logging
import os
import time
from pathlib import Path
from threading import Event

import platformdirs

from orchestrator.sdk import fleet, world
from orchestrator.sdk.binding import pages
from orchestrator.sdk.calls import RETRIED, RETRIES
from orchestrator.sdk.commands import Commands
from orchestrator.sdk.connection import Connection
from orchestrator.sdk.documents import is_id
from orchestrator.sdk.errors import (
    ApiError,
    Conflict,
    ConnectionFailed,
    Held,
    LeaseHeld,
    NoServer,
    NotFound,
    OrchestratorError,
    RateLimited,
)
from orchestrator.sdk.place import Place
from orchestrator.sdk.pulse import STANDING_SECONDS
from orchestrator.sdk.shapes import Lease

log = logging.getLogger("orchestrator.sdk")

BIRTH_SECONDS = 30.0


def find_or_spawn(connection: Connection, project_id: str, name: str, kind: str | None) -> str:
    """The id of the living agent of this name, or of any that is named by its id.

    Raises OrchestratorError where there is none and no `kind` of agent is given.
    """
    if is_id(name):
        return name
    for agent in pages(connection, fleet.list_agents(project_id, q=name)):
        if agent.name == name and agent.status != "terminated":
            return agent.id
    if kind is None:
        raise OrchestratorError(f"there is no agent {name!r}; give its type to have it spawned")
    spawn = fleet.spawn(project_id, name, agent_type_id=_type_id(connection, kind), unique_name=True)
    try:
        command = connection.send(spawn)
    except Conflict as error:  # somebody else has just spawned it
        if "agent_id" not in error.problem:
            raise
        return str(error.problem["agent_id"])
    Commands(connection, project_id).wait(command, timeout=BIRTH_SECONDS)
    return command.agent_id


def _type_id(connection: Connection, name: str) -> str:
    for kind in pages(connection, world.list_types()):
        if name in (kind.slug, kind.id):
            return kind.id
    raise OrchestratorError(f"there is no agent type {name!r}")


def lease(place: Place, over: Event) -> Lease:
    """The lease, as soon as it can be had: a paused agent's when it is resumed, a lost process's when it is lost.

    An agent that is yet to be born is waited for as well. A server that is away is asked as often as by any call, and
    by a process that has begun to wait as long as it takes. Raises NotFound where none will be, Terminated, Conflict
    (archived), and OrchestratorError when it is `over` before, or no server answered.
    """
    began, waits, failures = time.monotonic(), False, 0
    while True:
        try:
            return place.lease()
        except (Held, LeaseHeld) as error:
            waits = True
            log.info("agent %s: no lease yet: %s", place.agent_id, error)
        except NotFound:
            waits = True
            is_late = time.monotonic() - began > place.ttl * 4 / 3 + BIRTH_SECONDS
            if is_late or not _may_be_born(place):
                raise
        except OrchestratorError as error:
            failures += 1
            if not _is_away(error) or (failures > RETRIES and not waits):
                raise
        if over.wait(STANDING_SECONDS):
            raise OrchestratorError("the agent is not wanted any more")


def _is_away(error: OrchestratorError) -> bool:
    """Whether it says nothing of the agent: there was no answer, or one that another attempt may change."""
    return isinstance(error, ConnectionFailed | NoServer) or (isinstance(error, ApiError) and error.status in RETRIED)


def _may_be_born(place: Place) -> bool:
    """Whether an agent that is not found may yet be: its spawn waits, or has just gone through."""
    spawns = fleet.list_commands(place.project_id, agent_id=place.agent_id, verb="spawn")
    try:
        return any(spawn.state in ("queued", "applied") for spawn in pages(place.connection, spawns))
    except RateLimited:
        return True  # it cannot be told now


def outbox_file(agent_id: str) -> Path:
    """Where its usage is kept until the server has it."""
    folder = os.environ.get("ORCH_OUTBOX") or Path(platformdirs.user_state_dir("orch")) / "outbox"
    return Path(folder) / f"{agent_id}.jsonl"
