"""A deaf worker, which answers pings and takes no messages, is found and started again; one without Redis is let be."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import psutil
import pytest

from orchestrator import pulse
from orchestrator.pulse import QUEUES, Watch
from tests.proxy import Proxy
from tests.redis_server import OwnRedis
from tests.stage import ROOT, Project, Worker, eventually
from tests.test_up import Stack

SECONDS = 4.0
"""After which a worker is called deaf here."""

CELERY = [sys.executable, "-W", "ignore", "-m", "celery", "-A", "workers.app"]


@pytest.fixture
def way(own_redis: OwnRedis) -> Iterator[Proxy]:
    """The way from a stack to the test's Redis."""
    at = urlsplit(own_redis.url)
    with Proxy((str(at.hostname), int(at.port or 0))) as proxy:
        yield proxy


@pytest.fixture
def stack(own_redis: OwnRedis, way: Proxy) -> Iterator[Stack]:
    """A stack whose Redis is the test's."""
    with TemporaryDirectory(prefix="orch-deaf-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.delenv("ORCH_DATABASE_URL")
        url = own_redis.url.replace(f":{urlsplit(own_redis.url).port}/", f":{way.port}/")
        running = Stack.start(Path(folder) / "home", ORCH_REDIS_URL=url, ORCH_DEAF_AFTER=str(SECONDS))
        try:
            yield running.ready()
        finally:
            running.stop()


@contextmanager
def frozen(worker: psutil.Process, way: Proxy) -> Iterator[None]:
    """Its main process stands still, as if it waited for an answer that never comes."""
    del way
    worker.send_signal(signal.SIGSTOP)
    yield


@contextmanager
def half_open(worker: psutil.Process, way: Proxy) -> Iterator[None]:
    """The connection from which it takes messages brings none any more; on others it answers whatever it is asked."""
    del worker
    with way.cut(b"BRPOP"):
        yield


def test_a_deaf_worker_is_started_again_and_one_whose_redis_is_away_is_not(
    stack: Stack, own_redis: OwnRedis, way: Proxy
) -> None:
    agent = stack.spawn()
    for deafen in (frozen, half_open):
        worker = psutil.Process(stack.pid("worker"))
        with deafen(worker, way):
            assert stack.api("POST", f"{agent}/pause").is_success  # which nobody takes
            eventually(lambda was=worker.pid: stack.pid("worker") != was, 60)  # type: ignore[misc]
        assert not worker.is_running()
        eventually(lambda: stack.api("POST", f"{agent}/resume").status_code in (200, 409), 40)
    assert stack.said().count("The worker had taken nothing from") == 2

    worker = psutil.Process(stack.pid("worker"))
    own_redis.stop()
    time.sleep(2 * SECONDS)
    own_redis.begin()
    # 409 where an earlier try was not waited for to its end.
    eventually(lambda: stack.api("POST", f"{agent}/pause").status_code in (200, 409), 60)
    time.sleep(SECONDS)

    assert stack.pid("worker") == worker.pid, stack.said()[-20_000:]


def test_a_worker_notes_each_queue_from_which_it_takes(project: Project, own_redis: OwnRedis, tmp_path: Path) -> None:
    del project, own_redis
    folder = tmp_path / "pulse"
    began = time.time()
    with Worker.start(tmp_path / "worker.log", 1, ORCH_PULSE=str(folder)):
        for queue in QUEUES:
            subprocess.run([*CELERY, "call", "orchestrator.canary", f"--queue={queue}"], cwd=ROOT, check=True)
        eventually(lambda: min(pulse.taken_at(folder, queue) for queue in QUEUES) > began - 1, 30)

        (folder / "commands").unlink()
        subprocess.run(
            [*CELERY, "call", "orchestrator.canary", "--queue=commands", "--expires=-1"], cwd=ROOT, check=True
        )
        eventually(lambda: pulse.taken_at(folder, "commands") > began, 30)  # too late to be run, but taken


def test_a_message_names_no_file_of_its_own(tmp_path: Path) -> None:
    for queue in ("../elsewhere", "", "undeliverable"):
        pulse.note(tmp_path / "pulse", queue)

    assert list(tmp_path.iterdir()) == []


def test_a_worker_is_deaf_only_where_messages_have_waited_all_the_time(own_redis: OwnRedis, tmp_path: Path) -> None:
    watch = Watch(tmp_path, own_redis.url, looks=3, more_at_first=2)

    def looks() -> int:
        """How many it takes, from now on."""
        return next(count for count in range(1, 20) if watch.deaf())

    def take() -> None:
        watch.deaf()  # so that the note's time is another one than the last
        pulse.note(tmp_path, "commands")

    assert not any(watch.deaf() for _ in range(20)), "nothing waits"
    own_redis.client.lpush("commands", "something")
    assert looks() == 6, "it may just have been started"
    take()
    assert watch.deaf() == [], "something was taken meanwhile"
    assert (looks(), watch.deaf()) == (4, ["commands"])
    own_redis.stop()
    assert watch.deaf() == []
    own_redis.begin()
    assert looks() == 6, "it has just come back, and the worker has to find it"
    watch.begin_anew()
    assert looks() == 6, "another worker is there"
    take()
    own_redis.client.delete("commands")
    assert not any(watch.deaf() for _ in range(20)), "all is taken"


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
