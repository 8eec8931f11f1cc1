"""Opaque cursors: where a page ended, as text a client hands back."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from orchestrator.errors import Invalid, Violation


def encode(*parts: Any) -> str:
    """The cursor that stands for these values."""
    return urlsafe_b64encode(json.dumps([str(part) for part in parts]).encode()).decode().rstrip("=")


def decode(cursor: str, *kinds: Callable[[str], Any], field: str = "cursor") -> list[Any]:
    """The values in a cursor, each through its kind; raises Invalid where it is not one of ours."""
    try:
        parts = json.loads(urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)))
        return [kind(_string(part)) for kind, part in zip(kinds, parts, strict=True)]
    except (Base64Error, ValueError, TypeError, OverflowError, RecursionError):
        raise Invalid(Violation("is not a cursor this server gave out; start again without it", field)) from None


def _string(part: Any) -> str:
    if not isinstance(part, str):
        raise TypeError(part)
    return part


def natural(text: str) -> int:
    """A whole number from 0 to 2⁶³ - 1. Raises ValueError for any other text."""
    if not (text.isascii() and text.isdigit()) or int(text) >= 2**63:
        raise ValueError(text)
    return int(text)


def moment(text: str) -> datetime:
    """A time with its offset, for `decode`."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(text)
    return time


def uuid(text: str) -> UUID:
    """A UUID, for `decode`."""
    return UUID(text)
