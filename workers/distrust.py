"""Whoever can write to Redis can ring; here is what sees to it that they can do nothing else.

Celery and kombu trust what they read there: what is no message at all ends the worker, and so does one of the wrong
shape; what a message says of time limits, of a later time or of who is to be called next is obeyed; and a broadcast can
stop a worker, or have it take no more messages. So each message is made anew, of the little that it may say.
"""

import json
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any
from uuid import UUID, uuid4

from celery.worker.control import Panel
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombus
from redis import ConnectionError as RedisConnectionError

from orchestrator import logs, pulse
from orchestrator.settings import settings

OUT_OF_SHAPE = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError, MemoryError)
"""What reading raises where something else was expected: nothing that a connection raises is among them."""

HARMLESS = {"enable_events", "heartbeat"}
"""Of the orders that workers take from a broadcast. (Questions, such as `ping`, are no orders.)"""

NO_ARGUMENTS = b64encode(json.dumps([[], {}, {}]).encode()).decode()
"""The body of each message: none of our tasks takes any."""

LISTENING_SECONDS = 1.0
"""For how long a read of broadcasts waits. There is something to be read when one begins, or ought to be; kombu's waits
for ever, and its process with it, where there is nothing, or half of a message."""

log = logs.logger("worker")


class QoS(kombus.QoS):  # type: ignore[misc]
    """Sends back to its queue what was not acknowledged, and forgets what was no message."""

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        """Send one back. (kombu's would do so on connecting, and the worker would not start.)"""
        try:
            super().restore_by_tag(tag, client, leftmost)
        except OUT_OF_SHAPE as error:
            log.warning("message_dropped", **logs.cause(error))
            self._remove_from_indices(tag).execute()


class Channel(kombus.Channel):  # type: ignore[misc]
    """Reads on where something was no message, waits for none for ever, and calls a closed connection lost."""

    QoS = QoS

    @cached_property
    def subclient(self) -> Any:
        """What broadcasts are read from."""
        listener = super().subclient
        listener.parse_response = partial(_hear, listener, listener.parse_response)
        return listener

    def _brpop_read(self, **options: Any) -> Any:
        return _or_drop(super()._brpop_read, **options)

    def _receive_one(self, c: Any) -> Any:
        return _or_drop(super()._receive_one, c)

    def _connparams(self, asynchronous: bool = False) -> Any:
        if getattr(self.connection, "client", None) is None:  # kombu would fail in a way that ends the worker
            raise RedisConnectionError("this connection is closed")
        return super()._connparams(asynchronous)


class Transport(kombus.Transport):  # type: ignore[misc]
    """kombu's, with our channel; it hands on no message of a task as it came, and no canary at all."""

    Channel = Channel

    def _deliver(self, message: Any, queue: str) -> None:
        if queue.startswith(pulse.OWN):
            _note()
            return
        if queue in pulse.QUEUES:
            _note()
            message = made_anew(message, queue)
        elif "compression" in message["headers"]:  # none of ours is, and a few bytes could become all of the memory
            raise ValueError("it is compressed")
        super()._deliver(message, queue)


def install() -> None:
    """From now on, for every connection to Redis that Celery makes in this process, and every order it is sent."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
    for name, command in Panel.meta.items():
        if command.type == "control" and name not in HARMLESS:
            Panel.data.pop(name, None)


def made_anew(message: Any, queue: str) -> dict[str, Any]:
    """A message from a queue of tasks: which task it names, its id and when it is over are all that is kept of it. One
    that does not say so much, or in another form, raises one of OUT_OF_SHAPE."""
    given = message["headers"]
    id_, task = str(UUID(given["id"])), given["task"]
    if not isinstance(task, str):
        raise TypeError("a task's name is a text")
    return {
        "body": NO_ARGUMENTS,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {
            "lang": "py",
            "task": task,
            "id": id_,
            "root_id": id_,
            "expires": _moment(given.get("expires")),
            "argsrepr": "()",  # for Flower
            "kwargsrepr": "{}",
        },
        "properties": {
            "correlation_id": id_,
            "delivery_tag": str(uuid4()),  # two with one tag would be taken for one
            "delivery_info": {"exchange": "", "routing_key": queue},
            "body_encoding": "base64",
            "priority": 0,
        },
    }


def _note() -> None:
    folder = settings().pulse
    if folder is not None:
        pulse.note(folder)


def _moment(text: Any) -> str | None:
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC).isoformat()


def _hear(listener: Any, read: Callable[..., Any]) -> Any:
    if not listener.connection.can_read(timeout=LISTENING_SECONDS):
        log.warning("nothing_heard")
        return None
    return read(block=False, timeout=LISTENING_SECONDS)


def _or_drop(read: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """What was read; true, as for a message that was dealt with, where it was none."""
    try:
        return read(*given, **named)
    except OUT_OF_SHAPE as error:
        log.warning("message_dropped", **logs.cause(error))
        return True
