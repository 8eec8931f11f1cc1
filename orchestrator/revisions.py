"""The schema's revisions, as Alembic counts them: what every process asks, without loading Alembic."""

from functools import cache
from pathlib import Path

from psycopg.errors import UndefinedTable
from sqlalchemy import Connection, exc, text

SCRIPTS = Path(__file__).parent / "migrations" / "versions"

_CURRENT = text("SELECT version_num FROM alembic_version")


@cache
def known() -> frozenset[str]:
    """The revisions this code can come from: each script's name begins with its own."""
    return frozenset(script.name.split("_")[0] for script in SCRIPTS.glob("[0-9]*_*.py"))


def head() -> str:
    """The revision this code was written for, like '0006': that of the last script."""
    return max(known())


def current(db: Connection) -> str | None:
    """The revision the database is at; none where it was never migrated, and then the transaction is over."""
    try:
        revision: str | None = db.execute(_CURRENT).scalar_one_or_none()
    except exc.ProgrammingError as error:
        if not isinstance(error.orig, UndefinedTable):
            raise
        return None
    return revision
