"""`orch` as somebody calls it: in this process, as a process of its own, or on a terminal."""

import codecs
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli import main, render
from tests.stage import ROOT
from tests.wire import Gunicorn

COMMAND = [sys.executable, "-m", "orchestrator.cli"]


@contextmanager
def serving(log: Path, **environment: str) -> Iterator[str]:
    """The address of a web server as production runs it, for the length of the block."""
    with Gunicorn.start(log, **environment) as running:
        yield f"http://127.0.0.1:{running.port}"


@contextmanager
def answering(status: int, headers: dict[str, str], body: bytes) -> Iterator[str]:
    """The address of a server that gives everybody the same answer."""

    class Parrot(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815  # as http.server calls them

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Parrot) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@dataclass(frozen=True)
class Orch:
    """The command line in an environment: which server, which key, which project."""

    env: dict[str, str]
    program: Sequence[str] = tuple(COMMAND)
    """What is started where a call is a process."""

    def __call__(self, *line: str, **env: str | None) -> Result:
        """One call in this process, as `start` does it; standard output is no terminal."""
        return CliRunner(catch_exceptions=False).invoke(main, line, env=self.env | env)

    def json(self, *line: str) -> Any:
        """What a call that succeeds prints, as JSON."""
        result = self(*line)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def table(self, *line: str) -> str:
        """What a call that succeeds prints as a table."""
        result = self(*line, "-o", "table")
        assert result.exit_code == 0, result.output
        return result.stdout

    def start(self, *line: str, **env: str | None) -> "subprocess.Popen[str]":
        """One call as a process; what is None is not in its environment."""
        given = {name: value for name, value in {**os.environ, **self.env, **env}.items() if value is not None}
        pipe = subprocess.PIPE
        return subprocess.Popen([*self.program, *line], cwd=ROOT, env=given, stdout=pipe, stderr=pipe, text=True)

    def run(self, *line: str, **env: str | None) -> "subprocess.CompletedProcess[str]":
        """One call as a process, to its end."""
        with self.start(*line, **env) as process:
            out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(line, process.returncode, out, err)

    def redirected(self, how: str, *line: str, **env: str) -> "subprocess.CompletedProcess[bytes]":
        """One call as a process, with its streams as a shell redirects them."""
        shell = ["sh", "-c", f'"$@" {how}', "sh", *COMMAND, *line]
        return subprocess.run(
            shell, cwd=ROOT, env=os.environ | self.env | env, capture_output=True, timeout=60, check=False
        )

    def drawn(self, *line: str, **env: str) -> tuple[int, str]:
        """The exit code of one call in this process, and all that it drew on a terminal: for tables. How a process
        behaves on one is `on_terminal`'s, which takes half a second longer."""
        ours, theirs = pty.openpty()
        with ThreadPoolExecutor(1) as reader, pytest.MonkeyPatch.context() as patch:
            shown = reader.submit(lambda: "".join(_read(ours)))
            for name, value in (self.env | {"TERM": "xterm"} | env).items():
                patch.setenv(name, value)
            with os.fdopen(theirs, "w") as screen:
                patch.setattr(sys, "stdout", screen)
                render.console.cache_clear()  # it knows whether there is a terminal
                with pytest.raises(SystemExit) as ended:
                    main(line, prog_name="orch")
        render.console.cache_clear()
        os.close(ours)
        return int(ended.value.code or 0), shown.result()

    def on_terminal(
        self, *line: str, once: Sequence[tuple[str, Callable[[], object]]] = (), **env: str
    ) -> tuple[int, str]:
        """The exit code of one call as a process on a terminal, and all that was written there.

        `once`: what is done as soon as some words stand there, one after the other; then comes Ctrl-C.
        """
        ours, theirs = pty.openpty()
        given = os.environ | {"TERM": "xterm", "COLUMNS": "160", "LINES": "50"} | self.env | env
        with subprocess.Popen([*COMMAND, *line], cwd=ROOT, env=given, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            shown, to_come = "", [*once]
            for piece in _read(ours):
                shown += piece
                while to_come and to_come[0][0] in re.sub(r"\x1b\[[\d;]*m", "", shown):
                    to_come.pop(0)[1]()
                    if not to_come:
                        process.send_signal(signal.SIGINT)
        os.close(ours)
        return process.returncode, shown


def _read(terminal: int) -> Iterator[str]:
    """What is written there, piece by piece, to the end."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    try:
        while read := os.read(terminal, 65536):
            yield decode(read)
    except OSError:  # how Linux says that the other side has closed
        pass
