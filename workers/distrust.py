"""Whoever can write to Redis can ring; here is what sees to it that they can do nothing else.

Celery and kombu trust what they read there: what is no message at all ends the worker, and so does one of the wrong
shape (see `workers.consumer`); and a broadcast can stop a worker, or have it take no more messages.
"""

from collections.abc import Callable
from typing import Any

from celery.worker.control import Panel
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombus
from redis import ConnectionError as RedisConnectionError

from orchestrator import logs

OUT_OF_SHAPE = (ValueError, TypeError, LookupError, AttributeError)
"""What reading raises where something else was expected: nothing that a connection raises is among them."""

HARMLESS = {"enable_events", "heartbeat"}
"""Of the orders that workers take from a broadcast. (Questions, such as `ping`, are no orders.)"""

log = logs.logger("worker")


class Channel(kombus.Channel):  # type: ignore[misc]
    """Reads on where something was no message, and calls a closed connection lost."""

    def _brpop_read(self, **options: Any) -> Any:
        return _or_drop(super()._brpop_read, **options)

    def _receive_one(self, c: Any) -> Any:
        return _or_drop(super()._receive_one, c)

    def _connparams(self, asynchronous: bool = False) -> Any:
        if getattr(self.connection, "client", None) is None:  # kombu would fail in a way that ends the worker
            raise RedisConnectionError("this connection is closed")
        return super()._connparams(asynchronous)


class Transport(kombus.Transport):  # type: ignore[misc]
    """kombu's, with our channel."""

    Channel = Channel


def install() -> None:
    """From now on, for every connection to Redis that Celery makes in this process, and every order it is sent."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
    for name, command in Panel.meta.items():
        if command.type == "control" and name not in HARMLESS:
            Panel.data.pop(name, None)


def _or_drop(read: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """What was read; true, as for a message that was dealt with, where it was none."""
    try:
        return read(*given, **named)
    except OUT_OF_SHAPE as error:
        log.warning("message_dropped", **logs.cause(error))
        return True
