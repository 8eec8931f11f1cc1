"""The way to PostgreSQL: one engine per process, database and kind of work, and `begin()`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from functools import cache
from typing import Any

import psycopg
from psycopg.types.json import set_json_loads
from pydantic_core import from_json
from sqlalchemy import Connection, Engine, create_engine, event, exc, text
from sqlalchemy.engine.interfaces import ExceptionContext

from orchestrator.errors import Unavailable
from orchestrator.settings import SettingsError, settings

DRAIN_SECONDS = 8


_IN_ORDER = "-c jit=off -c enable_sort=off -c enable_hashjoin=off -c enable_mergejoin=off"


class Guard(Enum):
    """How long the database lets one kind of work go on before it ends it for us.

    A frozen or cut-off worker must free its agents within 10 s, a request must answer within seconds. Who looks over
    the queue, or watches over a drain, holds nothing that others need, and may take longer.
    (PostgreSQL does not count the idleness that follows a pipeline; there the transaction's own limit frees them.)
    The drain's claim must walk its index in order: stale statistics make the planner sort, or hash, the whole
    backlog for each batch (docs/decisions/0009).
    """

    DOOR = "-c lock_timeout=2s -c statement_timeout=5s -c idle_in_transaction_session_timeout=5s -c jit=off"
    DRAIN = (
        f"-c transaction_timeout={DRAIN_SECONDS}s -c idle_in_transaction_session_timeout=5s -c lock_timeout=3s"
        f" {_IN_ORDER}"
    )
    WATCH = f"-c lock_timeout=3s -c statement_timeout=60s -c idle_in_transaction_session_timeout=15s {_IN_ORDER}"
    TOOL = "-c lock_timeout=5s -c statement_timeout=10min"


ANSWER_SECONDS = 6
"""The door's longest wait for any answer of the database: a second more than the database lets a statement go on. One
that stands still, its host as well, ends nothing for us."""

_KEEPALIVE = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 8_000,
}
"""A server that is cut off without a word is given up after about ten seconds, not after two hours (libpq's options, in
s and, the last, in ms; no connection through a socket file needs them)."""


def engine(guard: Guard) -> Engine:
    """The engine of this process for one kind of work; connects on first use.

    Raises SettingsError where ORCH_DATABASE_URL is missing.
    """
    url = settings().database_url
    if url is None:
        raise SettingsError("ORCH_DATABASE_URL is not set; `orch up` sets it for its own processes")
    return engine_to(url, guard)


@cache
def engine_to(url: str, guard: Guard) -> Engine:
    """The same for a database that is not the one of the environment."""
    made = create_engine(
        url,
        pool_size=settings().web_threads + 2 if guard is Guard.DOOR else 2,
        hide_parameters=True,  # an error's text goes to the logs, where no e-mail address belongs
        max_overflow=0,
        pool_use_lifo=True,  # the connection used last has its statements prepared
        pool_timeout=2,
        connect_args={
            "options": f"{guard.value} -c TimeZone=UTC",
            "connect_timeout": 2,
            **_KEEPALIVE,
            "application_name": f"orch-{guard.name.lower()}",
        },
    )
    if guard is Guard.DOOR:
        event.listen(made, "do_connect", _connect_for_a_door)
        event.listen(made, "checkin", _be_impatient)
    event.listen(made, "handle_error", _translate)
    event.listen(made, "connect", _read_json)
    return made


@contextmanager
def begin(guard: Guard = Guard.DOOR) -> Iterator[Connection]:
    """One transaction: committed when the block ends, rolled back when it raises.

    Raises Unavailable when the database cannot be reached, is too busy, or gave up waiting for a lock.
    """
    try:
        with engine(guard).begin() as connection:
            yield connection
    except exc.TimeoutError as error:
        raise Unavailable(retry_after=1) from error


@contextmanager
def autocommit(guard: Guard = Guard.DOOR) -> Iterator[Connection]:
    """Each statement its own transaction, without the two round trips of BEGIN and COMMIT: for reads that need no
    common snapshot, and for a write that is one statement.

    Raises Unavailable as `begin` does.
    """
    try:
        with engine(guard).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            yield connection
    except exc.TimeoutError as error:
        raise Unavailable(retry_after=1) from error


def forget_connections() -> None:
    """After a fork: leave the parent's connections alone and open our own."""
    for guard in Guard:
        engine(guard).dispose(close=False)


def be_patient(db: Connection, seconds: int) -> None:
    """Let each statement of this transaction take so long, where a door's may take five seconds."""
    db.execute(text(f"SET LOCAL statement_timeout = '{seconds}s'"))
    db.connection.driver_connection.patience = seconds + 1  # type: ignore[union-attr]


class _DoorConnection(psycopg.Connection[Any]):
    """One that is given up where no answer comes."""

    patience = 0.0
    """For how long an answer is waited for, where that is longer than for any other."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """As psycopg's, for so long at most; the connection is closed then, as what comes later is for nobody."""
        began, most = time.monotonic(), max(ANSWER_SECONDS, self.patience)
        try:
            return super().wait(gen, interval, timeout or most)
        except psycopg.OperationalError:
            if time.monotonic() - began >= most:
                self.pgconn.finish()
            raise


def _connect_for_a_door(_: Any, __: Any, arguments: list[Any], options: dict[str, Any]) -> Any:
    return _DoorConnection.connect(*arguments, **options)


def _be_impatient(connection: _DoorConnection | None, _: Any) -> None:
    if connection is not None:  # it was given up
        connection.patience = 0.0


_BUSY = ("55P03", "57014", "25P03", "25P04", "40P01", "40001")
"""SQLSTATEs of a wait that was cut short (lock, statement, transaction, idle) or lost to another (deadlock)."""

_LOST = ("08", "53", "57")
"""Classes of SQLSTATE: connection lost, out of connections or space, server starting or stopping."""

READ_ONLY = "25006"
"""SQLSTATE of a write to a standby, as the old primary is after a failover."""


def unavailable(error: BaseException | None) -> Unavailable | None:
    """What to raise instead of a driver's error that trying again may cure; None for any other."""
    state: str | None = getattr(error, "sqlstate", None)
    gone = isinstance(error, psycopg.OperationalError) and state is None
    if gone or state in (*_BUSY, READ_ONLY) or (state or "")[:2] in _LOST:
        return Unavailable(retry_after=1)
    return None


_AS_IT_STANDS = ("0A", "26", "42")
"""Classes of SQLSTATE: a plan that no longer fits, a statement that is not prepared, a name, a type or a right that is
missing."""

_DISK = "58"
"""Class of SQLSTATE: what could not be read or written."""


def refused(error: BaseException) -> bool:
    """Whether the database refused a statement as it stands, whatever it was given, as it does for a process of another
    revision: it refuses every other batch as well."""
    return _class(error) in _AS_IT_STANDS


def blameless(error: BaseException) -> bool:
    """Whether the command that was tried has nothing to do with it: the same, or a disk that fails, where one row's
    block may be all that cannot be read."""
    return refused(error) or _class(error) == _DISK


def _class(error: BaseException) -> str:
    state: str | None = getattr(getattr(error, "orig", error), "sqlstate", None)
    return (state or "")[:2]


def _read_json(connection: "psycopg.Connection[Any]", _: Any) -> None:
    """With pydantic's reader, in a tenth of the time that Python's takes: a batch reads hundreds of small documents."""
    set_json_loads(from_json, connection)


def _translate(context: ExceptionContext) -> None:
    problem = unavailable(context.original_exception)
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True  # the next connection may lead to the new primary
    if problem is not None:
        raise problem from context.original_exception
