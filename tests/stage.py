"""What tests act with: the API as one caller sees it, a project to act in, a worker process, and waiting for facts."""

import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Self
from uuid import UUID, uuid4

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Connection, event, text
from werkzeug.test import TestResponse

from orchestrator import claims, verify
from orchestrator import drain as drains
from orchestrator.db import Guard, begin, engine
from orchestrator.drain import Batch, Drainer
from tests import nursery

ROOT = Path(__file__).parent.parent
WAIT = {"Prefer": "wait=10"}

EXTRA = {"command_id", "agent_id", "current_status", "allowed", "held_by", "directive", "reason", "version"}
"""Members that a problem may have beside those of every problem."""


def busy(seconds: float) -> float:
    """So many seconds of a machine that has nothing else to do: more where more programs want its processors than it
    has of them, as all takes longer then."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def eventually(fact: Callable[[], Any], seconds: float = 10) -> Any:
    """What `fact` returns as soon as it is true; fails after so many seconds of a machine that is not busy. Looks less
    often the longer it takes: others want the processor that each look takes."""
    began = time.monotonic()
    while not (found := fact()):
        waited = time.monotonic() - began
        assert waited < busy(seconds), f"not within {seconds} s: {getattr(fact, '__name__', fact)}"
        time.sleep(min(max(0.01, waited / 20), 0.05))
    return found


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def has_ipv6() -> bool:
    """Whether this machine can listen on ::1."""
    with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


def drain(limit: int = 500, mailbox: int = drains.MAILBOX) -> Batch:
    """One batch, as a worker does it, in this process."""
    with begin(Guard.DRAIN) as db, pytest.MonkeyPatch.context() as patch:
        patch.setattr(drains, "MAILBOX", mailbox)
        return Drainer(slot=7, task_id="a-task").drain(db, claims.claim(db, limit))


def applied(batch: Batch) -> int:
    """How many commands it applied."""
    return sum(outcome.state == "applied" for outcome in batch.outcomes)


def settle() -> None:
    """Batch after batch in this process, until nothing waits."""
    while not drain().empty:
        pass


def blocked() -> int:
    """How many statements wait for another's lock, in this database."""
    waiting = """SELECT 1 FROM pg_stat_activity
        WHERE datname = current_database() AND state = 'active' AND cardinality(pg_blocking_pids(pid)) > 0"""
    return len(sql(waiting))


@contextmanager
def held(agent_id: str) -> Iterator[None]:
    """No worker gets at the agent inside the block."""
    with begin(Guard.TOOL) as db:
        run(db, "SELECT 1 FROM agents WHERE id = :id FOR UPDATE", id=agent_id)
        yield


@contextmanager
def hurried(milliseconds: int) -> Iterator[None]:
    """Inside the block the database ends a drain's transaction after so long."""

    def hurry(connection: Any, _: Any) -> None:
        connection.execute(f"SET transaction_timeout = '{milliseconds}ms'")
        connection.commit()

    drains = engine(Guard.DRAIN)
    drains.dispose()
    event.listen(drains, "connect", hurry)
    yield
    event.remove(drains, "connect", hurry)
    drains.dispose()


@contextmanager
def statements(guard: Guard = Guard.DOOR) -> Iterator[list[str]]:
    """What one of this process's engines has the server do inside the block, as the server names it: `["BEGIN",
    "INSERT 0 1", "COMMIT"]`. Complete once the block has ended; read from the wire, so that nothing is overlooked."""
    done: list[str] = []

    with TemporaryFile("w+") as wire:

        def trace(connection: Any, *_: Any) -> None:
            connection.pgconn.trace(wire.fileno())

        def stop(connection: Any, *_: Any) -> None:
            connection.pgconn.untrace()

        event.listen(engine(guard), "checkout", trace)
        event.listen(engine(guard), "checkin", stop)
        try:
            yield done
        finally:
            event.remove(engine(guard), "checkout", trace)
            event.remove(engine(guard), "checkin", stop)
        wire.seek(0)
        done += re.findall(r'\tCommandComplete\t "(.+)"', wire.read())


