"""A Redis of a test's own: to be stopped, frozen, wiped, and started again where it was."""

import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
import redis

from orchestrator.embedded import Valkey
from orchestrator.link import Link, link
from orchestrator.runner import running
from orchestrator.settings import settings
from workers.app import app as celery

LET_GO: list[Link] = []
"""Links are kept: one that goes closes its connections under the threads that still listen on them."""


def forget_redis() -> None:
    """Let this process read its settings, and look for Redis, anew."""
    LET_GO.append(link())
    settings.cache_clear()
    link.cache_clear()
    link()  # at once: a listening thread that was about to make one would leave it behind after the test
    celery.amqp._producer_pool = None


class OwnRedis:
    """One server below a folder; its address stays the same whatever happens to it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = Valkey(folder)
        self._life = ExitStack()
        self._process: Any = None
        self.url = self._server.url
        self.client = redis.Redis.from_url(self.url, retry=None)

    @classmethod
    @contextmanager
    def start(cls, folder: Path) -> Iterator[Self]:
        """One that runs, for the length of the block."""
        server = cls(folder)
        server.begin()
        try:
            yield server
        finally:
            server.client.close()
            server.stop()

    def begin(self) -> None:
        """Start it, with what it has kept."""
        self._process = self._life.enter_context(running(self._server.prepare(), self._folder / "valkey.log"))
        self._server.wait()

    def stop(self) -> None:
        """Stop it; what it had is kept."""
        self._life.close()

    def lose(self) -> None:
        """Forget what a stopped server had kept."""
        shutil.rmtree(self._folder / "valkey")

    @contextmanager
    def ours(self) -> Iterator[Self]:
        """This process's door, and all processes started meanwhile, use it: where two fleets share a Redis, each takes
        the other's bells."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ORCH_REDIS_URL", self.url)
            patch.setattr(celery.conf, "broker_write_url", self.url)
            forget_redis()
            yield self
        forget_redis()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It takes connections and answers nothing."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)
