"""The pulse of a worker: when it last took a message. A worker that answers every ping and takes nothing is deaf: that
happens where its connection to Redis breaks at a bad moment, and only a new start helps.

Each worker takes from a queue of its own besides, in which whoever looks at its pulse puts a canary: so there is always
something for this one to take, whatever others take from the queues of all.

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
from uuid import uuid4

from redis import Redis, RedisError

from orchestrator.link import redis_url
from orchestrator.settings import settings

QUEUES = ("commands", "upkeep")
"""What all workers take from."""

OWN = "pulse."
"""How the name of a worker's own queue begins."""

CANARY, CANARY_SECONDS = "{}", 3600
"""What is put there, and how long the queue of a worker that is gone stays."""

PATIENCE_SECONDS = 2.0
PARENT_SECONDS = 0.2
"""How soon a watcher notices that its worker has ended."""

LOOKS, START_SECONDS = 9, 20
"""How often a worker's pulse is looked at before it is called deaf; how much longer one may take that has just been
started."""


def note(folder: Path) -> None:
    """A message was taken. It matters more than its note: where the folder was deleted, or does not let us write, it is
    taken all the same."""
    with suppress(OSError):
        os.utime(_file(folder))


def taken_at(folder: Path) -> float:
    """When one was last taken, in seconds since 1970; as long as none was, when the folder was first used. 0 where
    somebody has deleted the note, or hidden it."""
    with suppress(OSError):
        return _file(folder).stat().st_mtime
    return 0.0


def own_queue(folder: Path) -> str:
    """The queue of the worker with this folder, named by whoever asks first."""
    file = _file(folder)
    if not file.exists() or not file.stat().st_size:
        folder.mkdir(parents=True, exist_ok=True)
        half = file.with_suffix(f".{os.getpid()}")
        half.write_text(f"{OWN}{uuid4()}")  # no host's name: two may have one
        half.replace(file)
    return file.read_text()


class Watch:
    """Somebody who looks at a worker's pulse, again and again. It counts looks, and reads no clock: one that was set,
    or a machine that slept, says nothing of the worker."""

    def __init__(self, folder: Path, redis_url: str, *, looks: int, more_at_first: int) -> None:
        """A worker is deaf after so many `looks` in a row; one that has taken nothing since it was started, or since
        Redis came back, after so many more."""
        self._folder, self._client = folder, _client(redis_url)
        own_queue(folder)
        self._looks, self._more_at_first = looks, more_at_first
        self.begin_anew()

    @classmethod
    def over(cls, folder: Path, redis_url: str, seconds: float) -> Self:
        """One for whom a worker is deaf after so many seconds, where each look comes a `LOOKS`th of them later."""
        return cls(folder, redis_url, looks=LOOKS, more_at_first=round(START_SECONDS * LOOKS / seconds))

    def begin_anew(self) -> None:
        """Look at another worker from now on, or at one that has to find its way back."""
        self._in_vain, self._taken_at = -self._more_at_first, taken_at(self._folder)

    def deaf(self) -> bool:
        """Look, and leave a canary for the next look: whether nothing was taken at each of those looks.

        While Redis is away, or takes no writes, as it does not give anything then, nobody is deaf; nor where the folder
        was deleted and cannot be made again, for nobody can note anything there.
        """
        if not self._leave_one():
            self.begin_anew()
            return False
        was, self._taken_at = self._taken_at, taken_at(self._folder)
        self._in_vain = self._in_vain + 1 if self._taken_at == was else 0
        return self._in_vain > self._looks

    def _leave_one(self) -> bool:
        try:
            return _canary_waited(self._client, own_queue(self._folder)) is not None
        except OSError:
            return False


def _file(folder: Path) -> Path:
    """Its text is the name of the queue, its time of change that of the last message."""
    return folder / "taken"


def _client(url: str) -> Any:
    return Redis.from_url(url, socket_timeout=PATIENCE_SECONDS, socket_connect_timeout=PATIENCE_SECONDS, retry=None)


def _canary_waited(client: Any, queue: str) -> bool | None:
    """Put a canary into a queue: whether the one before was still there; None where Redis takes none now."""
    try:
        with client.pipeline() as pipe:
            waited, *_ = pipe.llen(queue).delete(queue).lpush(queue, CANARY).expire(queue, CANARY_SECONDS).execute()
    except RedisError:
        return None
    return bool(waited)


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
    from orchestrator import logs, notes  # noqa: PLC0415  # slow to import for the health check, every few seconds

    logs.configure("pulse")
    while _lives_on(worker, settings().deaf_after / LOOKS):
        if watch.deaf():
            logs.logger("pulse").error("deaf", seconds=settings().deaf_after)
            notes.ask_where_it_stands(worker)
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
    """End with 1 and a sentence where a canary waits and nothing was taken for ORCH_DEAF_AFTER seconds."""
    seconds = settings().deaf_after
    if _canary_waited(_client(redis_url()), own_queue(folder)) and time.time() - taken_at(folder) > seconds:
        raise SystemExit(f"the worker has taken nothing for {seconds:g} s, and something waits for it")


if __name__ == "__main__":
    main()
