"""The pulse of a worker: when it last took a message from each queue. A worker that answers every ping and takes
nothing is deaf: that happens where its connection to Redis breaks at a bad moment, and only a new start helps.

`python -m orchestrator.pulse` is the health check of a worker with the same environment.
"""

import time
from pathlib import Path
from typing import Any

from redis import Redis, RedisError

from orchestrator.link import redis_url
from orchestrator.settings import settings

QUEUES = ("commands", "upkeep")
"""What a worker takes from; a canary is sent through each every ten seconds."""

PATIENCE_SECONDS = 2.0


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
    """End with 1 and a sentence where messages wait and none was taken for ORCH_DEAF_AFTER seconds."""
    folder, seconds = settings().pulse, settings().deaf_after
    if folder is None:
        raise SystemExit("ORCH_PULSE is not set; it is the folder in which the worker notes what it takes")
    for queue in _waiting(_client(redis_url())) or ():
        if time.time() - taken_at(folder, queue) > seconds:
            raise SystemExit(f"nothing was taken from {queue} for {seconds:g} s, and something waits there")


if __name__ == "__main__":
    main()
