"""How paths and fields become calls: what every operation is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from orchestrator.sdk import shapes
from orchestrator.sdk.calls import Call

T = TypeVar("T")

LONGEST_WAIT = 30.0
"""Seconds the server holds one answer, at most."""
PAGE = 100


@dataclass(frozen=True)
class Listing(Generic[T]):
    """A list by cursor: the call for its first page, and for any other by the cursor of the one before."""

    page: Callable[[str | None], Call[shapes.Page[T]]]


def listing(path: str, shape: type[T], cursor: str = "cursor", **params: Any) -> Listing[T]:
    """A list of `shape`; `cursor` is the name of the query parameter that goes on after a page."""

    def read(document: Any) -> shapes.Page[T]:
        data = [shape(**item) for item in document["data"]]
        return shapes.Page(data=data, next_cursor=document["pagination"]["next_cursor"])

    return Listing(lambda at: Call("GET", path, read, params={**params, "limit": PAGE, cursor: at}))


def get(path: str, shape: type[T], **params: Any) -> Call[T]:
    """One thing."""
    return Call("GET", path, lambda document: shape(**document), params=params)


def send(method: str, path: str, shape: type[T], **body: Any) -> Call[T]:
    """A mutation; fields that are None are left out."""
    given = {name: plain(value) for name, value in body.items() if value is not None}
    return Call(method, path, lambda document: shape(**document), given)


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    return value.isoformat() if isinstance(value, datetime) else value


def nothing(_: Any) -> None:
    """The answer of what has none."""


def is_id(text: str) -> bool:
    """Whether this is an id, and not a slug or a name."""
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
