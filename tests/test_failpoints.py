"""Whatever a process is at when it dies or fails: nothing is lost, and nothing is done twice."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest

from orchestrator.failpoints import Point
from tests.faults import Failpoints
from tests.redis_server import OwnRedis
from tests.stage import Api, Project, Worker, eventually, multiply, sql, violations
from tests.wire import Gunicorn
from workers import bell

AT_THE_DOOR = [Point.ACCEPTED, Point.FLAGGED]
AT_WORK = [Point.CLAIMED, Point.DECIDED, Point.WRITTEN, Point.COMMITTED, Point.DRAINED]

HEALED_SECONDS = 10


@pytest.fixture(scope="module")
def armory(home: Path) -> Failpoints:
    """The points at which the module's processes can be made to fail."""
    return Failpoints(home / "failpoints")


@pytest.fixture
def failpoints(armory: Failpoints) -> Iterator[Failpoints]:
    """The same, none of them armed any more after the test."""
    yield armory
    for point in Point:
        armory.disarm(point)


@pytest.fixture(scope="module")
def door(apart: str, redis_apart: OwnRedis, armory: Failpoints, home: Path) -> Iterator[Gunicorn]:
    """A web server whose process dies again and again, and is replaced."""
    del apart, redis_apart
    with Gunicorn.start(home / "web-failpoints.log", **armory.environment) as running:
        yield running


@pytest.fixture(scope="module")
def failing(apart: str, redis_apart: OwnRedis, armory: Failpoints, home: Path) -> Iterator[Worker]:
    """A worker whose only child dies again and again, and is replaced."""
    del apart, redis_apart
    with Worker.start(home / "worker-failpoints.log", 1, **armory.environment) as running:
        yield running


@pytest.fixture
def project(admin: Api, failing: Worker) -> Project:
    """A new project that nobody drains but that worker."""
    del failing
    return Project.make(admin)


def born(project: Project) -> str:
    """The id of a new agent, as soon as the worker has applied its birth, which it may have to start for."""
    agent_id: str = project.spawn(wait=False)["agent_id"]
    eventually(lambda: sql("SELECT 1 FROM agents WHERE id = :id AND status = 'idle'", id=agent_id), 30)
    return agent_id


def applied(command_id: str) -> bool:
    """Whether a command is applied."""
    return bool(sql("SELECT 1 FROM commands WHERE id = :id AND state = 'applied'", id=command_id))


def test_whatever_a_worker_is_at_when_it_fails_each_command_is_applied_once(
    project: Project, failpoints: Failpoints
) -> None:
    agent = born(project)
    sent = []

    for do, point in product(["kill", "raise"], AT_WORK):
        failpoints.arm(point, do=do, once=True)
        sent.append(project.send(agent, "update", current_task=point)["id"])
        eventually(lambda: not failpoints.armed(point), 20)  # noqa: B023  # called at once
        eventually(lambda: applied(sent[-1]), HEALED_SECONDS)

    events = sql("SELECT command_id, version FROM events WHERE agent_id = :id AND version > 1 ORDER BY 2", id=agent)
    assert [str(event.command_id) for event in events] == sent
    assert violations() == {}


def test_what_a_door_has_accepted_is_applied_though_it_dies_before_it_has_rung(
    project: Project, failpoints: Failpoints, door: Gunicorn, redis_apart: OwnRedis
) -> None:
    agents = {point: born(project) for point in AT_THE_DOOR}
    eventually(lambda: door("GET", "/readyz", None).status_code == 200, 20)

    for point, agent in agents.items():
        eventually(lambda: not redis_apart.client.exists(bell.FLAG))  # or there would be no bell to raise it for
        failpoints.arm(point, do="kill", once=True)
        asked = _until_answered(door, "POST", f"{project.agent(agent)}/pause", project.api.key, uuid4().hex)
        eventually(lambda: not failpoints.armed(point))  # noqa: B023  # called at once
        eventually(lambda: applied(asked), HEALED_SECONDS)  # noqa: B023

    for agent in agents.values():
        assert len(sql("SELECT 1 FROM commands WHERE agent_id = :id AND verb = 'pause'", id=agent)) == 1
    assert violations() == {}


def test_a_lease_of_which_nobody_heard_is_replaced_by_the_next(
    project: Project, failpoints: Failpoints, door: Gunicorn
) -> None:
    agent = born(project)
    order = {"holder": "scout", "ttl": 30}
    failpoints.arm(Point.GRANTED, do="kill", once=True)

    with pytest.raises(httpx2.TransportError):
        door("POST", f"{project.agent(agent)}/lease", project.api.key, order)
    assert not failpoints.armed(Point.GRANTED)
    answer = door("POST", f"{project.agent(agent)}/lease", project.api.key, order)

    assert (answer.status_code, answer.json()["epoch"]) == (201, 2)
    assert violations() == {}


def test_a_sweep_that_fails_is_made_up_for_by_the_next(project: Project, failpoints: Failpoints) -> None:
    agent = born(project)
    failpoints.arm(Point.SWEPT, do="raise", once=True)

    def swept() -> bool:
        multiply(agent, 1)  # of which no bell tells; but a drain that is under way may take it
        with suppress(AssertionError):
            eventually(lambda: not failpoints.armed(Point.SWEPT), 3)
        return not failpoints.armed(Point.SWEPT)

    eventually(swept, 30)
    eventually(lambda: not sql("SELECT 1 FROM commands WHERE state = 'queued'"), HEALED_SECONDS)

    assert violations() == {}


def test_every_point_is_met_somewhere_above() -> None:
    assert {*AT_THE_DOOR, *AT_WORK, Point.GRANTED, Point.SWEPT} == set(Point)


def _until_answered(web: Gunicorn, method: str, path: str, key: str | None, once: str) -> str:
    """Ask again, with the same key, until there is an answer; the id of the command."""

    def ask() -> str:
        try:
            return str(web(method, path, key, Idempotency_Key=once).json()["id"])
        except httpx2.TransportError:
            return ""

    return eventually(ask, HEALED_SECONDS)


def test_a_point_that_is_not_armed_does_nothing_and_one_for_others_only_theirs(
    project: Project, failpoints: Failpoints
) -> None:
    deadly, other = born(project), born(project)
    failpoints.arm(Point.CLAIMED, do="raise", only=[deadly])

    command = project.send(other, "pause")["id"]

    eventually(lambda: applied(command), HEALED_SECONDS)
    assert failpoints.armed(Point.CLAIMED)
