"""A deaf worker, which answers pings and takes no messages, is found and started again; one without Redis is let be."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from orchestrator import pulse
from orchestrator.pulse import QUEUES, Watch
from tests.redis_server import OwnRedis
from tests.stage import ROOT, Project, Worker, eventually
from tests.test_up import Stack

SECONDS = 4.0
"""After which a worker is called deaf here."""

CELERY = [sys.executable, "-W", "ignore", "-m", "celery", "-A", "workers.app"]


def control(redis_url: str, *words: str) -> str:
    """What workers answer to a word of Celery's remote control."""
    env = os.environ | {"ORCH_REDIS_URL": redis_url}
    return subprocess.run([*CELERY, *words], cwd=ROOT, env=env, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def stack(own_redis: OwnRedis) -> Iterator[Stack]:
    """A stack whose Redis is the test's."""
    with TemporaryDirectory(prefix="orch-deaf-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.delenv("ORCH_DATABASE_URL")
        running = Stack.start(Path(folder) / "home", ORCH_REDIS_URL=own_redis.url, ORCH_DEAF_AFTER=str(SECONDS))
        try:
            yield running.ready()
        finally:
            running.stop()


def freeze(worker: psutil.Process, redis_url: str) -> None:
    """Its main process stands still, as if it waited for an answer that never comes."""
    del redis_url
    worker.send_signal(signal.SIGSTOP)


def forget(worker: psutil.Process, redis_url: str) -> None:
    """It has forgotten to take messages, and answers whatever it is asked."""
    del worker
    control(redis_url, "control", "cancel_consumer", "commands")
    assert "pong" in control(redis_url, "inspect", "ping")


def test_a_deaf_worker_is_started_again_and_one_whose_redis_is_away_is_not(stack: Stack, own_redis: OwnRedis) -> None:
    agent = stack.spawn()
    for deafen in (freeze, forget):
        worker = psutil.Process(stack.pid("worker"))
        deafen(worker, own_redis.url)

        assert stack.api("POST", f"{agent}/pause").is_success  # which nobody takes
        eventually(lambda was=worker.pid: stack.pid("worker") != was, 30)  # type: ignore[misc]
        assert not worker.is_running()
        assert stack.api("POST", f"{agent}/resume").status_code == 200
    assert stack.said().count("The worker has taken nothing from") == 2

    worker = psutil.Process(stack.pid("worker"))
    own_redis.stop()
    time.sleep(2 * SECONDS)
    own_redis.begin()
    eventually(lambda: stack.api("POST", f"{agent}/pause").status_code == 200, 40)
    time.sleep(SECONDS)

    assert stack.pid("worker") == worker.pid


def test_a_worker_notes_each_queue_from_which_it_takes(project: Project, own_redis: OwnRedis, tmp_path: Path) -> None:
    del project, own_redis
    folder = tmp_path / "pulse"
    began = time.time()
    with Worker.start(tmp_path / "worker.log", 1, ORCH_PULSE=str(folder)):
        for queue in QUEUES:
            subprocess.run([*CELERY, "call", "orchestrator.canary", f"--queue={queue}"], cwd=ROOT, check=True)
        eventually(lambda: min(pulse.taken_at(folder, queue) for queue in QUEUES) > began - 1, 30)


def test_a_message_names_no_file_of_its_own(tmp_path: Path) -> None:
    for queue in ("../elsewhere", "", "undeliverable"):
        pulse.note(tmp_path / "pulse", queue)

    assert list(tmp_path.iterdir()) == []


def test_a_worker_is_deaf_only_where_messages_have_waited_all_the_time(
    own_redis: OwnRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, now = Watch(tmp_path, own_redis.url), time.time()

    def deaf(at: float) -> list[str]:
        monkeypatch.setattr(time, "time", lambda: now + at)
        return watch.deaf(10)

    assert deaf(0) == [], "nothing waits"
    own_redis.client.lpush("commands", "something")
    assert deaf(100) == [], "for how long it has waited, nobody knows"
    assert deaf(110.1) == ["commands"]
    pulse.note(tmp_path, "commands")
    os.utime(tmp_path / "commands", (now + 111, now + 111))
    assert deaf(120) == [], "something was taken meanwhile"
    assert deaf(121.1) == ["commands"]
    own_redis.stop()
    assert deaf(122) == []
    own_redis.begin()
    assert deaf(123) == [], "it has just come back"
    assert deaf(133.1) == ["commands"]
    watch.begin_anew()
    assert deaf(134) == [], "another worker is there"


@pytest.fixture
def check(own_redis: OwnRedis, tmp_path: Path) -> Callable[[], str]:
    """What the health check complains of."""

    def run() -> str:
        env = os.environ | {"ORCH_REDIS_URL": own_redis.url, "ORCH_PULSE": str(tmp_path / "pulse")}
        ended = subprocess.run(
            [sys.executable, "-m", "orchestrator.pulse"], cwd=ROOT, env=env, check=False, capture_output=True, text=True
        )
        assert bool(ended.returncode) == bool(ended.stderr), ended.stderr
        return ended.stderr

    return run


def test_the_health_check_fails_where_messages_wait_and_none_was_taken(
    check: Callable[[], str], own_redis: OwnRedis, tmp_path: Path
) -> None:
    assert check() == ""
    own_redis.client.lpush("upkeep", "something")
    assert check() == "nothing was taken from upkeep for 45 s, and something waits there\n"
    pulse.note(tmp_path / "pulse", "upkeep")
    assert check() == ""
    os.utime(tmp_path / "pulse" / "upkeep", (0, 0))
    own_redis.stop()
    assert check() == "", "a restart would not bring Redis back"


def test_the_health_check_says_what_it_needs() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "orchestrator.pulse"], cwd=ROOT, check=False, capture_output=True, text=True
    )

    assert ended.returncode == 1
    assert ended.stderr == "ORCH_PULSE is not set; it is the folder in which the worker notes what it takes\n"
