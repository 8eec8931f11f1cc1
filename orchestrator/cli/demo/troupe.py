"""The demo's processes: started, told what to do, killed, and none left behind."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any, TextIO, cast

from orchestrator.cli.failures import Failure

END_SECONDS = 10.0


class Player:
    """One agent's process, as the demo sees it."""

    def __init__(self, name: str, process: "subprocess.Popen[str]", log: Path) -> None:
        self.name, self._process, self._log = name, process, log

    @property
    def lives(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def do(self, what: str, **more: Any) -> None:
        """Have it do one thing; returns when it has. Raises Failure where it is gone."""
        self._say(json.dumps({"do": what, **more}))
        self.hear()

    def hear(self) -> None:
        """Wait for its word; the first means that it has its lease."""
        if not cast("TextIO", self._process.stdout).readline():
            code, last = self._process.wait(), self._log.read_text().strip().rpartition("\n")[2]
            raise Failure(f"the process of {self.name} has ended, with exit code {code}. {last}".rstrip())

    def kill(self) -> None:
        """End it with SIGKILL, as a machine does that fails."""
        self._process.kill()
        self._process.wait()

    def ended(self) -> int | None:
        """Its exit code, once it has come to its end by itself; None if it has not in time."""
        try:
            return self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            return None

    def _say(self, line: str) -> None:
        stdin = cast("TextIO", self._process.stdin)
        try:
            stdin.write(line + "\n")
            stdin.flush()
        except BrokenPipeError:
            raise Failure(f"the process of {self.name} is gone.") from None


class Troupe:
    """All the processes of a demo."""

    def __init__(self, url: str, key: str, project_id: str, folder: Path) -> None:
        self._env = {"ORCH_URL": url, "ORCH_API_KEY": key, "ORCH_OUTBOX": str(folder / "outbox")}
        self._project_id, self._folder = project_id, folder
        self._started: list[subprocess.Popen[str]] = []
        self._lock = Lock()
        self._closed = False

    def start(self, name: str, agent_id: str) -> Player:
        """A process that is this agent; returns when it has the lease."""
        line = [sys.executable, "-m", "orchestrator.cli.demo.puppet", agent_id, self._project_id]
        pipe, file = subprocess.PIPE, self._folder / f"{name}.log"
        with self._lock, file.open("a") as log:
            if self._closed:
                raise Failure("the demo is over.")
            process = subprocess.Popen(
                line, env=os.environ | self._env, stdin=pipe, stdout=pipe, stderr=log, text=True, start_new_session=True
            )
            self._started.append(process)
        player = Player(name, process, file)
        player.hear()
        return player

    def close(self) -> None:
        """End every process there is."""
        with self._lock:
            self._closed = True
            for process in self._started:
                process.kill()
            for process in self._started:
                process.wait()
                _close(process)


def _close(process: "subprocess.Popen[str]") -> None:
    for pipe in (process.stdin, process.stdout):
        with suppress(BrokenPipeError):
            cast("TextIO", pipe).close()


@contextmanager
def troupe(url: str, key: str, project_id: str, folder: Path) -> Iterator[Troupe]:
    """A troupe for the length of the block."""
    made = Troupe(url, key, project_id, folder)
    try:
        yield made
    finally:
        made.close()
