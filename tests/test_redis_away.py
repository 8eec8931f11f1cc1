"""Redis wiped, stopped, lost and frozen under a running fleet: nothing that was accepted is lost, nobody waits long."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from uuid import uuid4

import httpx2
import pytest

from orchestrator.link import PATIENCE_SECONDS
from tests.redis_server import OwnRedis
from tests.stage import Api, Project, Worker, busy, eventually, sql, violations
from tests.wire import Gunicorn

COMMANDS = 500
CLIENTS = 10
LIMITS = '{"spawn": "off", "get": "off", "pause": "1000/minute"}'
"""A pause has its limit, and so asks Redis; it is more than all tests need together."""


@pytest.fixture(scope="module")
def working(apart: str, redis_apart: OwnRedis, home: Path) -> Iterator[Worker]:
    """The module's worker."""
    del apart, redis_apart
    with Worker.start(home / "worker-redis-away.log") as running:
        yield running


@pytest.fixture(scope="module")
def door(apart: str, redis_apart: OwnRedis, home: Path) -> Iterator[Gunicorn]:
    """The module's web process."""
    del apart, redis_apart
    with Gunicorn.start(home / "web-redis-away.log", ORCH_LIMITS=LIMITS) as web:
        yield web


@pytest.fixture
def fleet(admin: Api, working: Worker) -> Project:
    """A new project, whose worker is at work already."""
    del working
    project = Project.make(admin)
    project.spawn(wait=False)
    eventually(lambda: queued() == 0, 30)
    return project


@pytest.fixture
def http(fleet: Project, door: Gunicorn) -> httpx2.Client:
    """What speaks to the web process, which asks Redis: it has got over what was done to Redis before."""
    door.http.headers["Authorization"] = f"Bearer {fleet.api.key}"
    door.http.base_url = f"http://127.0.0.1:{door.port}/api/v1/"
    eventually(lambda: "RateLimit" in door.http.post(f"{fleet.agent(uuid4())}/pause").headers)
    return door.http


@pytest.fixture
def agent(fleet: Project, http: httpx2.Client) -> str:
    """The address of an idle agent."""
    wanted = {"agent_type_id": fleet.type_id, "name": "scout"}
    return fleet.agent(http.post(f"{fleet.path}/agents", json=wanted, headers={"Prefer": "wait=10"}).json()["id"])


def queued() -> int:
    """How many commands wait."""
    return int(sql("SELECT count(*) AS n FROM commands WHERE state = 'queued'")[0].n)


def paused(http: httpx2.Client, agent: str) -> bool:
    """Whether the agent is, for those who look."""
    answer = http.get(agent)
    assert answer.status_code == 200, answer.text
    return bool(answer.json()["status"] == "paused")


def pause_at_once(http: httpx2.Client, agent: str) -> None:
    """The door takes the command, and within a second."""
    began = time.monotonic()
    answer = http.post(f"{agent}/pause")
    assert time.monotonic() - began < busy(1)
    assert answer.status_code == 202, answer.text


@contextmanager
def wiped_again_and_again(redis: OwnRedis) -> Iterator[list[float]]:
    """Redis loses all it knows, every 50 ms; when it did."""
    done, times = Event(), list[float]()

    def wipe() -> None:
        while not done.wait(0.05):
            redis.client.flushall()
            times.append(time.monotonic())

    with ThreadPoolExecutor(1) as pool:
        wiping = pool.submit(wipe)
        try:
            yield times
        finally:
            done.set()
        wiping.result()


def test_wiped_under_five_hundred_concurrent_commands(
    fleet: Project, http: httpx2.Client, redis_apart: OwnRedis
) -> None:
    wanted = {"agent_type_id": fleet.type_id, "name": "scout"}

    def one(_: int) -> int:
        return int(http.post(f"{fleet.path}/agents", json=wanted).status_code)

    with wiped_again_and_again(redis_apart) as wipes, ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(one, range(COMMANDS)))
    eventually(lambda: queued() == 0, 10)

    assert answers == [202] * COMMANDS
    assert len(wipes) >= 5
    born = "SELECT count(*) AS n FROM agents WHERE status = 'idle' AND project_id = :id"
    assert sql(born, id=fleet.id)[0].n == COMMANDS + 1
    assert violations() == {}


def test_stopped_and_started_again_with_what_it_held_and_without(
    http: httpx2.Client, agent: str, redis_apart: OwnRedis
) -> None:
    for kept in (True, False):
        redis_apart.stop()
        for _ in range(3):
            pause_at_once(http, agent)
        if not kept:
            redis_apart.lose()
        assert not paused(http, agent)

        redis_apart.begin()

        eventually(lambda: paused(http, agent), 10)
        assert violations() == {}
        http.post(f"{agent}/resume")
        eventually(lambda: not paused(http, agent), 10)


def test_frozen_it_makes_only_the_first_request_wait(http: httpx2.Client, agent: str, redis_apart: OwnRedis) -> None:
    took = []

    with redis_apart.frozen():
        for _ in range(5):
            began = time.monotonic()
            pause_at_once(http, agent)
            took.append(time.monotonic() - began)

    first, *others = took
    assert first >= PATIENCE_SECONDS, "Redis was asked"
    assert sum(others) < len(others) * PATIENCE_SECONDS, f"each of them waited again: {others}"
    eventually(lambda: paused(http, agent), 10)
    assert violations() == {}


def test_full(http: httpx2.Client, agent: str, redis_apart: OwnRedis, working: Worker) -> None:
    working.process.send_signal(signal.SIGSTOP)
    pause_at_once(http, agent)
    time.sleep(0.5)  # the bell has been handed to it, and is not noted yet as being in its hands
    redis_apart.client.config_set("maxmemory", 1)
    working.process.send_signal(signal.SIGCONT)
    time.sleep(2)
    pause_at_once(http, agent)
    redis_apart.client.config_set("maxmemory", 0)

    eventually(lambda: paused(http, agent), 10)
    assert working.process.poll() is None
    assert "Unrecoverable" not in working.log.read_text()
    assert violations() == {}
