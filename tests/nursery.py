"""Web servers and workers, forked from a process that has loaded their code: to load it takes 1.0 to 1.7 s of a
processor, longer than most of what is tested takes, and a hundred of them are started. From there on each is what its
command line makes of it. `orch up` and the services of the compose file are started as an operator starts them."""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

READ_WHEN_LOADED = {"LD_PRELOAD", "PROMETHEUS_MULTIPROC_DIR"}
"""What the loader, or a module, reads from the environment and never again: with one of these a process is new."""

_nursery = multiprocessing.get_context("forkserver")
_nursery.set_forkserver_preload(
    [
        "gunicorn.app.wsgiapp",
        "web",
        "web.worker",
        "celery.bin.celery",
        "celery.apps.worker",
        "workers.tasks",
        "workers.sweeper",
    ]
)


class Child:
    """A process that was forked, with what is used of `subprocess.Popen`."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process
        self.pid = process.pid or 0

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it lives."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once there is one. Raises TimeoutExpired after so many seconds."""
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Where it lives."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


Started = Child | subprocess.Popen[bytes]


def start(module: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> Started:
    """`python -m module arguments` in a session of its own, with `environment` beside ours; what it says is added to
    `log`."""
    environment = os.environ | environment
    if READ_WHEN_LOADED & environment.keys():
        command = [sys.executable, "-W", "ignore", "-m", module, *arguments]
        with log.open("ab") as output:
            return subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    process = _nursery.Process(target=_run, args=(module, arguments, log, dict(environment)), name=module, daemon=True)
    process.start()
    return Child(process)


def _run(module: str, arguments: Sequence[str], log: Path, environment: dict[str, str]) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    with log.open("ab") as output:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())
    sys.argv[:] = [module, *arguments]
    warnings.simplefilter("ignore")
    runpy.run_module(module, run_name="__main__", alter_sys=True)