def is_problem(answer: Any, status: int, code: str | None = None) -> bool:
    """Whether an answer is this problem, in exactly the contract's envelope (protocol, 5)."""
    said = answer.json or {}
    entries = said.get("errors") or [{}]
    members = {"type", "title", "status", "detail", "instance", "request_id", "success", "errors"}
    members -= {"detail"} if status == 500 else set()
    return bool(
        answer.status_code == said.get("status") == status
        and answer.mimetype == "application/problem+json"
        and set(said) - EXTRA == members
        and said["success"] is False
        and said["request_id"] == answer.headers["X-Request-ID"]
        and all(set(entry) == {"code", "message", "field"} and entry["message"] for entry in entries)
        and (code is None or {entry["code"] for entry in entries} == {code})
    )


def fields(answer: Any) -> list[str | None]:
    """The fields an answer complains about, in order."""
    return [entry["field"] for entry in answer.json["errors"]]


def violations() -> dict[str, int]:
    """The invariants that do not hold."""
    with begin(Guard.TOOL) as db:
        return {found.name: found.violations for found in verify.check(db) if found.violations}


def sql(statement: str, **values: Any) -> list[Any]:
    """The rows of a statement, in a transaction of its own."""
    with begin(Guard.TOOL) as db:
        return run(db, statement, **values)


def run(db: Connection, statement: str, **values: Any) -> list[Any]:
    """The rows of a statement."""
    result = db.execute(text(statement), values)
    return list(result.all()) if result.returns_rows else []


def multiply(agent_id: str, more: int) -> None:
    """Queue the births of so many agents like this one, past the door, which would take its time."""
    sql(_MORE_AGENTS, agent=agent_id, more=more)


_MORE_AGENTS = """
    WITH more AS (
        INSERT INTO agents (id, project_id, agent_type_id, name)
        SELECT gen_random_uuid(), project_id, agent_type_id, name
        FROM agents CROSS JOIN generate_series(1, :more) WHERE id = :agent
        RETURNING id, project_id
    )
    INSERT INTO commands (id, project_id, agent_id, verb, payload, actor_id)
    SELECT gen_random_uuid(), more.project_id, more.id, 'spawn', c.payload, c.actor_id
    FROM more CROSS JOIN commands c WHERE c.agent_id = :agent AND c.verb = 'spawn'
"""


def peers(agent_id: str, more: int) -> None:
    """So many agents like this one, with all that has happened to it: as if each had been drained, which for thousands
    takes seconds. Its leases and its usage they have not."""
    sql(_PEERS, agent=agent_id, more=more)


_PEERS = """
    WITH peers AS MATERIALIZED (
        SELECT gen_random_uuid() AS id FROM generate_series(1, :more)
    ), born AS (
        INSERT INTO agents (id, project_id, agent_type_id, name, status, version, last_activity_at, updated_at)
        SELECT p.id, project_id, agent_type_id, name, status, version, last_activity_at, updated_at
        FROM peers p CROSS JOIN agents a WHERE a.id = :agent
    ), past AS MATERIALIZED (
        SELECT gen_random_uuid() AS command_id, p.id AS agent_id, c.id AS model,
            CASE c.actor_id WHEN :agent THEN p.id ELSE c.actor_id END AS actor_id
        FROM peers p CROSS JOIN commands c WHERE c.agent_id = :agent
    ), done AS (
        INSERT INTO commands (id, project_id, agent_id, verb, payload, state, actor_type, actor_id, epoch, version,
            task_id, created_at, closed_at)
        SELECT p.command_id, project_id, p.agent_id, verb, payload, state, actor_type, p.actor_id, epoch, version,
            task_id, created_at, closed_at
        FROM past p JOIN commands c ON c.id = p.model ORDER BY c.seq
    ), told AS (
        INSERT INTO events (agent_id, version, project_id, command_id, verb, before, after, changes, actor_type,
            actor_id, at)
        SELECT p.agent_id, version, project_id, p.command_id, verb, before, after, changes, actor_type, p.actor_id, at
        FROM past p JOIN events e ON e.command_id = p.model
    )
    INSERT INTO project_counters AS k (project_id, slot, idle, working)
    SELECT project_id, 7, :more * (status = 'idle')::int, :more * (status = 'working')::int
    FROM agents WHERE id = :agent AND status IN ('idle', 'working')
    ON CONFLICT (project_id, slot) DO UPDATE
        SET idle = k.idle + excluded.idle, working = k.working + excluded.working
"""


