"""What keeps programs alive, with a program of its own to keep."""

import subprocess
import sys
from pathlib import Path

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


def test_a_program_is_started_again_though_it_leaves_a_frozen_child_behind(tmp_path: Path) -> None:
    program, log = tmp_path / "program.py", tmp_path / "log"
    program.write_text(LEAVES_ONE_BEHIND)
    with log.open("wb") as output:
        keeping = subprocess.Popen(
            [sys.executable, "-c", KEEPING, str(tmp_path), str(program)], cwd=ROOT, stdout=output, stderr=output
        )

    try:
        eventually(lambda: log.read_text().count("begun") > 1)
        assert "ended (signal SIGKILL); starting again in 0.2 s" in log.read_text()
    finally:
        keeping.terminate()
        keeping.wait(20)
