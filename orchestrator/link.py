"""The door's way to Redis: impatient, and it rests after a failure, so that a frozen Redis never holds a request."""

import time
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import redis
from prometheus_client import Counter

from orchestrator.settings import SettingsError, settings

T = TypeVar("T")

PATIENCE_SECONDS = 0.25
REST_SECONDS = 1.0

CLOSED_CHANNEL = "orch:closed"
"""Workers publish here, after their commit, the ids of commands they closed and of agents whose usage they counted."""

FAILURES = Counter("orchestrator_redis_failures_total", "Calls to Redis that failed, or were not tried while resting.")


class Link:
    """One client per process, with 250 ms to connect and as much to answer; after a failure it rests for a second."""

    def __init__(self, url: str) -> None:
        self.client: Any = redis.Redis.from_url(
            url,
            socket_timeout=PATIENCE_SECONDS,
            socket_connect_timeout=PATIENCE_SECONDS,
            retry=None,
            client_name="orch-link",
        )
        self._rests_until = 0.0

    def attempt(self, call: Callable[[Any], T], otherwise: T) -> T:
        """What `call(client)` returns; `otherwise` when Redis is away or this link is resting."""
        if self.resting:
            FAILURES.inc()
            return otherwise
        try:
            return call(self.client)
        except redis.RedisError:
            self.rest()
            return otherwise

    @property
    def resting(self) -> bool:
        """Whether the last failure was less than a second ago."""
        return time.monotonic() < self._rests_until

    def rest(self) -> None:
        """Count a failure and leave Redis alone for a second."""
        FAILURES.inc()
        self._rests_until = time.monotonic() + REST_SECONDS


def redis_url() -> str:
    """The URL of Redis; raises SettingsError where ORCH_REDIS_URL is missing."""
    url = settings().redis_url
    if url is None:
        raise SettingsError("ORCH_REDIS_URL is not set; `orch up` sets it for its own processes")
    return url


@cache
def link() -> Link:
    """The link of this process; connects on first use."""
    return Link(redis_url())
