"""A stack of the demo's own: `orch up` with a temporary home, and nothing left of it afterwards."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from orchestrator.cli.client import Client
from orchestrator.cli.failures import Failure

READY_SECONDS = 90.0
STOP_SECONDS = 15.0


@contextmanager
def own_stack() -> Iterator[Client]:
    """The API of a new stack with embedded servers, as its administrator sees it; gone when the block ends."""
    home = Path(mkdtemp(prefix="orch-demo-"))
    port = _free_port()
    try:
        with (home / "up.log").open("wb") as log, _running(home, port, log.fileno()) as process:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(process, url, home)
            with Client(url, (home / "admin.key").read_text().strip()) as client:
                yield client
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _running(home: Path, port: int, log: int) -> Iterator["subprocess.Popen[bytes]"]:
    mine = {"ORCH_HOME": str(home), "ORCH_PORT": str(port), "ORCH_FLOWER_PORT": "0", "ORCH_LIMITS": '{"*": "off"}'}
    theirs = {name: value for name, value in os.environ.items() if not name.startswith("ORCH_")}
    # In a session of its own: Ctrl-C is for us, and we stop it in order.
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli", "up"],
        env=theirs | mine,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str, home: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if "\nReady in " in _log(home):
            return
        time.sleep(0.1)
    last = "\n".join(_log(home).strip().splitlines()[-5:])
    raise Failure(f"the stack at {url} did not become ready; it said:\n{last}")


def _log(home: Path) -> str:
    return (home / "up.log").read_text(errors="replace")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
