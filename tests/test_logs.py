"""The logs: one JSON object a line, that names its request and its program, and holds no secret."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from orchestrator.db import Guard, begin
from tests.stage import ROOT, WAIT, Project, Worker, eventually, run, sql
from tests.wire import Gunicorn

Line = dict[str, Any]


@pytest.fixture
def journal(quiet: Project, tmp_path: Path) -> Iterator[tuple[Gunicorn, Path]]:
    """A web process on the quiet database that logs everything, and its log."""
    del quiet
    with Gunicorn.start(tmp_path / "web.log", ORCH_LOG_LEVEL="debug") as web:
        yield web, web.log


def lines(log: Path, **wanted: Any) -> list[Line]:
    """The lines of a log, each a JSON object but for the server's own few at its start, that have these values."""
    read = [json.loads(line) for line in log.read_text().splitlines() if "[INFO]" not in line]
    return [line for line in read if wanted.items() <= line.items()]


def test_each_line_of_the_log_is_an_object_that_names_its_request(
    quiet: Project, journal: tuple[Gunicorn, Path]
) -> None:
    web, log = journal
    body = {"agent_type_id": quiet.type_id, "name": "scout"}

    spawn = web("POST", f"{quiet.path}/agents", quiet.api.key, body, X_Request_ID="req-spawn").json()
    web("GET", quiet.path, quiet.api.key, X_Request_ID="req-read")
    web("GET", f"projects/{uuid4()}", quiet.api.key, X_Request_ID="req-refused")
    unnamed = web("GET", "me", "wrong").json()["request_id"]

    (accepted,) = lines(log, request_id="req-spawn")
    assert (accepted["level"], accepted["event"], accepted["verb"]) == ("info", "command_accepted", "spawn")
    assert (accepted["command_id"], accepted["agent_id"]) == (spawn["id"], spawn["agent_id"])
    assert [line["level"] for line in lines(log, request_id="req-read")] == ["debug"]
    assert [(line["level"], line["status"]) for line in lines(log, request_id="req-refused")] == [("warning", 404)]
    assert [(line["level"], line["status"]) for line in lines(log, request_id=unnamed)] == [("warning", 401)]
    assert all(line["timestamp"].endswith("Z") and line["process"] == "web" for line in lines(log))


def test_what_is_only_answered_again_is_not_logged_as_accepted_again(
    quiet: Project, journal: tuple[Gunicorn, Path]
) -> None:
    web, log = journal
    body, once = {"agent_type_id": quiet.type_id, "name": "scout"}, uuid4().hex

    for _ in range(2):
        web("POST", f"{quiet.path}/agents", quiet.api.key, body, Idempotency_Key=once)

    assert len(lines(log, event="command_accepted")) == 1


def test_a_cancelled_command_is_logged_as_closed(quiet: Project, journal: tuple[Gunicorn, Path]) -> None:
    web, log = journal
    command = quiet.spawn(wait=False)["id"]

    for _ in range(2):
        web("POST", f"{quiet.path}/commands/{command}/cancel", quiet.api.key, Idempotency_Key="once")

    (line,) = lines(log, event="command_closed")
    assert (line["command_id"], line["state"]) == (command, "cancelled")


def test_an_answer_that_is_our_fault_is_logged_with_its_cause(quiet: Project, journal: tuple[Gunicorn, Path]) -> None:
    web, log = journal
    web("GET", "me", quiet.api.key)

    with begin(Guard.TOOL) as db:
        run(db, "LOCK TABLE projects IN ACCESS EXCLUSIVE MODE")
        assert web("GET", quiet.path, quiet.api.key, X_Request_ID="locked-out").status_code == 503

    (line,) = lines(log, request_id="locked-out")
    assert (line["cause"], line["sqlstate"]) == ("LockNotAvailable", "55P03")


@pytest.mark.parametrize(
    ("path", "event", "status"), [("/readyz", "not_ready", 503), ("/metrics", "queue_not_measured", 200)]
)
def test_where_the_queue_cannot_be_seen_the_log_says_why(
    quiet: Project, journal: tuple[Gunicorn, Path], path: str, event: str, status: int
) -> None:
    web, log = journal

    with begin(Guard.TOOL) as db:
        run(db, "LOCK TABLE alembic_version, commands IN ACCESS EXCLUSIVE MODE")
        assert web("GET", path, None).status_code == status

    (line,) = lines(log, event=event)
    assert (line["level"], line["cause"], line["sqlstate"]) == ("warning", "LockNotAvailable", "55P03")


