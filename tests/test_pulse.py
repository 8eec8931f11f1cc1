"""A deaf worker, which answers pings and takes no messages, is found and started again; one without Redis is let be."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from orchestrator import pulse
from orchestrator.pulse import QUEUES, Watch
from tests.proxy import Proxy
from tests.redis_server import OwnRedis
from tests.stage import ROOT, Project, Worker, busy, eventually
from tests.test_up import Stack
from workers.app import app as celery

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


@contextmanager
def watched(way: Proxy, own_redis: OwnRedis, folder: Path) -> Iterator[psutil.Popen]:
    """A worker as the containers start it, that has just taken something; its log is `watched.log`."""
    url = own_redis.url.replace(f":{urlsplit(own_redis.url).port}/", f":{way.port}/")
    env = {"ORCH_PULSE": str(folder / "pulse"), "ORCH_DEAF_AFTER": str(SECONDS), "ORCH_REDIS_URL": url}
    command = [sys.executable, "-m", "orchestrator.pulse", *CELERY, "worker", "-Q", "commands,upkeep", "-c", "1"]
    with (folder / "watched.log").open("ab") as log:
        worker = psutil.Popen(
            [*command, "-l", "warning"],
            cwd=ROOT,
            env=os.environ | env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        send()
        eventually(lambda: min(pulse.taken_at(folder / "pulse", queue) for queue in QUEUES), 40)
        yield worker
    finally:
        with suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait(timeout=10)


def send(queues: Sequence[str] = QUEUES, **options: Any) -> None:
    """A message for each of these queues."""
    with celery.connection_for_write() as link:
        for queue in queues:
            celery.send_task("orchestrator.canary", queue=queue, connection=link, **options)


@pytest.mark.parametrize("deafen", [frozen, half_open])
def test_a_container_ends_with_its_deaf_worker(
    project: Project, own_redis: OwnRedis, way: Proxy, tmp_path: Path, deafen: Callable[..., Any]
) -> None:
    del project
    with watched(way, own_redis, tmp_path) as worker, deafen(worker, way):
        send()

        assert worker.wait(timeout=60) == -signal.SIGKILL

    said = [json.loads(line) for line in (tmp_path / "watched.log").read_text().splitlines() if '"deaf"' in line]
    assert [(line["level"], line["process"]) for line in said] == [("error", "pulse")]
    assert set(said[0]["queues"]) <= set(QUEUES)


def test_a_watched_worker_outlives_its_redis_and_its_watcher_ends_with_it(
    project: Project, own_redis: OwnRedis, way: Proxy, tmp_path: Path
) -> None:
    del project
    with watched(way, own_redis, tmp_path) as worker:
        [watcher] = [child for child in worker.children() if "orchestrator.pulse" in child.cmdline()]
        own_redis.stop()
        time.sleep(2 * SECONDS)
        own_redis.begin()
        began = time.time()
        send()
        eventually(lambda: min(pulse.taken_at(tmp_path / "pulse", queue) for queue in QUEUES) > began, 40)
        worker.terminate()

        with suppress(psutil.TimeoutExpired):
            worker.wait(timeout=busy(60))
        assert worker.poll() == 0, (tmp_path / "watched.log").read_text()[-5_000:]
        eventually(lambda: not watcher.is_running(), 5)


@pytest.mark.usefixtures("world")
def test_a_watched_command_that_there_is_not_is_one_sentence(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "orchestrator.pulse", "no-such-program"],
        cwd=ROOT,
        env=os.environ | {"ORCH_PULSE": str(tmp_path)},
        check=False,
        capture_output=True,
        text=True,
    )

    assert (ended.returncode, ended.stderr) == (1, "cannot run no-such-program: No such file or directory\n")


def test_a_worker_notes_each_queue_from_which_it_takes(project: Project, own_redis: OwnRedis, tmp_path: Path) -> None:
    del project, own_redis
    folder = tmp_path / "pulse"
    began = time.time()
    with Worker.start(tmp_path / "worker.log", 1, ORCH_PULSE=str(folder)):
        send()
        eventually(lambda: min(pulse.taken_at(folder, queue) for queue in QUEUES) > began - 1, 30)

        (folder / "commands").unlink()
        send(["commands"], expires=-1)
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
