"""The databases of the tests: made, copied, and used again when they have been emptied, for a copy takes long."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import cached_property
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Pool, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError

from orchestrator import announcements, books, eras, inspection, lease_tables, models, rollup_tables, suspects
from orchestrator.db import Guard, engine_to
from orchestrator.errors import Unavailable

TABLES = models.metadata.sorted_tables
ELSEWHERE = {
    books.usage_entries,
    lease_tables.leases,
    announcements.announcements,
    suspects.suspects,
    inspection.inspections,
    eras.whereabouts,
    rollup_tables.rollups,
    rollup_tables.fleet_minutes,
    rollup_tables.latency_minutes,
    rollup_tables.usage_hours,
}
assert set(TABLES) >= ELSEWHERE, "every module with tables is imported"

# Whoever has changed more than rows leaves a database that is thrown away.
_SCHEMA = """
    SELECT md5(concat(
        (SELECT json_agg((oid, relname, relkind, relpersistence, reloptions) ORDER BY oid) FROM pg_class
            WHERE relnamespace = 'public'::regnamespace),
        (SELECT json_agg((attrelid, attname, atttypid, attnotnull, attisdropped) ORDER BY attrelid, attnum)
            FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE c.relnamespace = 'public'::regnamespace),
        (SELECT json_agg((oid, convalidated) ORDER BY oid) FROM pg_constraint),
        (SELECT json_agg((oid, tgenabled) ORDER BY oid) FROM pg_trigger),
        (SELECT json_agg(version_num) FROM alembic_version),
        (SELECT json_agg((adrelid, adnum, pg_get_expr(adbin, adrelid)) ORDER BY adrelid, adnum) FROM pg_attrdef),
        (SELECT json_agg((oid, pg_get_functiondef(oid)) ORDER BY oid) FROM pg_proc
            WHERE pronamespace = 'public'::regnamespace),
        (SELECT json_agg(setconfig) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
            WHERE d.datname = current_database())))
"""
FEW = 200
"""So many rows are deleted sooner than all tables are truncated, each with the files of its indexes."""

_FILLED = " UNION ALL ".join(
    f"SELECT '{table.name}' AS name, count(*) AS n FROM (SELECT FROM {table.name} LIMIT {FEW}) few" for table in TABLES
)
_BEGIN_ANEW = "SELECT setval(seqrelid::regclass, seqstart, false) FROM pg_sequence"
_OTHERS = """
    SELECT pg_terminate_backend(pid, 5000), pid FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
        AND (state <> 'idle' OR pid <> ALL(CAST(:ours AS int[])))
"""
_OURS: set[int] = set()
"""The server's processes that have served this one. Those that rest are kept: a new one looks everything up anew, and
has nothing prepared."""


class Database(AbstractContextManager[str]):
    """A database on the given server, dropped at the end; a copy of `template` where one is named. Its URL."""

    def __init__(self, server: str, name: str, template: str | None = None) -> None:
        self._server, self._name, self._template = server, name, template
        self.url = make_url(server).set(database=name).render_as_string(hide_password=False)

    def __enter__(self) -> str:
        copied = f" TEMPLATE {self._template} STRATEGY file_copy" if self._template else ""
        self._run(f"CREATE DATABASE {self._name}{copied}")
        return self.url

    def __exit__(self, *_: object) -> None:
        let_go(self.url)
        self._run(f"DROP DATABASE IF EXISTS {self._name} WITH (FORCE)")

    def _run(self, statement: str) -> None:
        with connected(self._server) as db:
            db.execute(text(statement))


class Spares(ExitStack):
    """Copies of one database, lent to one test after another; dropped at the end."""

    def __init__(self, server: str, template: str) -> None:
        super().__init__()
        self._server, self._template = server, template
        self._free: list[str] = []

    @contextmanager
    def lent(self) -> Iterator[str]:
        """A copy as if newly made; its URL. This process may have connections to it from before."""
        url = self._free.pop() if self._free else self._make()
        yield url
        kept = False
        with suppress(Unavailable, DBAPIError):  # it may let nobody in any more, or somebody still be at work
            kept = self._empty(url)
        if kept:
            self._free.append(url)
        else:
            let_go(url)

    def _make(self) -> str:
        return self.enter_context(Database(self._server, f"orch_alone_{uuid4().hex[:8]}", self._template))

    def _empty(self, url: str) -> bool:
        with engine_to(url, Guard.TOOL).connect().execution_options(isolation_level="AUTOCOMMIT") as db:
            ended = {row.pid for row in db.execute(text(_OTHERS), {"ours": list(_OURS)})}
            if ended & _OURS or db.execute(text(_SCHEMA)).scalar_one() != self._as_new[0]:
                return False
            for statement in _emptying({row.name: row.n for row in db.execute(text(_FILLED)) if row.n}):
                db.execute(text(statement))
            for table, rows in self._as_new[1].items():
                into = f"INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, CAST(:rows AS json))"
                db.execute(text(into), {"rows": rows})
        return True

    @cached_property
    def _as_new(self) -> tuple[str, dict[str, Any]]:
        """The template's schema, and the rows of each table that has any."""
        with connected(Database(self._server, self._template).url) as db:
            rows = {t.name: db.execute(text(f"SELECT json_agg(t)::text FROM {t.name} t")).scalar_one() for t in TABLES}
            return db.execute(text(_SCHEMA)).scalar_one(), {name: some for name, some in rows.items() if some}


def _emptying(filled: dict[str, int]) -> list[str]:
    """The statements that leave nothing in these tables, of which the number of rows is known up to FEW."""
    if max(filled.values(), default=0) >= FEW:
        return [f"TRUNCATE {', '.join(table.name for table in TABLES)} RESTART IDENTITY"]
    return [*(f"DELETE FROM {table.name}" for table in reversed(TABLES) if table.name in filled), _BEGIN_ANEW]


@event.listens_for(Pool, "connect")
def _note(connection: Any, _: Any) -> None:
    _OURS.add(connection.info.backend_pid)


def let_go(url: str) -> None:
    """Close this process's connections to a database."""
    for guard in Guard:
        engine_to(url, guard).dispose()


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """A connection for statements that are no part of a transaction."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()
