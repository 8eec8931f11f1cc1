"""PostgreSQL's disk is full: nothing more is accepted, what was is kept, and all goes on once there is room again.

The disk is a small one of this test's own. Skipped where it may not mount one.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any, NamedTuple
from uuid import uuid4

import httpx2
import psycopg
import pytest

from orchestrator.embedded import DATABASE, ROOT_RUNS_AS
from tests.chaos.stack import OwnPostgres, Stack
from tests.faults import Failpoints
from tests.machine.small_disk import NoDisk, SmallDisk, small_disk
from tests.redis_server import OwnRedis
from tests.stage import busy, eventually

MEGABYTES = 96
FULL_SECONDS = 8
"""Long enough for a command to be tried as often as one may be before it is given up."""

USE_THE_LOG = "SELECT pg_logical_emit_message(false, 'full', repeat('x', 1 << 20)) FROM generate_series(1, 80)"
"""The log has some room in files made beforehand. This is more than that, and means nothing."""

CLIENTS = 3
WAITING = 5
"""So many commands of each wait, at least, when the disk becomes full: the worker tries them in vain."""


def _data(postgres: OwnPostgres, _: Path, disk: SmallDisk) -> None:
    """Tables and indexes are on the small disk: PostgreSQL lives, and refuses what needs room."""
    postgres.begin()
    with psycopg.connect(f"host={postgres.sockets} user=postgres dbname=postgres", autocommit=True) as db:
        db.execute(f"CREATE TABLESPACE small LOCATION '{disk.folder}'")
        db.execute(f"ALTER DATABASE {DATABASE} SET TABLESPACE small")


def _log(postgres: OwnPostgres, home: Path, disk: SmallDisk) -> None:
    """The write-ahead log is on the small disk: PostgreSQL ends itself, and cannot start again before there is room."""
    postgres.begin()
    postgres.stop()
    log = home / "postgres" / "pg_wal"
    shutil.copytree(log, disk.folder / "wal")
    for folder, _, files in os.walk(disk.folder):
        for name in (folder, *(Path(folder) / file for file in files)):
            shutil.chown(name, ROOT_RUNS_AS, ROOT_RUNS_AS)
    shutil.rmtree(log)
    log.symlink_to(disk.folder / "wal")
    postgres.begin()


class Place(NamedTuple):
    """What is there, and whether PostgreSQL lives on when the disk is full."""

    stack: Stack
    disk: SmallDisk
    survives: bool


@pytest.fixture(params=[_data, _log], ids=["data", "log"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """All of it, with a part of PostgreSQL on a small disk."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("a disk of this test's own needs root and the program `mount`")
    with TemporaryDirectory(prefix="orch-full-") as folder, ExitStack() as life:
        home = Path(folder)
        (home / "small").mkdir()
        try:
            disk = life.enter_context(small_disk(home / "small", MEGABYTES))
        except NoDisk as error:
            pytest.skip(f"this machine lets nobody mount a disk: {error}")
        postgres = OwnPostgres(home)
        life.callback(postgres.stop)
        shutil.chown(disk.folder, *[_account(postgres)] * 2)
        request.param(postgres, home, disk)
        redis = life.enter_context(OwnRedis.start(home))
        made = Stack(home / "orch", postgres, redis, Failpoints(home / "failpoints"))
        (home / "orch").mkdir()
        life.enter_context(made.to_postgres)
        life.enter_context(made.to_redis)
        made.begin()
        life.callback(made.stop)
        yield Place(made, disk, request.param is _data)


def _account(postgres: OwnPostgres) -> str:
    """Under which it runs; made with its first start."""
    postgres.begin()
    postgres.stop()
    return ROOT_RUNS_AS


