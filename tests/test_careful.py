"""One bad command never stops the others: it is tried five times alone, and given up."""

from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from orchestrator.db import Guard, begin
from orchestrator.drain import Drainer
from tests.redis_server import OwnRedis
from tests.stage import Project, Worker, eventually, is_problem, multiply, run, sql, violations
from workers import tasks

OTHERS = 599

POISON = """
    INSERT INTO commands (id, project_id, agent_id, verb, payload, actor_id)
    SELECT gen_random_uuid(), project_id, agent_id, 'update', '{"status": "nonsense"}', actor_id
    FROM commands WHERE agent_id = :agent LIMIT 1 RETURNING id
"""
"""An order the door would never accept: what applies it raises."""


@pytest.fixture
def project(quiet: Project, own_redis: OwnRedis) -> Project:
    """A project that nobody drains but the workers a test starts."""
    del own_redis
    return quiet


@pytest.fixture
def start(tmp_path: Path) -> Any:
    """Starts a worker with one child."""
    return lambda: Worker.start(tmp_path / "worker.log", concurrency=1)


def poison(agent_id: str) -> str:
    """A command in the agent's mailbox that cannot be applied; its id."""
    return str(sql(POISON, agent=agent_id)[0].id)


def state(command_id: str) -> str:
    """A command's state."""
    return str(sql("SELECT state FROM commands WHERE id = :id", id=command_id)[0].state)


def attempts(command_id: str) -> int:
    """How often a command was tried alone."""
    return int(sql("SELECT attempts FROM commands WHERE id = :id", id=command_id)[0].attempts)


def queued() -> int:
    """How many commands wait."""
    return int(sql("SELECT count(*) AS n FROM commands WHERE state = 'queued'")[0].n)


def test_a_bad_command_is_dead_after_five_attempts_and_all_others_are_applied(project: Project, start: Any) -> None:
    agent = project.born()
    first = project.send(agent, "pause")["id"]
    bad = poison(agent)
    last = project.send(agent, "resume")["id"]
    multiply(agent, OTHERS)

    with start():
        eventually(lambda: queued() == 0, 40)

    rows = {str(row.id): row for row in sql("SELECT id, state, attempts, error, version FROM commands")}
    assert (rows[bad].state, rows[bad].attempts, rows[bad].error["code"]) == ("dead", 5, "internal")
    assert [row.state for id_, row in rows.items() if id_ != bad] == ["applied"] * (OTHERS + 3)
    assert rows[last].version == rows[first].version + 1, "what failed left no trace on its agent"
    assert violations() == {}


def test_who_waits_for_a_command_that_is_given_up_is_told(project: Project, start: Any) -> None:
    agent, once = project.born(), uuid4().hex
    asked = (project.agent(agent), {"current_task": "one"})
    bad = project.api.patch(*asked, Idempotency_Key=once).json["id"]  # type: ignore[index]
    sql("""UPDATE commands SET payload = '{"status": "nonsense"}' WHERE id = :id""", id=bad)

    with start():
        answer = project.api.patch(*asked, Idempotency_Key=once, Prefer="wait=30")

    assert is_problem(answer, 500, "internal")
    assert answer.json["command_id"] == bad  # type: ignore[index]
    assert project.command(bad)["state"] == "dead"
    assert project.api.get(project.agent(agent)).json["version"] == 1  # type: ignore[index]


def test_an_attempt_that_the_database_cut_short_does_not_count(project: Project, start: Any) -> None:
    agent, other = project.born(), project.born()
    bad, good = poison(agent), project.send(other, "pause")["id"]

    with start():
        with begin(Guard.TOOL) as db:
            run(db, "LOCK TABLE project_counters IN EXCLUSIVE MODE")  # a drain can read it, and then must wait
            eventually(lambda: state(bad) == "dead", 20)
            eventually(lambda: attempts(good) == 1)
            eventually(lambda: attempts(good) == 0)  # it has given up waiting
        eventually(lambda: state(good) == "applied", 20)

    assert violations() == {}


def test_an_agent_that_another_drain_has_meanwhile_is_left_to_it(quiet: Project) -> None:
    agent = quiet.born()
    command = quiet.send(agent, "pause")["id"]

    with begin(Guard.TOOL) as db:
        run(db, "SELECT 1 FROM agents WHERE id = :id FOR NO KEY UPDATE", id=agent)
        assert tasks._one_command(Drainer(0), UUID(agent), Counter()) is None

    assert (state(command), attempts(command)) == ("queued", 0)
