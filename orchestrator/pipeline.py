"""Several statements in one round trip: psycopg's pipeline, on SQLAlchemy's connection.

A drain of ten statements one after the other spends most of its time waiting for answers it does not need yet.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row
from sqlalchemy import Connection, TextClause
from sqlalchemy.dialects.postgresql import psycopg as dialect

from orchestrator.db import READ_ONLY, refused, unavailable

_DIALECT = dialect.dialect()  # type: ignore[no-untyped-call]

Call = tuple[TextClause, Mapping[str, Any]]


def together(db: Connection, *calls: Call) -> list[psycopg.Cursor[Any]]:
    """Run the statements in order, in one round trip; a cursor each, of named tuples.

    Raises Unavailable as `begin` does, and psycopg's errors as they are.
    """
    return _run(db, calls, _driver(db).pipeline())


def one_by_one(db: Connection, *calls: Call) -> list[psycopg.Cursor[Any]]:
    """The same in a round trip each. On a connection that commits each statement by itself, the next begins after the
    one before has been committed. (psycopg's pipeline would wait in between as well, and cost a third more.)"""
    return _run(db, calls, nullcontext())


def _run(db: Connection, calls: Sequence[Call], manner: AbstractContextManager[Any]) -> list[psycopg.Cursor[Any]]:
    raw = _driver(db)
    try:
        with manner:
            return [raw.cursor(row_factory=namedtuple_row).execute(_sql(sql), values) for sql, values in calls]
    except psycopg.Error as error:
        # One with answers still on their way, or with statements prepared that are none any more, is of no use. Nor is
        # one that psycopg takes to have prepared what the server skipped behind the error; a rollback makes it forget
        # that, and there is none where each statement is committed by itself.
        if raw.closed or error.sqlstate == READ_ONLY:
            _give_up_all(db, error)
        elif error.sqlstate is None or refused(error) or raw.autocommit:
            db.invalidate()
        problem = unavailable(error)
        if problem is not None:
            raise problem from error
        raise


def _give_up_all(db: Connection, error: psycopg.Error) -> None:
    """It is lost, or leads to a standby, and so will those that are as old: each would fail once, and one to a server
    that stands still after seconds. SQLAlchemy does the same for its own statements."""
    db.engine.pool._invalidate(db.connection, error, _checkin=False)  # noqa: SLF001  # which has no other name
    db.invalidate()


def _driver(db: Connection) -> "psycopg.Connection[Any]":
    return db.connection.driver_connection  # type: ignore[return-value]


@cache
def _sql(statement: TextClause) -> bytes:
    return str(statement.compile(dialect=_DIALECT)).encode()
