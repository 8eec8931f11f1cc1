"""The notes that watchers leave of what runs: whoever comes later clears away by them what outlived its parent."""

import json
import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

PATIENCE_SECONDS = 4.0
"""From the request to stop to SIGKILL, per program; two ranks of programs stop one after the other, within 10 s."""

TELL_SECONDS = 0.5
"""For a worker to write down where it stands."""


def write(note: Path, program: int, watcher: int) -> None:
    """Note the numbers of two processes. In one piece: whoever reads it may come at any moment."""
    half = note.with_suffix(".new")
    half.write_text(json.dumps({"program": _identity(program), "watcher": _identity(watcher)}))
    half.replace(note)


def program(note: Path) -> psutil.Process | None:
    """The noted program, where it lives."""
    return _living(note, "program")


def clear_away(notes: Iterable[Path], stop: signal.Signals = signal.SIGTERM) -> None:
    """End what is left of it: watchers first, since they would start again what ends before them."""
    notes = list(notes)
    watchers = [process for note in notes if (process := _living(note, "watcher"))]
    programs = [process for note in notes if (process := _living(note, "program"))]
    for process in watchers + programs:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(stop)
    psutil.wait_procs(programs + watchers, timeout=PATIENCE_SECONDS)
    for process in programs:
        kill_group(process.pid)
    psutil.wait_procs(programs + watchers, timeout=PATIENCE_SECONDS)
    for note in notes:
        note.unlink(missing_ok=True)


def kill_group(pid: int) -> None:
    """End a program with all that it has started, where there is any of it."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def ask_where_it_stands(worker: int) -> None:
    """Have a worker write down where its threads are, as Celery's do at this signal, and give it the time: once it has
    been killed nobody learns what had made it deaf. One that is frozen says nothing."""
    with suppress(ProcessLookupError):
        os.kill(worker, signal.SIGUSR1)
        time.sleep(TELL_SECONDS)


def _identity(pid: int) -> tuple[int, float]:
    """A process's number and the time it was made: numbers are used again."""
    return pid, psutil.Process(pid).create_time()


def _living(note: Path, which: str) -> psutil.Process | None:
    with suppress(FileNotFoundError, psutil.NoSuchProcess):  # its watcher has just ended, or it has
        pid, born = json.loads(note.read_text())[which]
        process = psutil.Process(pid)
        if abs(process.create_time() - born) < 1:
            return process
    return None
