"""How an agent's process is ended from outside: SIGTERM leaves the block, so that the lease is given back."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread

EXIT = 128 + signal.SIGTERM
"""As shells say it of who was ended by it."""


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """For the length of the block SIGTERM raises SystemExit: in the main thread, and where nobody else handles it. A
    second one ends the process at once."""
    if current_thread() is not main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise SystemExit(EXIT)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is end:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
