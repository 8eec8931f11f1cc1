"""The door's log: one JSON object a line, that names its request and its program, and holds no secret."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import dedent
from typing import Any
from uuid import uuid4

import pytest
from flask_openapi3 import OpenAPI

from orchestrator.db import Guard, begin
from tests.stage import ROOT, Api, Project, run, sql
from tests.wire import Gunicorn

Line = dict[str, Any]


@dataclass
class Journal:
    """A web process that logs everything, and its log from now on."""

    web: Gunicorn
    quiet: Project
    """On the same database, which nobody drains."""
    begin: int = 0

    @property
    def text(self) -> str:
        """What was written."""
        return self.web.log.read_bytes()[self.begin :].decode()

    def lines(self, **wanted: Any) -> list[Line]:
        """The lines, each a JSON object, that have these values."""
        read = [json.loads(line) for line in self.text.splitlines()]
        return [line for line in read if wanted.items() <= line.items()]


@pytest.fixture(scope="module")
def talkative(app: OpenAPI, template: tuple[str, str], apart: str, home: Path) -> Iterator[Journal]:
    """The module's web process."""
    del apart
    with Gunicorn.start(home / "web-logs.log", ORCH_LOG_LEVEL="debug") as web:
        yield Journal(web, Project.make(Api(app.test_client(), template[1])))


@pytest.fixture
def journal(talkative: Journal) -> Journal:
    """The same, from here on."""
    return replace(talkative, begin=talkative.web.log.stat().st_size)


@contextmanager
def broken(change: str, back: str) -> Iterator[None]:
    """The schema is not what the code expects, inside the block."""
    sql(change)
    try:
        yield
    finally:
        sql(back)


def test_each_line_of_the_log_is_an_object_that_names_its_request(journal: Journal) -> None:
    web, quiet = journal.web, journal.quiet
    body = {"agent_type_id": quiet.type_id, "name": "scout"}

    spawn = web("POST", f"{quiet.path}/agents", quiet.api.key, body, X_Request_ID="req-spawn").json()
    web("GET", quiet.path, quiet.api.key, X_Request_ID="req-read")
    web("GET", f"projects/{uuid4()}", quiet.api.key, X_Request_ID="req-refused")
    unnamed = web("GET", "me", "wrong").json()["request_id"]

    (accepted,) = journal.lines(request_id="req-spawn")
    assert (accepted["level"], accepted["event"], accepted["verb"]) == ("info", "command_accepted", "spawn")
    assert (accepted["command_id"], accepted["agent_id"]) == (spawn["id"], spawn["agent_id"])
    assert [line["level"] for line in journal.lines(request_id="req-read")] == ["debug"]
    assert [(line["level"], line["status"]) for line in journal.lines(request_id="req-refused")] == [("warning", 404)]
    assert [(line["level"], line["status"]) for line in journal.lines(request_id=unnamed)] == [("warning", 401)]
    assert all(line["timestamp"].endswith("Z") and line["process"] == "web" for line in journal.lines())


def test_the_servers_own_lines_are_objects_too(talkative: Journal) -> None:
    told = {line["event"].partition(":")[0]: line for line in talkative.lines(level="info")}

    assert {"Listening at", "Booting worker with pid"} <= told.keys()
    assert all(line["timestamp"].endswith("Z") and line["process"] == "web" for line in told.values())


@pytest.mark.parametrize(
    "request_line",
    [b"GET /login?secret-word HTTP/1.1 x", b"secret-word", b"GET / secret-word", b"secret;word / HTTP/1.1"],
)
def test_what_is_no_http_is_logged_without_what_was_sent(journal: Journal, request_line: bytes) -> None:
    reply = journal.web.ask(request_line, None, b"secret-word")

    assert reply.status_code == 400
    (line,) = journal.lines(event="Invalid request from ip=127.0.0.1")
    (ours,) = journal.lines(event="refused")
    assert (line["level"], line["process"], ours["level"], ours["status"]) == ("warning", "web", "warning", 400)
    assert "secret" not in journal.text


def test_an_error_of_the_servers_own_is_logged_without_the_address_that_was_asked_for() -> None:
    say = """
        from gunicorn.config import Config
        from web.server_log import ServerLog
        log = ServerLog(Config())
        try:
            raise RuntimeError("broken")
        except RuntimeError:
            log.exception("Error handling request %s %s", "GET", "/login?secret-word")
    """
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", dedent(say)], check=True, capture_output=True, text=True, cwd=ROOT
    )

    line = json.loads(ended.stderr)
    assert (line["level"], line["event"]) == ("error", "Error handling request")
    assert "RuntimeError: broken" in line["exception"]
    assert "secret" not in ended.stderr


def test_what_is_only_answered_again_is_not_logged_as_accepted_again(journal: Journal) -> None:
    web, quiet = journal.web, journal.quiet
    body, once = {"agent_type_id": quiet.type_id, "name": "scout"}, uuid4().hex

    for _ in range(2):
        web("POST", f"{quiet.path}/agents", quiet.api.key, body, Idempotency_Key=once)

    assert len(journal.lines(event="command_accepted")) == 1


