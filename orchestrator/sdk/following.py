"""Following the feed: a stream of events that goes on by itself where it was cut."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx2

from orchestrator.sdk import shapes
from orchestrator.sdk.calls import FIRST_PAUSE, LONGEST_OBEYED, LONGEST_PAUSE, RETRIED, Call, answer, retry_after
from orchestrator.sdk.documents import nothing
from orchestrator.sdk.errors import NoServer, Resync

SILENCE_SECONDS = 40.0
"""After which a stream is taken for cut: the server says something every 15 s."""


class Opener(Protocol):
    """What opens a stream."""

    def open(self, call: Call[None]) -> AbstractContextManager[httpx2.Response]:
        """The answer, whose body is still to come."""


class AsyncOpener(Protocol):
    """The same with asyncio."""

    def open(self, call: Call[None]) -> AbstractAsyncContextManager[httpx2.Response]:
        """The answer, whose body is still to come."""


@dataclass
class Following:
    """A stream of events, where it has come to, and how often in a row it could not be opened."""

    path: str
    params: Mapping[str, Any]
    last_id: str | None = None
    failures: int = field(default=0, init=False)
    refused: httpx2.Response | None = field(default=None, init=False)
    """The last attempt's answer, where no stream began."""

    def call(self) -> Call[None]:
        """The request that goes on from here."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": self.last_id} if self.last_id else {})
        return Call("GET", self.path, nothing, params=self.params, headers=headers, patience=SILENCE_SECONDS)

    def read(self, message: httpx2.ServerSentEvent) -> shapes.Event | None:
        """The event that a message tells of; None where it only says where the stream stands. Raises Resync."""
        self.last_id, self.failures = message.id or self.last_id, 0
        if message.event == "resync":
            raise Resync(_problem(message), cursor=message.id)
        return shapes.Event(**message.json()) if message.data else None  # type: ignore[arg-type]

    def pause(self) -> float:
        """Seconds before the next attempt; raises the ApiError of an answer after which there is none."""
        refused, self.refused = self.refused, None
        if refused is not None and refused.status_code not in RETRIED:
            answer(self.call(), refused)
        self.failures += 1
        pause = min(FIRST_PAUSE * 2 ** min(self.failures - 1, 10), LONGEST_PAUSE)
        asked = None if refused is None else retry_after(refused)
        # By chance, so that a fleet does not come back in step.
        return min(asked or pause, LONGEST_OBEYED) * random.uniform(0.75, 1.25)  # noqa: S311


def follow(connection: Opener, stream: Following) -> Iterator[shapes.Event]:
    """Each event as it happens, for ever. Raises Resync where the database was restored, and an ApiError where the
    server refuses."""
    while True:
        with suppress(httpx2.TransportError), connection.open(stream.call()) as response:  # cut, or nobody is there
            yield from _told(stream, response)
        time.sleep(stream.pause())


def _told(stream: Following, response: httpx2.Response) -> Iterator[shapes.Event]:
    if _is_stream(response):
        yield from filter(None, map(stream.read, httpx2.EventSource(response)))
    else:
        response.read()
        stream.refused = response


async def follow_later(connection: AsyncOpener, stream: Following) -> AsyncIterator[shapes.Event]:
    """The same with asyncio."""
    while True:
        with suppress(httpx2.TransportError):
            async with connection.open(stream.call()) as response, aclosing(_told_later(stream, response)) as events:
                async for event in events:
                    yield event
        await asyncio.sleep(stream.pause())


async def _told_later(stream: Following, response: httpx2.Response) -> AsyncGenerator[shapes.Event, None]:
    if _is_stream(response):
        async for message in httpx2.EventSource(response):
            if event := stream.read(message):
                yield event
    else:
        await response.aread()
        stream.refused = response


def _is_stream(response: httpx2.Response) -> bool:
    """Whether events are to come; raises NoServer for a success that is something else."""
    kind = response.headers.get("Content-Type", "")
    if response.is_success and not kind.startswith("text/event-stream"):
        raise NoServer(f"what answers at {response.request.url} has no event streams: it sends {kind or 'nothing'}")
    return response.is_success


def _problem(message: httpx2.ServerSentEvent) -> dict[str, Any]:
    detail = message.json()["detail"]  # type: ignore[index]
    return {"status": 410, "detail": detail, "errors": [{"code": Resync.code, "message": detail, "field": None}]}
