"""`orch backup` and `orch restore`: the database in a file, and a file as a database. No server is asked."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click

from orchestrator.cli import outlet
from orchestrator.cli.extras import needed
from orchestrator.cli.failures import Failure
from orchestrator.cli.session import Session, command
from orchestrator.cli.signals import ended_by_signals
from orchestrator.cli.verify import judge
from orchestrator.settings import SettingsError, settings


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Write over FILE where it is there already.")
@command
def backup(session: Session, file: Path, force: bool) -> None:
    """Write the whole database into FILE, while everything goes on.

    It is that of ORCH_DATABASE_URL, or of the `orch up` that runs in ORCH_HOME. FILE is there once it is whole.
    """
    with _attempt("`orch backup`"):
        from orchestrator.backup import backup as run  # noqa: PLC0415

        made = run(settings(), file, force)
    session.has_acted = True
    session.show(asdict(made))


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--new-key", is_flag=True, help="Make a new key for the first administrator, in $ORCH_HOME/admin.key.")
@command
def restore(session: Session, file: Path, new_key: bool) -> None:
    """Read a backup into an empty database, and check every invariant. Fails if one is violated.

    It is that of ORCH_DATABASE_URL, or one below ORCH_HOME, where nothing runs. An older backup is migrated.
    """
    with _attempt("`orch restore`"):
        from orchestrator.restore import restore as run  # noqa: PLC0415

        restored = run(settings(), file, new_key)
    of = f"{restored.archive.made_at:%Y-%m-%d %H:%M:%S}Z"
    outlet.say(f"orch: restored as of {of}; all but what was written since is there.")
    session.has_acted = True
    judge(session, [asdict(finding) for finding in restored.findings])


@contextmanager
def _attempt(what: str) -> Iterator[None]:
    """What goes wrong inside the block is a Failure; whatever ends it leaves nothing half done."""
    extras = ("server",) if settings().database_url else ("server", "embedded")
    with needed(what, *extras), ended_by_signals():
        from orchestrator.programs import BackupError  # noqa: PLC0415  # it brings the database's driver along

        try:
            yield
        except (BackupError, SettingsError) as error:
            raise Failure(f"{error}.") from None
