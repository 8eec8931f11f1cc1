"""A worker as a process: what its children share, and what a child's death costs."""

import re
import time
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.failpoints import Point
from tests.faults import Failpoints
from tests.redis_server import OwnRedis
from tests.stage import Project, Worker, eventually, sql, violations
from workers.app import app
from workers.consumer import Consumer


def connections() -> set[int]:
    """Those that are open for a worker's work, by the server's processes: of a worker one that sweeps, and for each
    child that has drained one that does, one that announces; and perhaps some of this process."""
    wanted = "datname = current_database() AND application_name = 'orch-drain'"
    return {row.pid for row in sql(f"SELECT pid FROM pg_stat_activity WHERE {wanted}")}


def test_a_child_that_dies_is_replaced_and_the_new_one_opens_its_own_connection(
    quiet: Project, own_redis: OwnRedis, tmp_path: Path
) -> None:
    del own_redis
    agent, ours = quiet.spawn(wait=False)["agent_id"], connections()
    with Worker.start(tmp_path / "worker.log", concurrency=1) as worker:
        eventually(lambda: sql("SELECT 1 FROM agents WHERE status = 'idle'"), 30)
        eventually(lambda: len(connections() - ours) == 3)
        before = connections() - ours
        (child,) = psutil.Process(worker.process.pid).children()

        child.kill()
        pause = quiet.send(agent, "pause")["id"]

        eventually(lambda: quiet.command(pause)["state"] == "applied", 10)
        eventually(lambda: len(connections() & before) == 1)  # the others end when the server sees that the child has
        assert len(connections() - ours) == 3, "a copy of the sweep's connection would be used by both"
    assert violations() == {}


def test_a_worker_outlives_a_redis_that_goes_while_a_task_is_at_work(
    quiet: Project, own_redis: OwnRedis, failpoints: Failpoints, tmp_path: Path
) -> None:
    agent = quiet.spawn(wait=False)["agent_id"]
    with Worker.start(tmp_path / "worker.log", concurrency=2, **failpoints.environment) as worker:
        eventually(lambda: sql("SELECT 1 FROM agents WHERE status = 'idle'"), 30)
        for verb in ("pause", "resume"):
            failpoints.arm(Point.DRAINED, "delay", seconds=3, once=True)  # its message is in the worker's hands
            sent = quiet.send(agent, verb)["id"]
            eventually(lambda: not failpoints.armed(Point.DRAINED), 10)
            own_redis.stop()
            time.sleep(1)
            own_redis.begin()
            after = quiet.send(agent, "update", current_task=verb)["id"]

            eventually(lambda id_=after: quiet.command(id_)["state"] == "applied", 20)  # type: ignore[misc]
            assert quiet.command(sent)["state"] == "applied"
        assert worker.process.poll() is None
    assert "Unrecoverable" not in (tmp_path / "worker.log").read_text()
    assert violations() == {}


def test_who_acknowledges_over_a_connection_that_is_gone_is_told_so_as_celery_expects(own_redis: OwnRedis) -> None:
    with app.connection_for_read(own_redis.url) as connection, connection.SimpleQueue("anybodys") as queue:
        queue.put({})
        message = queue.get(timeout=5)
        connection.collect()

        message.channel._disconnect_pools()

        with pytest.raises(connection.connection_errors, match="this connection is closed"):
            message.ack()


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