@pytest.mark.parametrize("name", ["beat", "flower"])
def test_a_line_names_the_program_it_is_from(name: str, tmp_path: Path) -> None:
    say = "from workers.app import app; app.log.setup(); import structlog; structlog.get_logger('x').error('said')"
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", say, name], check=True, capture_output=True, text=True, cwd=ROOT
    )

    assert json.loads(ended.stderr)["process"] == name


def test_a_surprise_is_logged_with_its_trace_and_told_without(quiet: Project, journal: tuple[Gunicorn, Path]) -> None:
    web, log = journal
    sql("ALTER TABLE issues RENAME TO elsewhere")

    answer = web("GET", f"{quiet.path}/issues", quiet.api.key).json()

    (line,) = lines(log, level="error")
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
    quiet: Project, journal: tuple[Gunicorn, Path], check: str, cause: str, sqlstate: str, told: str
) -> None:
    web, log = journal
    sql(f"ALTER TABLE users ADD CONSTRAINT ck_users_none CHECK ({check}) NOT VALID")

    answer = web("POST", "users", quiet.api.key, {"email": "somebody@example.org"})

    (line,) = lines(log, event="surprise")
    assert (answer.status_code, line["cause"], line["sqlstate"]) == (500, cause, sqlstate)
    assert cause in line["exception"]
    assert told in line["exception"]
    assert "example.org" not in log.read_text()


def test_the_log_holds_no_secret_and_no_address_of_a_person(quiet: Project, journal: tuple[Gunicorn, Path]) -> None:
    web, log = journal
    key, address = quiet.api.key, f"{uuid4().hex}@example.org"
    user = web("POST", "users", key, {"email": address}).json()
    web("POST", "users", key, {"email": address})
    web("POST", "users", key, {"email": f"{address}@"})
    secret = web("POST", "keys", key, {"name": "x", "user_id": user["id"]}).json()["key"]
    web("GET", "me", secret)
    web("GET", "users", secret)
    web("GET", "me", f"{secret}x")
    sql("ALTER TABLE users RENAME COLUMN created_at TO elsewhere")
    surprise = web("POST", "users", key, {"email": f"new-{address}"})

    written = log.read_text()
    assert surprise.status_code == 500
    assert len(lines(log)) >= 6
    for told in (key, secret, address, "@"):
        assert told not in written.replace("@localhost", "")


def test_the_worker_logs_each_closed_command_with_its_task(project: Project, worker: Worker) -> None:
    agent = project.spawn()["id"]
    closed = project.command(project.send(agent, "resume")["id"], **WAIT)

    def logged() -> list[Line]:
        found = [line for line in worker.log.read_text().splitlines() if closed["id"] in line]
        return [json.loads(line) for line in found]

    (line,) = eventually(logged)
    assert (line["level"], line["event"], line["state"]) == ("info", "command_closed", "rejected")
    assert line["process"] == "worker"
    assert (line["command_id"], line["task_id"]) == (closed["id"], closed["task_id"])


def test_what_came_in_bulk_is_logged_together_by_its_state(worker: Worker, project: Project) -> None:
    agents = [project.spawn()["id"] for _ in range(3)]
    pauses = [{"verb": "pause", "agent_id": agent} for agent in agents]
    refused = {"verb": "resume", "agent_id": agents[0], "owner": "nobody"}
    sent = project.api.post(f"{project.path}/commands", {"commands": [*pauses, refused]}).json
    ids = [item["command_id"] for item in sent["items"]]

    def logged() -> dict[str, str]:
        found = [json.loads(line) for line in worker.log.read_text().splitlines() if "commands_closed" in line]
        states = {id_: line["state"] for line in found for id_ in line["command_ids"] if id_ in ids}
        return states if len(states) == len(ids) else {}

    assert eventually(logged) == dict.fromkeys(ids[:3], "applied") | {ids[3]: "rejected"}
    assert not any(f'"command_id": "{id_}"' in worker.log.read_text() for id_ in ids)
