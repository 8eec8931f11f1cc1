"""Backups: the whole database in one file, as it was at one moment, while everybody goes on writing."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, text

from orchestrator import revisions
from orchestrator.bootstrap import reached
from orchestrator.programs import BackupError, run, tool
from orchestrator.settings import Settings, SettingsError

_MAJOR = text("SELECT current_setting('server_version_num')::int / 10000")


@dataclass(frozen=True)
class Backup:
    """A file that was written: how large it is, of which schema revision, and how long it took."""

    file: str
    bytes: int
    revision: str
    seconds: float


def backup(here: Settings, file: Path, force: bool) -> Backup:
    """Write the database of the settings into a file, which is there only once it is whole and on disk; over an older
    one only by `force`. Raises BackupError or SettingsError where that is impossible."""
    began = time.monotonic()
    dump = tool("pg_dump")
    url, revision, server = _source(here)
    dump.check(server)
    with _whole(file, force) as part:
        # By name: to its standard output pg_dump would write the table of contents twice, and without places.
        run(dump, "--format=custom", "--no-unlogged-table-data", f"--file={part}", url=url)
    return Backup(str(file), file.stat().st_size, revision, round(time.monotonic() - began, 1))


def major(db: Connection) -> int:
    """The server's major version."""
    version: int = db.execute(_MAJOR).scalar_one()
    return version


def _source(here: Settings) -> tuple[str, str, int]:
    """Where the database is, its revision, and the server's major version."""
    url = here.database_url or _embedded(here.home)
    try:
        with reached(url) as db:
            revision, server = revisions.current(db), major(db)
    except SettingsError:
        if here.database_url:
            raise
        raise BackupError(
            f"no PostgreSQL runs below ORCH_HOME={here.home}: start it with `orch up`, or set ORCH_HOME or "
            "ORCH_DATABASE_URL to where your database is"
        ) from None
    if revision is None:
        raise BackupError("the database is empty: there is nothing to back up; see ORCH_HOME and ORCH_DATABASE_URL")
    return url, revision, server


def _embedded(home: Path) -> str:
    from orchestrator.embedded import Postgres  # noqa: PLC0415  # needs the wheels of the embedded servers

    return Postgres(home).url


@contextmanager
def _whole(file: Path, force: bool) -> Iterator[Path]:
    """The file under another name, empty, to be written. It gets its own once the block has ended well, and is removed
    if not."""
    _check_free(file, force)
    part = file.absolute().with_name(f"{file.name}.part")
    with ExitStack() as leftover:
        handle = _made(part)
        leftover.callback(part.unlink, missing_ok=True)
        leftover.callback(os.close, handle)
        yield part
        _check_free(file, force)  # again: it has taken a while
        with _writing(part):
            os.fsync(handle)
            part.replace(file)
            _sync(part.parent)
        leftover.pop_all()
        os.close(handle)


def _check_free(file: Path, force: bool) -> None:
    if file.is_dir():
        raise BackupError(f"{file} is a folder; name a file in it")
    if file.exists() and not force:
        raise BackupError(f"{file} is there already; name another file, or write over it with --force")


def _made(part: Path) -> int:
    """A new file that only its owner can read: whoever has it has every agent's memory."""
    with _writing(part):
        return os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


@contextmanager
def _writing(part: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise BackupError(f"{part} is there: another backup writes it, or was killed; remove it if none runs") from None
    except OSError as error:
        raise BackupError(f"cannot write {part}: {error.strerror}; name a file where there is room") from None


def _sync(folder: Path) -> None:
    """Make the file's name as lasting as what is in it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
