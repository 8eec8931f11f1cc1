"""A worker as a process: what its children share, and what a child's death costs."""

import re
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.redis_server import OwnRedis
from tests.stage import Project, Worker, eventually, sql, violations
from workers.app import app
from workers.consumer import Consumer


def connections() -> int:
    """How many the worker has open: one that sweeps, and for each child that has drained one that does, one that
    announces."""
    wanted = "datname = current_database() AND application_name = 'orch-drain'"
    return int(sql(f"SELECT count(*) AS n FROM pg_stat_activity WHERE {wanted}")[0].n)


def test_a_child_that_dies_is_replaced_and_the_new_one_opens_its_own_connection(
    quiet: Project, own_redis: OwnRedis, tmp_path: Path
) -> None:
    del own_redis
    agent = quiet.spawn(wait=False)["agent_id"]
    with Worker.start(tmp_path / "worker.log", concurrency=1) as worker:
        eventually(lambda: sql("SELECT 1 FROM agents WHERE status = 'idle'"), 30)
        eventually(lambda: connections() == 3)
        (child,) = psutil.Process(worker.process.pid).children()

        child.kill()
        pause = quiet.send(agent, "pause")["id"]

        eventually(lambda: quiet.command(pause)["state"] == "applied", 10)
        assert connections() == 3, "a copy of the sweep's connection would be used by both"
    assert violations() == {}


def test_a_worker_looks_for_redis_every_few_seconds_however_long_it_is_away(
    own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waited = count()

    def sleep(seconds: float) -> None:
        if next(waited) == 60:
            raise KeyboardInterrupt

    monkeypatch.setattr("kombu.utils.functional.sleep", sleep)
    own_redis.stop()
    consumer: Any = Consumer.__new__(Consumer)
    consumer.app, consumer.first_connection_attempt, consumer.broker_connection_retry_attempt = app, False, 0

    with app.connection_for_read(own_redis.url) as connection, pytest.raises(KeyboardInterrupt):
        consumer.ensure_connected(connection)

    pauses = [float(seconds) for seconds in re.findall(r"again in (\d+\.\d+) seconds", caplog.text)]
    assert (len(pauses) > 10, max(pauses)) == (True, 5)
