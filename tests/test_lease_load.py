"""Many leases at once: lost in the same second, and beaten together."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from orchestrator import timers
from orchestrator.db import Guard, begin
from tests.redis_server import OwnRedis
from tests.stage import Project, Worker, busy, eventually, peers, settle, sql, violations

MANY = 10_000


@pytest.fixture
def leased(quiet: Project) -> Project:
    """Ten thousand working agents, each with a live lease."""
    agent_id = quiet.born()
    lease()
    sql(
        """INSERT INTO commands (id, project_id, agent_id, verb, payload, actor_type, actor_id, epoch)
        SELECT gen_random_uuid(), project_id, id, 'update', '{"status": "working"}', 'agent', id, 1 FROM agents"""
    )
    settle()
    peers(agent_id, MANY - 1)
    lease()
    assert statuses() == {"working": MANY}
    assert violations() == {}
    return quiet


def lease() -> None:
    """Give a lease to every agent that has none."""
    sql(
        """INSERT INTO leases (agent_id, project_id, epoch, id, holder, ttl, granted_at, beat_at)
        SELECT id, project_id, 1, gen_random_uuid(), 'host', 30, now(), now() FROM agents
        ON CONFLICT DO NOTHING"""
    )
    sql(
        """INSERT INTO lease_tokens (hash, agent_id, user_id, epoch)
        SELECT uuid_send(id), id, (SELECT id FROM users LIMIT 1), 1 FROM agents
        ON CONFLICT DO NOTHING"""
    )


@pytest.fixture
def workers(own_redis: OwnRedis, tmp_path: Path) -> Iterator[None]:
    """Two workers, each with its own sweep."""
    del own_redis
    with ExitStack() as stack:
        for number in range(2):
            stack.enter_context(Worker.start(tmp_path / f"worker-{number}.log", concurrency=1))
        yield


def statuses() -> dict[str, int]:
    """How many agents there are by status."""
    return {row.status: row.count for row in sql("SELECT status, count(*) FROM agents GROUP BY status")}


def deadlocks() -> int:
    """How often the server has broken one, in this database."""
    sql("SELECT pg_stat_force_next_flush()")
    return int(sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")[0].deadlocks)


def test_ten_thousand_leases_lost_in_one_second_are_reaped_within_ten(leased: Project, workers: None) -> None:
    sql("UPDATE leases SET beat_at = now() - interval '39 seconds'")  # lost in a second, all of them
    began = time.monotonic()

    eventually(lambda: statuses() == {"idle": MANY}, 15)

    assert time.monotonic() - began < busy(1 + 10)
    assert deadlocks() == 0
    assert sql("SELECT count(*) FROM commands WHERE verb = 'settle' AND state = 'applied'")[0][0] == MANY
    assert violations() == {}


def test_a_process_that_beats_just_before_its_loss_is_noticed_keeps_its_lease(quiet: Project) -> None:
    agent_id = quiet.born()
    quiet.api.post(f"{quiet.agent(agent_id)}/lease", {"holder": "host"})

    for _ in range(2):
        sql("UPDATE leases SET beat_at = beat_at - interval '39 seconds'")
        assert quiet.api.post(f"{quiet.agent(agent_id)}/beat", {"epoch": 1}).status_code == 200
    with begin(Guard.DRAIN) as db:
        assert timers.send_due(db) == 0