def test_a_cancelled_command_is_logged_as_closed(journal: Journal) -> None:
    web, quiet = journal.web, journal.quiet
    command = quiet.spawn(wait=False)["id"]

    for _ in range(2):
        web("POST", f"{quiet.path}/commands/{command}/cancel", quiet.api.key, Idempotency_Key="once")

    (line,) = journal.lines(event="command_closed")
    assert (line["command_id"], line["state"]) == (command, "cancelled")


def test_an_answer_that_is_our_fault_is_logged_with_its_cause(journal: Journal) -> None:
    web, quiet = journal.web, journal.quiet
    web("GET", "me", quiet.api.key)

    with begin(Guard.TOOL) as db:
        run(db, "LOCK TABLE projects IN ACCESS EXCLUSIVE MODE")
        assert web("GET", quiet.path, quiet.api.key, X_Request_ID="locked-out").status_code == 503

    (line,) = journal.lines(request_id="locked-out")
    assert (line["cause"], line["sqlstate"]) == ("LockNotAvailable", "55P03")


@pytest.mark.parametrize(
    ("path", "event", "status"), [("/readyz", "not_ready", 503), ("/metrics", "queue_not_measured", 200)]
)
def test_where_the_queue_cannot_be_seen_the_log_says_why(journal: Journal, path: str, event: str, status: int) -> None:
    with begin(Guard.TOOL) as db:
        run(db, "LOCK TABLE alembic_version, commands IN ACCESS EXCLUSIVE MODE")
        assert journal.web("GET", path, None).status_code == status

    (line,) = journal.lines(event=event)
    assert (line["level"], line["cause"], line["sqlstate"]) == ("warning", "LockNotAvailable", "55P03")


@pytest.mark.parametrize("name", ["beat", "flower"])
def test_a_line_names_the_program_it_is_from(name: str, tmp_path: Path) -> None:
    say = "from workers.app import app; app.log.setup(); import structlog; structlog.get_logger('x').error('said')"
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", say, name], check=True, capture_output=True, text=True, cwd=ROOT
    )

    assert json.loads(ended.stderr)["process"] == name


def test_a_surprise_is_logged_with_its_trace_and_told_without(journal: Journal) -> None:
    web, quiet = journal.web, journal.quiet

    with broken("ALTER TABLE issues RENAME TO elsewhere", "ALTER TABLE elsewhere RENAME TO issues"):
        answer = web("GET", f"{quiet.path}/issues", quiet.api.key).json()

    (line,) = journal.lines(level="error")
    assert line["request_id"] == answer["request_id"]
    assert "UndefinedTable" in line["exception"]
    assert [error["code"] for error in answer["errors"]] == ["internal"]
    assert not any(word in json.dumps(answer) for word in ("issues WHERE", "relation", "SELECT"))


@pytest.mark.parametrize(
    ("check", "cause", "sqlstate", "told"),
    [
        ("false", "CheckViolation", "23514", "ck_users_none"),
        ("email::int > 0", "InvalidTextRepresentation", "22P02", "directory.py"),
    ],
)
def test_a_surprise_of_the_database_is_told_by_its_class_and_state_without_the_row(
    journal: Journal, check: str, cause: str, sqlstate: str, told: str
) -> None:
    web, quiet = journal.web, journal.quiet
    change = f"ALTER TABLE users ADD CONSTRAINT ck_users_none CHECK ({check}) NOT VALID"

    with broken(change, "ALTER TABLE users DROP CONSTRAINT ck_users_none"):
        answer = web("POST", "users", quiet.api.key, {"email": "somebody@example.org"})

    (line,) = journal.lines(event="surprise")
    assert (answer.status_code, line["cause"], line["sqlstate"]) == (500, cause, sqlstate)
    assert cause in line["exception"]
    assert told in line["exception"]
    assert "example.org" not in journal.text


def test_the_log_holds_no_secret_and_no_address_of_a_person(journal: Journal) -> None:
    web, quiet = journal.web, journal.quiet
    key, address = quiet.api.key, f"{uuid4().hex}@example.org"
    user = web("POST", "users", key, {"email": address}).json()
    web("POST", "users", key, {"email": address})
    web("POST", "users", key, {"email": f"{address}@"})
    secret = web("POST", "keys", key, {"name": "x", "user_id": user["id"]}).json()["key"]
    web("GET", "me", secret)
    web("GET", "users", secret)
    web("GET", "me", f"{secret}x")
    with broken(
        "ALTER TABLE users RENAME COLUMN created_at TO elsewhere",
        "ALTER TABLE users RENAME COLUMN elsewhere TO created_at",
    ):
        surprise = web("POST", "users", key, {"email": f"new-{address}"})

    written = journal.text
    assert surprise.status_code == 500
    assert len(journal.lines()) >= 6
    for told in (key, secret, address, "@"):
        assert told not in written.replace("@localhost", "")
