"""Answers that are good for a second: strangers may ask for health and metrics as often as they like."""

import time
from collections.abc import Callable
from functools import wraps
from threading import Lock
from typing import TypeVar

T = TypeVar("T")

GOOD_SECONDS = 1.0


def glance(look: Callable[[], T]) -> Callable[[], T]:
    """`look`, asked at most once a second by all threads of this process; what it raises is not kept.

    Who asks meanwhile waits for it. So what takes long when it fails must return its failure: or they wait in turn.
    """
    lock = Lock()
    seen: list[tuple[float, T]] = []

    @wraps(look)
    def answer() -> T:
        with lock:
            if not seen or time.monotonic() - seen[0][0] > GOOD_SECONDS:
                found = look()
                seen[:] = [(time.monotonic(), found)]
            return seen[0][1]

    return answer
