"""A deaf worker, which answers pings and takes no messages, is found and started again, though another takes them all;
one without Redis is let be."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from orchestrator import pulse
from orchestrator.pulse import QUEUES, Watch, own_queue, taken_at
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
    with TemporaryDirectory(prefix="orch-deaf-") as folder:
        url = own_redis.url.replace(f":{urlsplit(own_redis.url).port}/", f":{way.port}/")
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("ORCH_DATABASE_URL")
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


@contextmanager
def beside_another(folder: Path) -> Iterator[None]:
    """Another worker takes whatever comes, so that nothing waits in the queues of all."""
    with Worker.start(folder / "beside.log", 1, ORCH_PULSE=str(folder / "beside")):
        wait_until_it_takes(folder / "beside")
        yield


def wait_until_it_takes(folder: Path) -> None:
    """Until the worker with this folder takes a message."""
    eventually(lambda: taken_at(folder), 40)
    was = taken_at(folder)
    eventually(lambda: send() and taken_at(folder) != was, 40)


@contextmanager
def read_only(redis: OwnRedis) -> Iterator[None]:
    """It answers, and takes no writes, as one whose replicas or disk are gone."""
    redis.client.config_set("min-replicas-to-write", 1)
    yield
    redis.client.config_set("min-replicas-to-write", 0)


def test_a_deaf_worker_is_started_again_beside_another_and_one_whose_redis_is_away_is_not(
    stack: Stack, own_redis: OwnRedis, way: Proxy, tmp_path: Path
) -> None:
    agent = stack.spawn()
    for deafen in (frozen, half_open):
        worker = psutil.Process(stack.pid("worker"))
        with beside_another(tmp_path), deafen(worker, way):
            eventually(lambda was=worker.pid: stack.pid("worker") != was, 60)  # type: ignore[misc]
        assert not worker.is_running()
        eventually(lambda: stack.api("POST", f"{agent}/resume").status_code in (200, 409), 40)
    assert stack.said().count("The worker had taken nothing for 4 s") == 2

    worker = psutil.Process(stack.pid("worker"))
    with read_only(own_redis):
        time.sleep(2 * SECONDS)
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
        wait_until_it_takes(folder / "pulse")
        yield worker
    finally:
        with suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait(timeout=10)


def send(queue: str = "commands", **options: Any) -> bool:
    """A message for all workers; true."""
    with celery.connection_for_write() as link:
        celery.send_task("orchestrator.canary", queue=queue, connection=link, **options)
    return True


@pytest.mark.parametrize("deafen", [frozen, half_open])
def test_a_container_ends_with_its_deaf_worker_though_another_takes_all_messages(
    project: Project, own_redis: OwnRedis, way: Proxy, tmp_path: Path, deafen: Callable[..., Any]
) -> None:
    del project
    with watched(way, own_redis, tmp_path) as worker, beside_another(tmp_path), deafen(worker, way):
        assert worker.wait(timeout=60) == -signal.SIGKILL
        assert own_redis.client.llen("commands") == 0

    log = (tmp_path / "watched.log").read_text()
    said = [json.loads(line) for line in log.splitlines() if '"deaf"' in line]
    assert [(line["level"], line["process"]) for line in said] == [("error", "pulse")]
    assert ("MainThread" in log) == (deafen is half_open), "where it stood, unless it was frozen"


def test_a_watched_worker_outlives_its_redis_and_its_watcher_ends_with_it(
    project: Project, own_redis: OwnRedis, way: Proxy, tmp_path: Path
) -> None:
    del project
    with watched(way, own_redis, tmp_path) as worker:
        [watcher] = [child for child in worker.children() if "orchestrator.pulse" in child.cmdline()]
        with read_only(own_redis):
            time.sleep(2 * SECONDS)
        own_redis.stop()
        time.sleep(2 * SECONDS)
        own_redis.begin()
        wait_until_it_takes(tmp_path / "pulse")
        watcher.suspend()  # a worker that ends takes nothing any more, and on a busy machine for longer than `SECONDS`
        worker.terminate()

        with suppress(psutil.TimeoutExpired):
            worker.wait(timeout=busy(60))
        assert worker.poll() == 0, (tmp_path / "watched.log").read_text()[-5_000:]
        watcher.resume()
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


@pytest.mark.parametrize("queue", QUEUES)
def test_a_worker_notes_when_it_has_taken_something_from_any_queue(
    project: Project, own_redis: OwnRedis, tmp_path: Path, queue: str
) -> None:
    del project
    folder = tmp_path / "pulse"
    with Worker.start(tmp_path / "worker.log", 1, ORCH_PULSE=str(folder)):
        wait_until_it_takes(folder)
        for take in (lambda: send(queue), lambda: send(queue, expires=-1), lambda: canary(own_redis, folder)):
            eventually(lambda: not own_redis.client.exists(*QUEUES, "unacked"))  # all is taken, and done
            os.utime(folder / "taken", (0, 0))
            take()
            eventually(lambda: taken_at(folder), 30)

    assert not own_redis.client.exists(own_queue(folder)), "it was taken"
    bindings = own_redis.client.smembers("_kombu.binding.commands")
    assert not [member for member in bindings if b"pulse" in member]


def test_a_worker_goes_on_whose_folder_was_deleted(project: Project, own_redis: OwnRedis, tmp_path: Path) -> None:
    del project
    folder = tmp_path / "pulse"
    with Worker.start(tmp_path / "worker.log", 1, ORCH_PULSE=str(folder)):
        wait_until_it_takes(folder)
        shutil.rmtree(folder)
        send()
        eventually(lambda: not own_redis.client.exists(*QUEUES, "unacked"))
        canary(own_redis, folder)
        wait_until_it_takes(folder)

    assert "connection to broker lost" not in (tmp_path / "worker.log").read_text().lower()


def test_nobody_is_deaf_where_nothing_can_be_noted(own_redis: OwnRedis, tmp_path: Path) -> None:
    folder = tmp_path / "pulse"
    watch = Watch(folder, own_redis.url, looks=3, more_at_first=2)
    shutil.rmtree(folder)
    folder.touch()

    assert not any(watch.deaf() for _ in range(20))


def canary(redis: OwnRedis, folder: Path) -> None:
    """Look at a worker's pulse, once."""
    assert not Watch(folder, redis.url, looks=3, more_at_first=2).deaf()


