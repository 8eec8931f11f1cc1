"""The door's way to Redis: impatient, and it rests after a failure, so that a frozen Redis never holds a request."""

import socket
import time
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, TypeVar
from uuid import UUID

import redis
from prometheus_client import Counter
from pydantic_core import to_json

from orchestrator.settings import SettingsError, settings

T = TypeVar("T")

PATIENCE_SECONDS = 0.25
REST_SECONDS = 1.0

KEEPALIVE = {
    socket.TCP_KEEPIDLE: 10,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 10_000,
}
"""A server that is cut off without a word is given up after some twenty seconds, by who listens to it, too."""

CLOSED_CHANNEL = "orch:closed"
"""Workers publish here, after their commit, the ids of commands they closed and of agents whose usage they counted."""

CANCELLED_CHANNEL = "orch:cancelled"
"""Doors publish here the ids of commands that were taken back; apart, because it does not show that a worker lives."""

FAILURES = Counter("orchestrator_redis_failures_total", "Calls to Redis that failed, or were not tried while resting.")


class Link:
    """One client per process, with 250 ms to connect and as much to answer; after a failure it rests for a second."""

    def __init__(self, url: str) -> None:
        self.client: Any = redis.Redis.from_url(
            url,
            socket_timeout=PATIENCE_SECONDS,
            socket_connect_timeout=PATIENCE_SECONDS,
            retry=None,
            socket_keepalive=True,
            socket_keepalive_options=KEEPALIVE,
            health_check_interval=10,  # a listener, too, says something now and then
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


def tell(channel: str, ids: Iterable[UUID]) -> None:
    """Publish these ids, to all who listen at the moment; where Redis is away nobody hears."""
    message = to_json(list(ids))
    link().attempt(lambda client: client.publish(channel, message), otherwise=0)
