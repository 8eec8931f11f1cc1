"""A lock, and word that something under it has changed: for threads and for asyncio tasks alike."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Condition


class Change(Condition):
    """A condition for which asyncio tasks can wait as well."""

    def __init__(self) -> None:
        super().__init__()
        self._bells: list[Callable[[], object]] = []
        """What wakes those who wait with asyncio."""

    def tell(self) -> None:
        """Wake all who wait; the caller holds the lock."""
        self.notify_all()
        for ring in self._bells:
            with suppress(RuntimeError):  # its loop was closed, and nobody waits any more
                ring()

    async def later(self) -> None:
        """`wait()` with asyncio: lets the lock go, which the caller holds once, until something has changed."""
        bell = asyncio.Event()
        ring = partial(asyncio.get_running_loop().call_soon_threadsafe, bell.set)
        self._bells.append(ring)
        self.release()
        try:
            await bell.wait()
        finally:
            self.acquire()
            self._bells.remove(ring)
