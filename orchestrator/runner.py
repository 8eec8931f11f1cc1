"""Keeping programs alive: honcho's manager and processes, with restarts and an order of stopping."""

import multiprocessing
import os
import queue
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, TimeoutExpired
from threading import Event, Thread
from typing import Any

from honcho.manager import Manager
from honcho.process import Popen, Process

from orchestrator import notes
from orchestrator.notes import PATIENCE_SECONDS, clear_away, kill_group

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 2.0
"""Seconds before a program that died is started again: doubled from death to death."""

HEALTHY_SECONDS = 10.0
"""After so long alive the next death is the first again."""

LOOK_SECONDS = 1.0
"""How often the watchers are looked at; one that cannot live is not to be started in a circle."""


@dataclass(frozen=True)
class Program:
    """A command to be kept alive. `rank` 0 starts first and stops last."""

    name: str
    command: list[str]
    stop: signal.Signals = signal.SIGTERM
    rank: int = 1
    user: str | None = None
    env: dict[str, str] = field(default_factory=dict)

    def popen(self, **options: Any) -> Popen:
        """Start it, in a session of its own, under its user and in its environment."""
        env = os.environ | self.env
        return Popen(self.command, shell=False, env=env, stdin=DEVNULL, **as_user(self.user), **options)


def as_user(user: str | None) -> dict[str, Any]:
    """The options of Popen that make a program run under an account; none for our own."""
    # Our own working folder may be closed to it, and our groups would open what is not its own.
    return {"user": user, "group": user, "extra_groups": [], "cwd": "/"} if user else {}


class Child(Process):  # type: ignore[misc]
    """The process that watches over one program: starts it again when it dies, stops it when told to or orphaned.

    It leaves a note of the program and of itself, so that what outlives it, or its parent, can be cleared away.
    """

    def __init__(
        self, program: Program, folder: Path, lifeline: tuple[int, int], command: list[str], **options: Any
    ) -> None:
        super().__init__(command, **options)
        self.program, self.note = program, folder / f"{program.name}.json"
        self._lifeline, self._parents_end = lifeline

    def run(self, events: Any = None, **_: Any) -> None:
        """The life of the watching process."""
        os.close(self._parents_end)
        self._events, self._stopping = events, Event()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches everyone; the manager tells us
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # and so does its end
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        Thread(target=self._follow_parent, daemon=True).start()
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            began = time.monotonic()
            code = self._live()
            pause = FIRST_PAUSE if time.monotonic() - began > HEALTHY_SECONDS else pause
            how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
            if not self._stopping.is_set():
                self._send_message(f"ended ({how}); starting again in {pause:g} s\n")
                self._stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        self.note.unlink(missing_ok=True)
        if events is not None:
            events.cancel_join_thread()  # nobody may be reading any more

    def _live(self) -> int:
        self._child = self.program.popen()
        notes.write(self.note, program=self._child.pid, watcher=os.getpid())
        if self._stopping.is_set():  # told so while starting
            self._stop()
        telling = Thread(target=self._tell, args=(self._child.stdout,), daemon=True)
        telling.start()
        code: int = self._child.wait()
        telling.join(PATIENCE_SECONDS / 2)  # its children end by themselves, but for one that is frozen
        kill_group(self._child.pid)  # what it left behind would work beside its successor
        return code

    def _tell(self, output: Any) -> None:
        with output:
            for line in iter(output.readline, b""):
                self._send_message(line)

    def _stop(self) -> None:
        self._stopping.set()
        if self._child is not None and self._child.returncode is None:
            _signal(self._child.pid, self.program.stop)
            Thread(target=self._insist, args=(self._child.pid,), daemon=True).start()

    def _insist(self, pid: int) -> None:
        time.sleep(PATIENCE_SECONDS)
        kill_group(pid)

    def _follow_parent(self) -> None:
        os.read(self._lifeline, 1)  # nobody writes: it ends when the parent does
        self._stop()  # a signal of ours could reach a thread that does not wait


class Keeper(Manager):  # type: ignore[misc]
    """Starts programs, prints what they say, and stops them in order when a signal comes."""

    def __init__(self, folder: Path, **options: Any) -> None:
        """The notes are left in `folder`."""
        super().__init__(**options)
        self._folder, self._asked_to_stop = folder, False
        # Not multiprocessing's sentinel: watchers that are started later inherit it, so that it outlives the parent.
        self._lifeline = os.pipe()
        hang_up = set() if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else {signal.SIGHUP}  # not under nohup
        for signum in {signal.SIGINT, signal.SIGTERM} | hang_up:
            signal.signal(signum, self._ask_to_stop)

    @property
    def stopping(self) -> bool:
        """Whether a signal has come."""
        return self._asked_to_stop

    def begin(self, programs: Iterable[Program]) -> None:
        """Start these programs, each with its watcher."""
        for program in programs:
            self._process_ctor = partial(Child, program, self._folder, self._lifeline)
            self.add_process(program.name, program.command)
            self._watch(program.name)

    def start_again(self, name: str) -> None:
        """End this worker, however it takes that; its watcher starts it again."""
        if process := notes.program(self._folder / f"{name}.json"):
            notes.ask_where_it_stands(process.pid)
            kill_group(process.pid)

    def pump(self) -> None:
        """Print one line of theirs, or wait for it a little."""
        with suppress(queue.Empty):
            self._printer.write(self.events.get(timeout=0.1))

    def loop(self) -> None:
        """Print until a signal comes, then stop everything."""
        due = 0.0
        while not self._asked_to_stop:
            self.pump()
            if time.monotonic() >= due:
                self._look_after_watchers()
                due = time.monotonic() + LOOK_SECONDS
        self.stop()

    def stop(self) -> None:
        """Stop all programs, the highest rank first; returns when none of them lives."""
        entries = list(self._processes.values())
        for rank in sorted({entry["obj"].program.rank for entry in entries}, reverse=True):
            self._stop([entry["process"] for entry in entries if entry["obj"].program.rank == rank])
        clear_away(entry["obj"].note for entry in entries)  # what has lost its watcher

    def _watch(self, name: str) -> None:
        entry = self._processes[name]
        entry["process"] = multiprocessing.Process(name=name, target=entry["obj"].run, args=(self.events,))
        entry["process"].start()

    def _look_after_watchers(self) -> None:
        """Start those again that have ended, with their programs: nobody would start these when they end."""
        for name, entry in self._processes.items():
            if not entry["process"].is_alive():
                clear_away([entry["obj"].note], entry["obj"].program.stop)
                self._watch(name)
                self._system_print(f"The watcher of {name} had ended; both are started again\n")

    def _stop(self, watchers: list[Any]) -> None:
        for watcher in watchers:
            watcher.terminate()
        deadline = time.monotonic() + PATIENCE_SECONDS + 1
        while any(watcher.is_alive() for watcher in watchers) and time.monotonic() < deadline:
            self.pump()
        for watcher in watchers:
            watcher.kill()
            watcher.join()

    def _ask_to_stop(self, *_: object) -> None:
        self._asked_to_stop = True


@contextmanager
def running(program: Program, log: Path) -> Iterator[Popen]:
    """The program as a process of ours, for the length of the block, its output in a file; nobody restarts it."""
    with log.open("ab") as output:
        process = program.popen(stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.send_signal(program.stop)
        try:
            process.wait(PATIENCE_SECONDS)
        except TimeoutExpired:
            kill_group(process.pid)
            process.wait()


def _signal(pid: int, signum: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signum)
