"""Where the queue begins. An old snapshot, such as a backup's, keeps in the indexes what has been closed since, and
every walk from the very front steps over all of it."""

import time
from functools import cache

from orchestrator.claims import FRONT, Marks

LONG_SECONDS = 0.02
SHARE = 20
"""A walk from the very front that was long is followed by none for so many times as long."""


class LowWater:
    """The mark below which nothing has waited, as far as this process has seen. Only a walk from the very front finds
    what was numbered early and committed late, so it is taken always, unless it has become long."""

    def __init__(self) -> None:
        self._mark, self._due = FRONT, 0.0

    def begin(self) -> Marks:
        """Where a claim is to begin now."""
        return FRONT if time.monotonic() >= self._due else self._mark

    def walked(self, start: Marks, seconds: float, first: Marks = FRONT) -> None:
        """A walk from there has taken so long, and this is where it has found the first of each kind."""
        if start == FRONT:
            self._mark = self._mark.beyond(first)
            self._due = time.monotonic() + SHARE * seconds if seconds >= LONG_SECONDS else 0.0


@cache
def low_water() -> LowWater:
    """This process's."""
    return LowWater()
