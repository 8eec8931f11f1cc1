"""What keeps programs alive, with a program of its own to keep."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.stage import ROOT, eventually

KEEPING = """
import sys
from pathlib import Path
from orchestrator.runner import Keeper, Program

keeper = Keeper(Path(sys.argv[1]))
keeper.begin([Program("program", [sys.executable, sys.argv[2]])])
keeper.loop()
"""

LEAVES_ONE_BEHIND = """
import os, signal, subprocess

child = subprocess.Popen(["sleep", "600"])
child.send_signal(signal.SIGSTOP)
print("begun", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


LIVES = """
import time

print("begun", flush=True)
time.sleep(600)
"""


@contextmanager
def kept(folder: Path, code: str) -> Iterator[tuple[Path, "subprocess.Popen[bytes]"]]:
    """A program of this code is kept alive, for the length of the block: all that is printed, and who keeps it."""
    program, log = folder / "program.py", folder / "log"
    program.write_text(code)
    with log.open("wb") as output:
        keeping = subprocess.Popen(
            [sys.executable, "-c", KEEPING, str(folder), str(program)], cwd=ROOT, stdout=output, stderr=output
        )
    try:
        yield log, keeping
    finally:
        keeping.terminate()
        keeping.wait(20)
        for process in programs(folder):
            process.kill()


def programs(folder: Path) -> list[psutil.Process]:
    """Those of the kept program that live."""
    file = str(folder / "program.py")
    found = [process for process in psutil.process_iter(["cmdline"]) if file in (process.info["cmdline"] or [])]
    return [process for process in found if "-c" not in process.info["cmdline"]]


def pids(folder: Path) -> tuple[int, int]:
    """The program's, and its watcher's."""
    note = json.loads((folder / "program.json").read_text())
    return note["program"][0], note["watcher"][0]


def test_a_program_is_started_again_though_it_leaves_a_frozen_child_behind(tmp_path: Path) -> None:
    with kept(tmp_path, LEAVES_ONE_BEHIND) as (log, _):
        eventually(lambda: log.read_text().count("begun") > 1)

        assert "ended (signal SIGKILL); starting again in 0.2 s" in log.read_text()


def test_a_watcher_that_dies_is_started_again_with_its_program_and_nothing_outlives_it(tmp_path: Path) -> None:
    with kept(tmp_path, LIVES) as (log, _):
        eventually(lambda: log.read_text().count("begun") == 1)
        program, watcher = pids(tmp_path)

        os.kill(watcher, signal.SIGKILL)

        eventually(lambda: log.read_text().count("begun") == 2)
        assert "The watcher of program had ended; both are started again" in log.read_text()
        assert [process.pid for process in programs(tmp_path)] == [pids(tmp_path)[0]], "two would work side by side"
        again, another = pids(tmp_path)
        assert {again, another}.isdisjoint({program, watcher})
        os.kill(again, signal.SIGKILL)
        eventually(lambda: log.read_text().count("begun") == 3)


def test_a_stop_leaves_no_program_whose_watcher_has_just_died(tmp_path: Path) -> None:
    with kept(tmp_path, LIVES) as (log, keeping):
        eventually(lambda: log.read_text().count("begun") == 1)
        os.kill(pids(tmp_path)[1], signal.SIGKILL)
        keeping.terminate()
        keeping.wait(20)

        assert programs(tmp_path) == []
        assert not (tmp_path / "program.json").exists()
