"""Signals that end a command: as Ctrl-C does, so that nothing of it is left behind."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does; one that is ignored, as under nohup, stays so."""

    def end(sign: int, _: object) -> None:
        sys.exit(128 + sign)

    heeded = [sign for sign in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(sign) is not signal.SIG_IGN]
    before = {sign: signal.signal(sign, end) for sign in heeded}
    try:
        yield
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)
