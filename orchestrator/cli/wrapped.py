"""A program under guard: it and all that it starts can be stopped, let go on and ended as one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Event, Thread

from orchestrator.sdk.shapes import Told

SOFT_SECONDS = 1.0
"""A program that is asked to stop may tidy up for so long; then it is stopped."""

STOP_SECONDS = 1.0
"""A program that was made to stop is seen stopped within so long, or waits in the kernel for one that is: a parent
stays in vfork while its child, stopped before its exec, does not go on."""

LOOK_SECONDS = 0.05

# When we are killed nobody beats any more, and nobody would tell the program: so whoever reads the other end of our
# pipe ends it. It has a session of its own, so that what is typed at a terminal does not reach it.
_GUARD = 'read -r _ || { kill -s TERM -- "-$1"; kill -s CONT -- "-$1"; sleep "$2"; kill -s KILL -- "-$1"; } 2>&-'


@contextmanager
def _signals_put_off() -> Iterator[None]:
    """What would end us does so after the block. (To block signals would block them in the program as well.)"""
    came: list[int] = []
    kinds = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = {kind: signal.signal(kind, lambda number, _: came.append(number)) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
    for number in came:
        signal.raise_signal(number)


class Program:
    """A program in a process group of its own, with what it starts; what leaves the group is out of our reach.

    `news` brings what the process is told, as whoever listens puts it there, and None when the program has ended.
    """

    def __init__(self, line: Sequence[str], grace: float) -> None:
        """`grace`: seconds between SIGTERM and SIGKILL."""
        self.news: SimpleQueue[Told | None] = SimpleQueue()
        self.code: int | None = None
        """How it has ended, as a shell says it: 128 and the signal's number where a signal has ended it."""
        self._line, self._grace = line, grace
        self._group = 0
        self._still = Event()
        """Set while it is stopped, or has ended."""

    @contextmanager
    def running(self, environment: Mapping[str, str]) -> Iterator[None]:
        """Run it, and nothing of it beyond the block; raises OSError where it cannot be started."""
        guard = watch = None
        try:
            with _signals_put_off():  # none may end us between its start and its guard's
                guard, watch = self._start(environment)
            yield
        finally:
            if guard is not None and watch is not None:
                self._end()
                watch.join()
                guard.communicate(b"\n")

    def _start(self, environment: Mapping[str, str]) -> tuple["subprocess.Popen[bytes]", Thread]:
        is_bare = sys.stdin is None or sys.stdin.isatty()  # in the background, reading a terminal would stop it
        stdin = subprocess.DEVNULL if is_bare else None
        process = subprocess.Popen(self._line, env=environment, stdin=stdin, process_group=0)
        self._group = process.pid
        command = ["sh", "-c", _GUARD, "guard", str(self._group), f"{self._grace:g}"]
        guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        watch = Thread(target=self._watch, args=(process,), daemon=True)
        watch.start()
        return guard, watch

    def stop(self, *, at_once: bool) -> None:
        """Have nothing of it run from here on: it is asked (SIGTSTP), unless it is to be at once, and made to."""
        if not at_once:
            self._send(signal.SIGTSTP)
            self._still.wait(SOFT_SECONDS)
        self._send(signal.SIGSTOP)
        self._still.wait(STOP_SECONDS)

    def go_on(self) -> None:
        """Let it go on."""
        self._send(signal.SIGCONT)

    def _end(self) -> None:
        """Ask all of it to end, and make it after its grace."""
        until = time.monotonic() + self._grace
        alive = self._send(signal.SIGTERM) and self._send(signal.SIGCONT)
        while alive and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
            alive = self._send(0)
        self._send(signal.SIGKILL)

    def _send(self, sign: int) -> bool:
        """Whether there was anybody to send it to."""
        try:
            os.killpg(self._group, sign)
        except ProcessLookupError:
            return False
        return True

    def _watch(self, process: "subprocess.Popen[bytes]") -> None:
        """Only here is it waited for: Popen.wait does not know of stops."""
        while (code := self._change()) is None:
            pass
        process.returncode = code
        self.code = 128 - code if code < 0 else code
        self.news.put(None)

    def _change(self) -> int | None:
        """Wait for the next change; how it has ended."""
        _, status = os.waitpid(self._group, os.WUNTRACED | os.WCONTINUED)
        if os.WIFCONTINUED(status):
            self._still.clear()
            return None
        self._still.set()
        return None if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)