@dataclass
class Client:
    """Somebody who sends one command after the other to one agent, and notes how each was answered."""

    http: httpx2.Client
    agent: str
    answers: list[httpx2.Response] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def send(self, wait: int = 0) -> httpx2.Response:
        """One command, large enough to need room."""
        began = time.monotonic()
        body = {"short_term_memory": {"seen": uuid4().hex * 500}}
        answer = self.http.patch(self.agent, json=body, headers={"Prefer": f"wait={wait}"} if wait else {})
        self.seconds.append(time.monotonic() - began)
        self.answers.append(answer)
        return answer

    @property
    def accepted(self) -> list[str]:
        """Of which it was told that they are taken."""
        return [answer.json()["id"] for answer in self.answers if answer.status_code == 202]

    @property
    def refused(self) -> list[httpx2.Response]:
        """Anything else."""
        return [answer for answer in self.answers if answer.status_code not in (200, 202)]


@pytest.fixture
def clients(place: Place) -> Iterator[list[Client]]:
    """Each with an agent."""
    stack = place.stack
    with ExitStack() as life:
        made = []
        for _ in range(CLIENTS):
            given: dict[str, Any] = {"headers": {"Authorization": f"Bearer {stack.key}"}, "timeout": 20}
            http = life.enter_context(httpx2.Client(base_url=f"http://{stack.address}/api/v1", **given))
            made.append(Client(http, _agent(http)))
        yield made


def _agent(http: httpx2.Client) -> str:
    project = http.post("/projects", json={"name": f"Full {uuid4().hex[:8]}"}).json()["id"]
    kind = http.post("/agent-types", json={"name": f"Simulated {uuid4().hex[:8]}"}).json()["id"]
    body = {"agent_type_id": kind, "name": "scout"}
    made = http.post(f"/projects/{project}/agents", json=body, headers={"Prefer": "wait=10"})
    assert made.status_code == 201, made.text
    return f"/projects/{project}/agents/{made.json()['id']}"


def test_with_postgresqls_disk_full_nothing_accepted_is_lost_and_all_goes_on_when_there_is_room(
    place: Place, clients: list[Client]
) -> None:
    stack, disk, survives = place

    with _at_work(clients):
        with suppress(psycopg.OperationalError), stack.postgres.connected() as db, db.transaction():
            db.execute("SELECT 1 FROM agents FOR NO KEY UPDATE")  # so that commands wait until the disk is full
            eventually(lambda: all(len(client.accepted) > WAITING for client in clients), 20)
            disk.fill()
            if not survives:
                db.execute(USE_THE_LOG)
            eventually(lambda: all(client.refused for client in clients), 60)
        eventually(lambda: all(client.refused for client in clients), 60)
        time.sleep(FULL_SECONDS)
        assert disk.is_full
        assert stack.postgres.lives is survives
        disk.free()
        if not survives:  # as a supervisor does
            stack.postgres.begin_again()
        told = [len(client.answers) for client in clients]
        eventually(lambda: all(client.answers[n:] for client, n in zip(clients, told, strict=True)), 20)

    for client in clients:
        eventually(lambda c=client: c.send(wait=5).status_code == 200, 30)  # type: ignore[misc]
        assert {answer.status_code for answer in client.refused} == {503}, [one.text for one in client.refused]
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in client.refused)
        assert max(client.seconds) < busy(5)
        states = {_state(client, command) for command in client.accepted}
        assert states == {"applied"}, "nothing is lost, and no command is given up for what the disk has done"
    assert not [one for one in clients[0].http.get("/verify").json()["invariants"] if one["violations"]]


class _at_work:  # noqa: N801  # it reads as a sentence
    """Clients send commands inside the block."""

    def __init__(self, clients: list[Client]) -> None:
        self._done = Event()
        self._threads = [Thread(target=self._work, args=(client.send,)) for client in clients]

    def _work(self, send: Callable[[], object]) -> None:
        while not self._done.wait(0.05):
            send()

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()


def _state(client: Client, command: str) -> str:
    path = client.agent.partition("/agents/")[0]
    found: str = client.http.get(f"{path}/commands/{command}").json()["state"]
    return found
