"""Restores: a backup into an empty database, which then is at head, in a new era, and looked over."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text

from orchestrator import eras, verify
from orchestrator.archives import Archive
from orchestrator.backup import major
from orchestrator.bootstrap import migrate, reached, renew_key, transaction
from orchestrator.programs import BackupError, Tool, run, tool
from orchestrator.settings import Settings

# What an extension has brought along is in no one's way.
_TABLES = text("""
    SELECT count(*) FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
        AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
""")
_REVISION = text("INSERT INTO alembic_version (version_num) VALUES (:revision)")
_LOOK_OVER = text("ANALYZE")
"""Without it the planner takes every table for an empty one until autovacuum comes along."""

_TO_DISK = text("CHECKPOINT")
"""A server that has much to write when it is told to end is killed, and its next start takes as much longer."""


@dataclass(frozen=True)
class Restored:
    """What was restored, and how the books stand: judged as of the backup, since nothing has gone on from there."""

    archive: Archive
    findings: list[verify.Finding]


def restore(here: Settings, file: Path, new_key: bool) -> Restored:
    """Read a backup into the empty database of the settings; with `new_key` make a key for its first administrator.
    Raises BackupError or SettingsError where that is impossible; then the database is still empty."""
    program = tool("pg_restore")
    archive = Archive.read(program, file)
    with _target(here) as url:
        _check(url, program)
        _load(program, archive, url)
        _complete(url, archive)
        if new_key and not renew_key(url, here.home / "admin.key"):
            raise BackupError("all is restored, but there is no active superuser whom a new key could be for")
        return Restored(archive, _judge(url, archive))


@contextmanager
def _target(here: Settings) -> Iterator[str]:
    """The address of the database; an embedded one runs for the length of the block."""
    if here.database_url:
        yield here.database_url
        return
    from orchestrator import embedded, notes, stack  # noqa: PLC0415  # need the wheels of the embedded servers

    with stack.alone(here.home):
        run = here.home / "run"
        run.mkdir(exist_ok=True)
        notes.clear_away(run.glob("*.json"))
        with embedded.postgres(here.home) as url:
            yield url
            with reached(url) as db:
                db.execute(_TO_DISK)


def _check(url: str, program: Tool) -> None:
    with reached(url) as db:
        program.check(major(db))
        if count := db.execute(_TABLES).scalar_one():
            raise BackupError(
                f"the database is not empty ({count} tables and sequences): restore into an empty one, which a new "
                "ORCH_HOME or a new database in ORCH_DATABASE_URL is"
            )


def _load(program: Tool, archive: Archive, url: str) -> None:
    """All of it, or nothing."""
    with archive.but_for_revision() as entries:
        whole = ["--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges"]
        try:
            run(program, *whole, f"--use-list={entries}", str(archive.file), url=url)
        except BackupError as error:
            raise BackupError(f"nothing was restored: {error}") from None


def _complete(url: str, archive: Archive) -> None:
    """In one transaction: nobody finds a database that seems to be ready, but is in its old era."""
    with transaction(url) as db:
        db.execute(_REVISION, {"revision": archive.revision})
        migrate(db)
        eras.begin(db)


def _judge(url: str, archive: Archive) -> list[verify.Finding]:
    with reached(url) as db:
        db.execute(_LOOK_OVER)
    with transaction(url) as db:
        return verify.check(db, archive.made_at)