@dataclass(frozen=True)
class Api:
    """The API as one caller sees it. A path that does not begin with a slash is below /api/v1."""

    client: FlaskClient
    key: str | None

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> TestResponse:
        """One request; header names are written with underscores."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.key is not None:
            given.setdefault("Authorization", f"Bearer {self.key}")
        url = path if path.startswith("/") else f"/api/v1/{path}"
        return self.client.open(url, method=method, json=body, headers=given)

    def get(self, path: str, **headers: str) -> TestResponse:
        """GET."""
        return self("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> TestResponse:
        """POST."""
        return self("POST", path, body, **headers)

    def patch(self, path: str, body: Any = None, **headers: str) -> TestResponse:
        """PATCH."""
        return self("PATCH", path, body, **headers)

    def delete(self, path: str, body: Any = None, **headers: str) -> TestResponse:
        """DELETE."""
        return self("DELETE", path, body, **headers)

    def user(self, **more: Any) -> "Api":
        """A new user's view of the same API; this caller must be a superuser."""
        made = self.post("users", {"email": f"{uuid4().hex}@example.org"} | more)
        key = self.post("keys", {"name": "test", "user_id": made.json["id"]})  # type: ignore[index]
        return Api(self.client, key.json["key"])  # type: ignore[index]


@dataclass(frozen=True)
class Project:
    """A project to act in, with one agent type."""

    api: Api
    id: str
    type_id: str

    @classmethod
    def make(cls, api: Api, owner: Api | None = None) -> Self:
        """A new project; `api` must be a superuser's."""
        made = (owner or api).post("projects", {"name": f"Project {uuid4().hex[:8]}"})
        kind = api.post("agent-types", {"name": f"Type {uuid4().hex[:8]}"})
        assert (made.status_code, kind.status_code) == (201, 201), (made.json, kind.json)
        return cls(owner or api, made.json["id"], kind.json["id"])  # type: ignore[index]

    @property
    def path(self) -> str:
        """Its address."""
        return f"projects/{self.id}"

    def agent(self, agent_id: str | UUID) -> str:
        """The address of one of its agents."""
        return f"{self.path}/agents/{agent_id}"

    def spawn(self, wait: bool = True, **body: Any) -> dict[str, Any]:
        """A new agent as the API shows it; the command where it is not waited for."""
        wanted = {"agent_type_id": self.type_id, "name": "scout"} | body
        answer = self.api.post(f"{self.path}/agents", wanted, **(WAIT if wait else {}))
        assert answer.status_code == (201 if wait else 202), answer.json
        return answer.json  # type: ignore[return-value]

    def born(self, **body: Any) -> str:
        """The id of a new agent in a project that nobody drains: drained here."""
        agent_id: str = self.spawn(wait=False, **body)["agent_id"]
        drain()
        return agent_id

    def send(self, agent_id: str, verb: str, **body: Any) -> dict[str, Any]:
        """A command for an agent, not waited for."""
        if verb == "update":
            answer = self.api.patch(self.agent(agent_id), body)
        elif verb == "terminate":
            answer = self.api.delete(self.agent(agent_id), body)
        else:
            answer = self.api.post(f"{self.agent(agent_id)}/{verb}", body)
        assert answer.status_code == 202, answer.json
        return answer.json  # type: ignore[return-value]

    def command(self, command_id: str, **headers: str) -> dict[str, Any]:
        """A command as it stands."""
        return self.api.get(f"{self.path}/commands/{command_id}", **headers).json  # type: ignore[return-value]

    def in_status(self, status: str, **body: Any) -> str:
        """The id of a new agent in this status."""
        agent_id: str = self.spawn(**body)["id"]
        ways = {"waiting": ["working", "waiting"], "idle": []}
        for step in ways.get(status, [status]):
            moved = self.api.patch(self.agent(agent_id), {"status": step}, **WAIT)
            assert moved.status_code == 200, moved.json
        return agent_id


@dataclass
class Worker:
    """A Celery worker as a process, with its children."""

    process: nursery.Started
    log: Path

    @classmethod
    @contextmanager
    def start(cls, log: Path, concurrency: int = 2, **environment: str) -> Iterator[Self]:
        """Start one; it ends with the block. It is up once it has applied something."""
        command = ["-A", "workers.app", "worker", "--without-gossip", "--without-mingle", "-E", "-l", "warning"]
        command += ["-Q", "commands,upkeep", "-c", str(concurrency), "-n", f"{uuid4().hex[:8]}@%h"]
        own = {"TMPDIR": str(log.parent)}  # one that is killed leaves a folder behind
        process = nursery.start("celery", command, log, own | environment)
        try:
            yield cls(process, log)
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait(timeout=5)
