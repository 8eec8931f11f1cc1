"""Many at once, through two web processes and a worker, as in production: nothing is lost, doubled or reordered."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import pytest
from flask_openapi3 import OpenAPI

from tests.redis_server import OwnRedis
from tests.stage import Api, Project, Worker, eventually, sql, violations
from tests.wire import Gunicorn

COMMANDS = 1_000
VERBS = {"pause": 40, "resume": 40, "terminate": 1}
"""What is sent, and how often."""

AGENTS = 50


@dataclass(frozen=True)
class Fleet:
    """A project, and the doors to it."""

    doors: tuple[Gunicorn, Gunicorn]
    project: Project

    def send(self, door: int, agent_id: str, verb: str) -> Any:
        """The answer to a command that went through this door."""
        address, key = self.project.agent(agent_id), self.project.api.key
        if verb == "terminate":
            return self.doors[door]("DELETE", address, key)
        return self.doors[door]("POST", f"{address}/{verb}", key)

    def born(self, count: int) -> list[str]:
        """The ids of so many new agents."""
        agents = [self.project.spawn(wait=False)["agent_id"] for _ in range(count)]
        self.rest()
        return agents

    def rest(self) -> None:
        """Wait until nothing is queued."""
        eventually(lambda: not sql("SELECT 1 FROM commands WHERE state = 'queued' LIMIT 1"), 60)


@pytest.fixture(scope="module")
def doors(apart: str, home: Path) -> Iterator[tuple[Gunicorn, Gunicorn]]:
    """Two web processes, and a worker that drains what they accept."""
    with ExitStack() as stack:
        stack.enter_context(stack.enter_context(OwnRedis.start(home / "races")).ours())
        first, second = (stack.enter_context(Gunicorn.start(home / f"web-races-{n}.log")) for n in range(2))
        stack.enter_context(Worker.start(home / "worker-races.log"))
        yield first, second


@pytest.fixture
def fleet(doors: tuple[Gunicorn, Gunicorn], app: OpenAPI, template: tuple[str, str]) -> Fleet:
    """A project of the test's own."""
    return Fleet(doors, Project.make(Api(app.test_client(), template[1])))


def history(project: Project) -> dict[str, list[Any]]:
    """The events of each of the project's agents, in order of version."""
    told = defaultdict(list)
    for row in sql("SELECT * FROM events WHERE project_id = :id ORDER BY agent_id, version", id=project.id):
        told[str(row.agent_id)].append(row)
    return told


def test_two_clients_race_a_thousand_commands_each(fleet: Fleet) -> None:
    agents = fleet.born(AGENTS)

    def client(door: int) -> list[str]:
        dice = Random(door)  # noqa: S311  # no secret
        orders = dice.choices(list(VERBS), list(VERBS.values()), k=COMMANDS)
        answers = [fleet.send(door, dice.choice(agents), verb) for verb in orders]
        assert {answer.status_code for answer in answers} == {202}
        return [answer.json()["id"] for answer in answers]

    with ThreadPoolExecutor(2) as pool:
        accepted = [id_ for ids in pool.map(client, range(2)) for id_ in ids]
    fleet.rest()

    wanted = "SELECT id, state FROM commands WHERE project_id = :id AND verb <> 'spawn'"
    states = {str(row.id): row.state for row in sql(wanted, id=fleet.project.id)}
    assert states.keys() == set(accepted)
    assert set(Counter(states.values())) == {"applied", "rejected"}
    told = history(fleet.project)
    for agent in agents:
        events = told[agent]
        assert [event.version for event in events] == list(range(1, len(events) + 1))
        assert all(earlier.after == later.before for earlier, later in pairwise(events))
        assert "terminated" not in {event.after for event in events[:-1]}, "nothing comes after the end"
    assert violations() == {}


@pytest.mark.parametrize("retries", [20, 50])
def test_parallel_retries_of_a_spawn_through_two_doors_leave_one_agent(fleet: Fleet, retries: int) -> None:
    address, once = f"{fleet.project.path}/agents", uuid4().hex
    wanted = {"agent_type_id": fleet.project.type_id, "name": "scout"}

    def spawn(number: int) -> Any:
        door = fleet.doors[number % 2]
        return door("POST", address, fleet.project.api.key, wanted, Idempotency_Key=once, Prefer="wait=10")

    with ThreadPoolExecutor(retries) as pool:
        answers = list(pool.map(spawn, range(retries)))

    assert {answer.status_code for answer in answers} <= {201, 202}
    assert len({answer.json().get("agent_id", answer.json()["id"]) for answer in answers}) == 1
    assert sum("Idempotency-Replayed" in answer.headers for answer in answers) == retries - 1
    assert sql("SELECT count(*) FROM agents WHERE project_id = :id", id=fleet.project.id) == [(1,)]
    assert sql("SELECT count(*) FROM commands WHERE project_id = :id", id=fleet.project.id) == [(1,)]


def test_what_was_answered_at_one_door_comes_before_what_is_then_sent_through_the_other(fleet: Fleet) -> None:
    agents = fleet.born(8)

    def alternate(agent: str) -> list[str]:
        answers = [fleet.send(n % 2, agent, ("pause", "resume")[n % 2]) for n in range(30)]
        return [answer.json()["id"] for answer in answers]

    with ThreadPoolExecutor(len(agents)) as pool:
        sent = dict(zip(agents, pool.map(alternate, agents), strict=True))
    fleet.rest()

    told = history(fleet.project)
    for agent in agents:
        assert [str(event.command_id) for event in told[agent][1:]] == sent[agent], "each was possible in this order"
