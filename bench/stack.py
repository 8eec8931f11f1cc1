"""A stack for measurements, in a temporary folder: servers from wheels, limits off, all else as in production."""

import os
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import URLError

import psutil
from sqlalchemy import create_engine, make_url, text

from orchestrator import db as database
from orchestrator import embedded, link
from orchestrator.bootstrap import prepare
from orchestrator.runner import Program, running
from orchestrator.settings import settings

READY_SECONDS = 60


@dataclass(frozen=True)
class Stack:
    """The servers, and what is needed to reach them."""

    home: Path
    server_url: str
    key: str

    @contextmanager
    def web(self, app: str = "web:create_app()") -> Iterator[str]:
        """The door as production runs it; its address."""
        port = _free_port()
        command = [sys.executable, "-W", "ignore", "-m", "gunicorn", "-c", "python:web.serve", app]
        with running(self._program("web", [*command, "-b", f"127.0.0.1:{port}"]), self.home / "web.log"):
            url = f"http://127.0.0.1:{port}"
            _until(lambda: _answers(f"{url}/healthz"))
            yield url

    @contextmanager
    def workers(self, processes: int, app: str = "workers.app", queues: str = "commands,upkeep") -> Iterator[None]:
        """A Celery worker with so many processes, drained empty before it is stopped or not, as the block wills."""
        command = [sys.executable, "-W", "ignore", "-m", "celery", "-q", "-A", app, "worker", "-Q", queues, "-E"]
        options = ["-c", str(processes), "--without-gossip", "--without-mingle", "-l", "warning", "-n", "bench@%h"]
        with running(self._program("worker", [*command, *options]), self.home / "worker.log"):
            _until(lambda: _celery_processes() > processes)  # one more than work: the one that hands out
            yield

    def _program(self, name: str, command: list[str]) -> Program:
        return Program(name, command, env={"PROMETHEUS_MULTIPROC_DIR": str(self.home / "metrics")})


@contextmanager
def stack() -> Iterator[Stack]:
    """PostgreSQL and Valkey with an empty database of ours, for the length of the block."""
    with ExitStack() as whole:
        home = Path(whole.enter_context(TemporaryDirectory(prefix="orch-bench-")))
        (home / "metrics").mkdir()
        os.environ |= {"ORCH_HOME": str(home), "ORCH_LIMITS": '{"*": "off", "anonymous": "off"}'}
        server_url = whole.enter_context(_postgres(home))
        os.environ["ORCH_REDIS_URL"] = whole.enter_context(embedded.valkey(home))
        prepare(server_url, home / "admin.key")
        turn_to(server_url)
        yield Stack(home, server_url, (home / "admin.key").read_text().strip())


@contextmanager
def _postgres(home: Path) -> Iterator[str]:
    """As `orch up` runs it, but that it remembers when each transaction was committed: what is applied is there from
    then on, a little later than its `closed_at` says."""
    with embedded.postgres(home) as url:
        _on_server(url, "ALTER SYSTEM SET track_commit_timestamp = on")
    with embedded.postgres(home) as url:
        yield url


@contextmanager
def another_database(given: Stack) -> Iterator[Stack]:
    """The same with a database of its own: what yardsticks do to ours, `verify` would not forgive."""
    url = make_url(given.server_url).set(database="yardstick").render_as_string(hide_password=False)
    _on_server(given.server_url, "CREATE DATABASE yardstick")
    key_file = given.home / "yardstick.key"
    prepare(url, key_file)
    turn_to(url)
    try:
        yield Stack(given.home, url, key_file.read_text().strip())
    finally:
        turn_to(given.server_url)
        _on_server(given.server_url, "DROP DATABASE yardstick WITH (FORCE)")


def turn_to(url: str) -> None:
    """Let this process, and those it starts, work with this database."""
    if settings().database_url:
        for guard in database.Guard:
            database.engine(guard).dispose()
    os.environ["ORCH_DATABASE_URL"] = url
    for cached in (settings, link.link):
        cached.cache_clear()


def memory() -> dict[str, float]:
    """MiB that each of our Python processes has for itself alone, by what it is."""
    found: dict[str, float] = {}
    for process in psutil.Process().children(recursive=True):
        name = _role(process)
        if name:
            number = sum(other.startswith(name) for other in found) + 1
            found[f"{name} {number}"] = process.memory_full_info().uss / 2**20
    return found


def cpu_seconds() -> float:
    """CPU that all processes of the stack have used so far, servers included; not this one and its load generators."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        times = process.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _role(process: psutil.Process) -> str | None:
    try:
        line = " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # a short one, gone meanwhile
        return None
    return next((name for name, word in (("web", "gunicorn"), ("worker", "celery")) if word in line), None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _celery_processes() -> int:
    return sum(_role(process) == "worker" for process in psutil.Process().children(recursive=True))


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):  # noqa: S310  # our own address
            return True
    except (URLError, OSError):
        return False


def _until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not ready():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the web server or the workers were not there after {READY_SECONDS} s")
        time.sleep(0.05)


def _on_server(url: str, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
