"""The stack under test: `orch up` with two web and two worker processes, its servers behind proxies."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psutil
import psycopg

from orchestrator.embedded import DATABASE, Postgres
from orchestrator.runner import running
from tests.faults import Failpoints
from tests.proxy import Proxy
from tests.redis_server import OwnRedis
from tests.stage import ROOT, busy, eventually, free_port

LIMITED_PER_SECOND = 5
LIMITS = {"*": "off", "anonymous": "off", "agent_metrics": f"{LIMITED_PER_SECOND}/second"}
"""One is on, so that it can be seen to be kept."""

START_SECONDS = 60

CHILDREN = {"web": 2, "worker": 2, "beat": 0}
"""Our programs, and how many processes do the work of each."""


class OwnPostgres:
    """A PostgreSQL of ours that can be killed, and started where it was."""

    def __init__(self, home: Path) -> None:
        self._home, self._server, self._life = home, Postgres(home), ExitStack()
        self._process: Any = None
        self.sockets = parse_qs(urlsplit(self._server.url).query)["host"][0]

    def begin(self) -> None:
        """Start it, and wait until it answers."""
        self._process = self._life.enter_context(running(self._server.prepare(), self._home / "postgres.log"))
        self._server.wait()

    def crash(self) -> None:
        """End all of it at once, without a checkpoint."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(20)
        self._life.close()

    def stop(self) -> None:
        """End it in order."""
        self._life.close()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It, and every process of a connection, stands still: it takes connections and answers nothing."""
        main = psutil.Process(self._process.pid)
        still = [main]
        main.suspend()  # first: it begins no other
        try:
            for process in main.children():
                process.suspend()
                still.append(process)
            yield
        finally:
            for process in still:
                process.resume()

    @property
    def lives(self) -> bool:
        """Whether it has not ended by itself."""
        return self._process.poll() is None

    def begin_again(self) -> None:
        """After it has ended by itself."""
        self.stop()
        self.begin()

    @contextmanager
    def connected(self) -> Iterator["psycopg.Connection[Any]"]:
        """A connection past the proxies."""
        url = f"host={self.sockets} user=postgres dbname={DATABASE}"
        with psycopg.connect(url, autocommit=True) as connection:
            yield connection


class Stack:
    """The servers, the proxies before them, and our programs."""

    def __init__(self, home: Path, postgres: OwnPostgres, redis: OwnRedis, failpoints: Failpoints) -> None:
        self.home, self.postgres, self.redis, self.failpoints = home, postgres, redis, failpoints
        self.to_postgres = Proxy(f"{postgres.sockets}/.s.PGSQL.5432")
        at = urlsplit(redis.url)
        self.to_redis = Proxy((str(at.hostname), int(at.port or 0)))
        self._redis_password = at.password
        self.port = free_port()
        self._up: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        """Host and port of the API."""
        return f"127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        """The administrator's."""
        return (self.home / "admin.key").read_text().strip()

    def begin(self, planted: str | None = None) -> None:
        """Start our programs, with a bug in them where one is named, and wait until they are ready."""
        environment = self.failpoints.environment | {
            "ORCH_HOME": str(self.home),
            "TMPDIR": str(self.home),  # workers that are killed leave folders behind
            "ORCH_PORT": str(self.port),
            "ORCH_FLOWER_PORT": "0",
            "ORCH_WEB_PROCESSES": str(CHILDREN["web"]),
            "ORCH_WORKER_PROCESSES": str(CHILDREN["worker"]),
            "ORCH_LIMITS": json.dumps(LIMITS),
            "ORCH_DATABASE_URL": f"postgresql+psycopg://postgres@127.0.0.1:{self.to_postgres.port}/{DATABASE}",
            "ORCH_REDIS_URL": f"redis://:{self._redis_password}@127.0.0.1:{self.to_redis.port}/0",
        }
        if planted is not None:
            environment |= {"ORCH_PLANTED": planted, "PYTHONPATH": f"{ROOT / 'tests' / 'chaos' / 'plant'}:{ROOT}"}
        log = self.home / "up.log"
        with log.open("wb") as output:
            self._up = subprocess.Popen(
                [sys.executable, "-m", "orchestrator.cli", "up"],
                env=os.environ | environment, cwd=ROOT, stdout=output, stderr=output,
            )  # fmt: skip
        eventually(lambda: "Ready in" in log.read_text() or self._up.poll() is not None, START_SECONDS)
        if self._up.poll() is not None:
            raise RuntimeError(f"the stack did not start; see {log}")

    def stop(self) -> int:
        """Stop our programs; the exit code."""
        self._up.terminate()
        return self._up.wait(30)

    def program(self, name: str) -> psutil.Process | None:
        """The main process of web, worker or beat; None while it is being started again."""
        with suppress(FileNotFoundError, psutil.NoSuchProcess, ValueError):
            pid, born = json.loads((self.home / "run" / f"{name}.json").read_text())["program"]
            found = psutil.Process(pid)
            return found if abs(found.create_time() - born) < 1 and _lives(found) else None
        return None

    def children(self, name: str) -> list[psutil.Process]:
        """Those that do its work."""
        main = self.program(name)
        with suppress(psutil.NoSuchProcess):
            return [child for child in main.children() if _lives(child)] if main is not None else []
        return []

    def processes(self) -> dict[int, str]:
        """What each living process of ours is."""
        mains = {name: main for name in CHILDREN if (main := self.program(name))}
        children = {child.pid: f"{name} child" for name in mains for child in self.children(name)}
        return {main.pid: f"{name} main" for name, main in mains.items()} | children


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


@contextmanager
def stack(home: Path, planted: str | None = None) -> Iterator[Stack]:
    """A stack that runs for the length of the block."""
    home.mkdir(parents=True)
    postgres = OwnPostgres(home / "servers")
    with ExitStack() as whole:
        (home / "servers").mkdir()
        postgres.begin()
        whole.callback(postgres.stop)
        redis = whole.enter_context(OwnRedis.start(home / "servers"))
        made = Stack(home / "orch", postgres, redis, Failpoints(home / "failpoints"))
        (home / "orch").mkdir()
        whole.enter_context(made.to_postgres)
        whole.enter_context(made.to_redis)
        made.begin(planted)
        whole.callback(made.stop)
        yield made


def wait_until_back(stack: Stack, killed: int | None = None, seconds: float = 30) -> None:
    """Until every program has all its processes again, and none of them is the one that was killed."""
    began = time.monotonic()
    while missing := _missing(stack, killed):
        if time.monotonic() > began + busy(seconds):
            raise TimeoutError(f"did not come back: {', '.join(missing)}")
        time.sleep(0.05)


def _missing(stack: Stack, killed: int | None) -> list[str]:
    there = stack.processes()
    if killed in there:
        return [f"another {there[killed]} than {killed}"]
    counted = Counter(there.values())
    wanted = {f"{name} main": 1 for name in CHILDREN} | {f"{name} child": number for name, number in CHILDREN.items()}
    return [what for what, number in wanted.items() if counted[what] < number]
