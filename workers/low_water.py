"""Where the queue begins. An old snapshot, such as a backup's, keeps in the indexes what has been closed since, and
every walk from the very front steps over all of it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from orchestrator import claims
from orchestrator.claims import FRONT, Marks
from orchestrator.db import Guard, begin

LONG_SECONDS = 0.02

SHARE, MOST_SECONDS, LEAST_SHARE = 20, 2.0, 4
"""After a look from the very front that was long, there is none for so many times as long, and for so long at most,
unless it took itself a good part of that: what was committed very late lies before the mark, and waits meanwhile."""


class LowWater:
    """The mark before which nothing waited when this process last looked. Only a walk from the very front finds what
    has come before it since, so each is one, unless they have become long."""

    def __init__(self) -> None:
        self._long, self._mark, self._due = False, FRONT, 0.0

    def begin(self) -> Marks:
        """Where a walk is to begin now."""
        if self._long and time.monotonic() >= self._due:
            self._look()
        return self._mark if self._long else FRONT

    def _look(self) -> None:
        began = time.monotonic()
        with begin(Guard.WATCH) as db:  # for longer than a drain's transaction may last
            self._mark = claims.first(db)
        now = time.monotonic()
        took = now - began
        self._long, self._due = took >= LONG_SECONDS, now + min(SHARE * took, max(MOST_SECONDS, LEAST_SHARE * took))

    @contextmanager
    def walk(self, start: Marks) -> Iterator[None]:
        """A walk from there takes place inside the block, whatever becomes of it."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.walked(start, time.monotonic() - began)

    def walked(self, start: Marks, seconds: float) -> None:
        """A walk from there has taken so long."""
        self._long = self._long or (start == FRONT and seconds >= LONG_SECONDS)


@cache
def low_water() -> LowWater:
    """This process's."""
    return LowWater()
