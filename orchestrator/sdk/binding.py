"""How an operation becomes a method: of the client that waits for its answer, and of the one for asyncio."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from orchestrator.sdk.calls import Call
from orchestrator.sdk.documents import Listing
from orchestrator.sdk.following import Following, follow, follow_later
from orchestrator.sdk.shapes import Event

P = ParamSpec("P")
T = TypeVar("T")


class Sender(Protocol):
    """What sends a call and waits for its answer."""

    def send(self, call: Call[T]) -> T:
        """The answer."""


class AsyncSender(Protocol):
    """The same with asyncio."""

    async def send(self, call: Call[T]) -> T:
        """The answer."""


def pages(connection: Sender, listing: Listing[T]) -> Iterator[T]:
    """Every item, page after page, as they are asked for."""
    cursor = None
    while True:
        page = connection.send(listing.page(cursor))
        yield from page.data
        cursor = page.next_cursor
        if cursor is None:
            return


async def pages_later(connection: AsyncSender, listing: Listing[T]) -> AsyncIterator[T]:
    """The same with asyncio."""
    cursor = None
    while True:
        page = await connection.send(listing.page(cursor))
        for item in page.data:
            yield item
        cursor = page.next_cursor
        if cursor is None:
            return


class Part:
    """Some of a client's operations; those of a project know which one."""

    def __init__(self, connection: Any, *place: str) -> None:
        self._connection = connection
        self._place = place


def now(operation: Callable[P, Call[T]]) -> Callable[Concatenate[Any, P], T]:
    """A method that waits for the answer."""

    @wraps(operation)
    def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        answer: T = self._connection.send(operation(*self._place, *args, **kwargs))
        return answer

    return method


def later(operation: Callable[P, Call[T]]) -> Callable[Concatenate[Any, P], Awaitable[T]]:
    """The same with asyncio."""

    @wraps(operation)
    async def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        answer: T = await self._connection.send(operation(*self._place, *args, **kwargs))
        return answer

    return method


def all_now(operation: Callable[P, Listing[T]]) -> Callable[Concatenate[Any, P], Iterator[T]]:
    """A method that goes through all items."""

    @wraps(operation)
    def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return pages(self._connection, operation(*self._place, *args, **kwargs))

    return method


def all_later(operation: Callable[P, Listing[T]]) -> Callable[Concatenate[Any, P], AsyncIterator[T]]:
    """The same with asyncio."""

    @wraps(operation)
    def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        return pages_later(self._connection, operation(*self._place, *args, **kwargs))

    return method


def followed_now(operation: Callable[P, Following]) -> Callable[Concatenate[Any, P], Iterator[Event]]:
    """A method that waits for each event."""

    @wraps(operation)
    def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[Event]:
        return follow(self._connection, operation(*self._place, *args, **kwargs))

    return method


def followed_later(operation: Callable[P, Following]) -> Callable[Concatenate[Any, P], AsyncIterator[Event]]:
    """The same with asyncio."""

    @wraps(operation)
    def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[Event]:
        return follow_later(self._connection, operation(*self._place, *args, **kwargs))

    return method


_PlaceP = ParamSpec("_PlaceP")


def placed(operation: Callable[Concatenate[str, _PlaceP], T]) -> Callable[_PlaceP, T]:
    """An operation in a project, whose id the part adds."""
    return operation  # type: ignore[return-value]
