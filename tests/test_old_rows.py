"""Rows of agents that nobody has written for two thousand million transactions: PostgreSQL's own numbers of them, which
the drain compares, have come round by then."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import psycopg
import pytest
from flask_openapi3 import OpenAPI

from orchestrator import suspects
from orchestrator.bootstrap import prepare
from orchestrator.db import Guard, begin, engine
from orchestrator.drain import Drainer
from orchestrator.embedded import DATABASE, ROOT_RUNS_AS, postgres_binary
from orchestrator.runner import as_user
from tests.chaos.stack import OwnPostgres
from tests.conftest import inside
from tests.stage import Api, Project, drain, sql, violations
from workers.shift import Shift

JUMPS = 1_500_000_000, 2_600_000_000
"""Transactions: no further at once than PostgreSQL can still tell past from future."""

OF_A_FILE = 32 * 8192 * 4
"""Transactions whose ends one file of pg_xact tells."""


@pytest.fixture(scope="module")
def aged(app: OpenAPI) -> Iterator[Project]:
    """A project with an agent, on a server that has run so many transactions since."""
    with TemporaryDirectory(prefix="orch-aged-") as folder, ExitStack() as life:
        home = Path(folder)
        postgres = OwnPostgres(home)
        postgres.begin()
        life.callback(postgres.stop)
        url = f"postgresql+psycopg://postgres@/{DATABASE}?host={postgres.sockets}"
        prepare(url, home / "admin.key")
        with inside(url):
            project = Project.make(Api(app.test_client(), (home / "admin.key").read_text().strip()))
            for _ in range(2):
                project.born()
            forget()  # their server ends now
        for transaction in JUMPS:
            freeze(postgres.sockets)
            postgres.stop()
            jump(home / "postgres", transaction)
            postgres.begin()
        with inside(url):
            yield project
            forget()


def forget() -> None:
    """Close the connections of this process."""
    for guard in Guard:
        engine(guard).dispose()


def freeze(sockets: str) -> None:
    """What autovacuum does long before: no row's transaction needs to be known any more."""
    at = f"host={sockets} user=postgres"
    with psycopg.connect(f"{at} dbname=postgres", autocommit=True) as db:
        db.execute("ALTER DATABASE template0 ALLOW_CONNECTIONS true")
    for name in ("postgres", "template0", "template1", DATABASE):
        with psycopg.connect(f"{at} dbname={name}", autocommit=True) as db:
            db.execute("VACUUM FREEZE")


def jump(data: Path, transaction: int) -> None:
    """Let a server that is stopped go on with this transaction."""
    ends = data / "pg_xact" / f"{transaction // OF_A_FILE:04X}"
    ends.write_bytes(bytes(OF_A_FILE // 4))
    shutil.chown(ends, data.owner(), data.group())
    user = as_user(ROOT_RUNS_AS if data.owner() == ROOT_RUNS_AS else None)
    subprocess.run([postgres_binary("pg_resetwal"), "-x", str(transaction), "-f", data], **user, check=True)


def old_agent() -> str:
    """One that was not written since, and so seems to have been written in the future."""
    return str(sql("SELECT id FROM agents WHERE age(xmin) < 0 LIMIT 1")[0].id)


def state(command: dict[str, Any]) -> tuple[str, int]:
    """What has become of a command, and how often it was tried by itself."""
    (row,) = sql("SELECT state, attempts FROM commands WHERE id = :id", id=command["id"])
    return row.state, row.attempts


def test_an_old_agent_takes_commands(aged: Project) -> None:
    sent = aged.send(old_agent(), "pause")

    drain()

    assert state(sent) == ("applied", 0)
    assert violations() == {}


def test_so_does_one_that_is_suspect(aged: Project) -> None:
    agent = old_agent()
    sent = aged.send(agent, "pause")
    with begin(Guard.DRAIN) as db:
        suspects.name(db, [UUID(agent)], 50)

    Shift(Drainer(0)).work()

    assert state(sent) == ("applied", 1)
    assert violations() == {}
