"""The database's clock, and what a client's showed then."""

from collections.abc import Iterable
from datetime import datetime
from statistics import median_low


class Clock:
    """Reads the one by the other. Of most commands the database wrote down soon after they were sent when it took them:
    by so much the two clocks differ."""

    def __init__(self, taken: Iterable[tuple[str, int]] = ()) -> None:
        apart = [_read(requested) - sent for requested, sent in taken]
        self._apart = median_low(apart) if apart else 0

    def at(self, time: str) -> int:
        """When it was that, by the client's."""
        return _read(time) - self._apart


def _read(time: str) -> int:
    """Nanoseconds since 1970; more than microseconds no answer has."""
    return round(datetime.fromisoformat(time).timestamp() * 10**6) * 1000
