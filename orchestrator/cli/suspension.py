"""Ctrl-Z at `orch run`: the program is stopped first, and then we are; SIGCONT lets both go on."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from orchestrator.sdk.shapes import Told

_WORD = Told(directive="pause", mode="checkpoint", deadline=None, reason="SIGTSTP", version=0)


class Suspension:
    """SIGTSTP, which would stop us alone: the program would go on, and nobody would beat. It becomes a word for whoever
    obeys, and stops us once he says that nothing of the program runs."""

    def __init__(self, tell: Callable[[Told], None]) -> None:
        """`tell` is called by a signal's handler: it must not wait for anything."""
        self._tell = tell
        self._due = self._still = False

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """For the length of the block, in the main thread: from before the program starts until it has ended.
        Where SIGTSTP is ignored it stays so."""
        before = signal.getsignal(signal.SIGTSTP)
        if before is not signal.SIG_DFL:
            yield
            return
        signal.signal(signal.SIGTSTP, self._ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGTSTP, before)

    @contextmanager
    def still(self) -> Iterator[None]:
        """Nothing of the program runs inside the block: whoever has asked us to stop, or asks now, stops us."""
        self._still = True
        try:
            if self._due:
                self._stop()
            yield
        finally:
            self._still = False

    def _ask(self, *_: object) -> None:
        self._due = True
        if self._still:
            self._stop()
        else:
            self._tell(_WORD)

    def _stop(self) -> None:
        """Returns with SIGCONT. SIGTSTP would do nothing where no shell is there that could let us go on."""
        self._due = False
        os.kill(os.getpid(), signal.SIGSTOP)
