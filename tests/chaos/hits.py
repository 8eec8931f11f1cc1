"""Whom a fault has hit: one that hit nobody has not happened."""

import time
from collections.abc import Callable
from dataclasses import dataclass

FREEZE_SECONDS = (0.5, 3.0)
BRIEF_SECONDS = (0.3, 2.0)
PATIENCE_SECONDS = 4.0
"""For somebody who comes by."""


class Missed(Exception):
    """Nobody was hit."""


@dataclass(frozen=True)
class Hit:
    """So many of what: connections, keys, a process and its number. Of nobody there is none: that raises Missed."""

    number: int
    whom: str
    killed: int | None = None
    """The number of the process that must be replaced by another."""

    def __post_init__(self) -> None:
        if not self.number:
            raise Missed(self.whom)


def wait_until(happened: Callable[[], object], seconds: float | None = None) -> None:
    """Raises Missed where it does not happen in time."""
    deadline = time.monotonic() + (seconds or PATIENCE_SECONDS)
    while not happened():
        if time.monotonic() > deadline:
            raise Missed
        time.sleep(0.005)
