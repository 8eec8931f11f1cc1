"""The database's clock, and what a client's showed then."""

from collections.abc import Iterable
from datetime import datetime


class Clock:
    """Reads the one by the other. The database wrote down when it took each command: never before that was sent, and at
    once of the quickest. By so much the two clocks differ, however long most were on their way."""

    def __init__(self, taken: Iterable[tuple[str, int]] = ()) -> None:
        self._apart = min((_read(requested) - sent for requested, sent in taken), default=0)

    def at(self, time: str) -> int:
        """When it was that, by the client's."""
        return _read(time) - self._apart


def _read(time: str) -> int:
    """Nanoseconds since 1970; more than microseconds no answer has."""
    return round(datetime.fromisoformat(time).timestamp() * 10**6) * 1000
