"""The pulse of a worker: when it last took a message from each queue. A worker that answers every ping and takes
nothing is deaf: that happens where its connection to Redis breaks at a bad moment, and only a new start helps.

`python -m orchestrator.pulse` is the health check of a worker with the same environment, and `python -m
orchestrator.pulse COMMAND…` runs a worker that is killed once it is deaf: what restarts a container that ends does not
restart one that is unhealthy.
"""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from redis import Redis, RedisError

from orchestrator.link import redis_url
from orchestrator.settings import settings

QUEUES = ("commands", "upkeep")
"""What a worker takes from; a canary is sent through each every ten seconds."""

PATIENCE_SECONDS = 2.0
PARENT_SECONDS = 0.2
"""How soon a watcher notices that its worker has ended."""

LOOKS, START_SECONDS = 9, 20
"""How often a worker's pulse is looked at before it is called deaf; how much longer one may take that has just been
started."""


def note(folder: Path, queue: str) -> None:
    """A message was taken. The queue's name is as the message gives it, and strangers name no file."""
    if queue in QUEUES:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / queue).touch()


def taken_at(folder: Path, queue: str) -> float:
    """When one was last taken, in seconds since 1970; 0 for never."""
    file = folder / queue
    return file.stat().st_mtime if file.exists() else 0.0


class Watch:
    """Somebody who looks at a worker's pulse, again and again. It counts looks, and reads no clock: one that was set,
    or a machine that slept, says nothing of the worker."""

    def __init__(self, folder: Path, redis_url: str, *, looks: int, more_at_first: int) -> None:
        """A worker is deaf after so many `looks` in a row; one that has taken nothing since it was started, or since
        Redis came back, after so many more."""
        self._folder, self._client = folder, _client(redis_url)
        self._looks, self._more_at_first = looks, more_at_first
        self.begin_anew()

    @classmethod
    def over(cls, folder: Path, redis_url: str, seconds: float) -> Self:
        """One for whom a worker is deaf after so many seconds, where each look comes a `LOOKS`th of them later."""
        return cls(folder, redis_url, looks=LOOKS, more_at_first=round(START_SECONDS * LOOKS / seconds))

    def begin_anew(self) -> None:
        """Look at another worker from now on, or at one that has to find its way back."""
        self._in_vain = dict.fromkeys(QUEUES, -self._more_at_first)
        self._taken_at = {queue: taken_at(self._folder, queue) for queue in QUEUES}

    def deaf(self) -> list[str]:
        """Look: the queues in which messages have waited at each of those looks, and none was taken meanwhile.

        While Redis is away nobody is deaf.
        """
        waiting = _waiting(self._client)
        if waiting is None:
            self.begin_anew()
            return []
        for queue in QUEUES:
            was, self._taken_at[queue] = self._taken_at[queue], taken_at(self._folder, queue)
            if self._taken_at[queue] != was:
                self._in_vain[queue] = 0
            elif queue not in waiting:
                self._in_vain[queue] = min(self._in_vain[queue], 0)
            else:
                self._in_vain[queue] += 1
        return [queue for queue, looks in self._in_vain.items() if looks > self._looks]


def _client(url: str) -> Any:
    return Redis.from_url(url, socket_timeout=PATIENCE_SECONDS, socket_connect_timeout=PATIENCE_SECONDS, retry=None)


def _waiting(client: Any) -> list[str] | None:
    """The queues in which messages wait; None where Redis is away."""
    try:
        return [queue for queue in QUEUES if client.llen(queue)]
    except RedisError:
        return None


def main() -> None:
    """The health check; or, with a command, that command, watched."""
    folder, command = settings().pulse, sys.argv[1:]
    if folder is None:
        raise SystemExit("ORCH_PULSE is not set; it is the folder in which the worker notes what it takes")
    if command:
        _run_watched(command, folder)
    else:
        _check(folder)


def _run_watched(command: list[str], folder: Path) -> None:
    """Become the command: its signals and its end are its own. The child that looks on ends it, or ends with it."""
    watch = Watch.over(folder, redis_url(), settings().deaf_after)
    worker = os.getpid()
    if not os.fork():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the worker
        _end_when_deaf(worker, watch)
        return
    try:
        os.execvp(command[0], command)  # noqa: S606  # the command is the operator's own
    except OSError as error:
        raise SystemExit(f"cannot run {command[0]}: {error.strerror}") from None


def _end_when_deaf(worker: int, watch: Watch) -> None:
    from orchestrator import logs  # noqa: PLC0415  # slow to import, and the health check would do it every few seconds

    logs.configure("pulse")
    while _lives_on(worker, settings().deaf_after / LOOKS):
        if queues := watch.deaf():
            logs.logger("pulse").error("deaf", queues=queues)
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)  # it may stand still, and would hear nothing else
            return


def _lives_on(worker: int, seconds: float) -> bool:
    """Whether our parent is still the worker after so many seconds; told at once where it is not."""
    until = time.monotonic() + seconds
    while os.getppid() == worker:
        if time.monotonic() >= until:
            return True
        time.sleep(PARENT_SECONDS)
    return False


def _check(folder: Path) -> None:
    """End with 1 and a sentence where messages wait and none was taken for ORCH_DEAF_AFTER seconds."""
    seconds = settings().deaf_after
    for queue in _waiting(_client(redis_url())) or ():
        if time.time() - taken_at(folder, queue) > seconds:
            raise SystemExit(f"nothing was taken from {queue} for {seconds:g} s, and something waits there")


if __name__ == "__main__":
    main()