def test_a_queue_that_no_worker_takes_from_any_more_is_gone_by_itself(own_redis: OwnRedis, tmp_path: Path) -> None:
    canary(own_redis, tmp_path)

    assert 0 < own_redis.client.ttl(own_queue(tmp_path)) <= pulse.CANARY_SECONDS
    assert own_redis.client.llen(own_queue(tmp_path)) == 1
    canary(own_redis, tmp_path)
    assert own_redis.client.llen(own_queue(tmp_path)) == 1


def test_a_folders_queue_is_its_own_and_stays_the_same(tmp_path: Path) -> None:
    one, other = own_queue(tmp_path / "one"), own_queue(tmp_path / "other")
    pulse.note(tmp_path / "one")

    assert one != other
    assert own_queue(tmp_path / "one") == one


def test_a_worker_is_deaf_only_where_it_could_have_taken_something_all_the_time(
    own_redis: OwnRedis, tmp_path: Path
) -> None:
    watch = Watch(tmp_path, own_redis.url, looks=3, more_at_first=2)

    def looks() -> int:
        """How many it takes, from now on."""
        return next(count for count in range(1, 20) if watch.deaf())

    def take() -> None:
        watch.deaf()  # so that the note's time is another one than the last
        pulse.note(tmp_path)

    assert looks() == 6, "it may just have been started"
    take()
    assert not watch.deaf(), "something was taken meanwhile"
    assert (looks(), watch.deaf()) == (4, True)
    own_redis.stop()
    assert not watch.deaf()
    own_redis.begin()
    assert looks() == 6, "it has just come back, and the worker has to find it"
    with read_only(own_redis):
        assert not any(watch.deaf() for _ in range(20)), "it gives nothing, either"
    assert looks() == 6, "it has just come back, and the worker has to find it"
    watch.begin_anew()
    assert looks() == 6, "another worker is there"


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


def test_the_health_check_fails_where_a_canary_waits_and_nothing_was_taken(
    check: Callable[[], str], own_redis: OwnRedis, tmp_path: Path
) -> None:
    note = tmp_path / "pulse" / "taken"
    assert check() == ""
    assert check() == "", "it may just have been started"
    os.utime(note, (0, 0))
    assert check() == "the worker has taken nothing for 45 s, and something waits for it\n"
    own_redis.client.delete(own_queue(note.parent))
    assert check() == "", "nothing waited"
    pulse.note(note.parent)
    assert check() == ""
    os.utime(note, (0, 0))
    with read_only(own_redis):
        assert check() == "", "a restart would not bring Redis back"
    own_redis.stop()
    assert check() == "", "nor this"


def test_the_health_check_says_what_it_needs() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "orchestrator.pulse"], cwd=ROOT, check=False, capture_output=True, text=True
    )

    assert ended.returncode == 1
    assert ended.stderr == "ORCH_PULSE is not set; it is the folder in which the worker notes what it takes\n"
