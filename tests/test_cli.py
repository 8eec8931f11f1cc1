"""`orch`: every command, as JSON and as a table, every exit code, and what it does when the connection is lost."""

import json
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest
from click.testing import Result

from orchestrator.cli.failures import BY_CODE, BY_STATUS, Exit
from orchestrator.errors import _BY_CODE as RECORDED
from orchestrator.settings import settings
from tests.shell import Orch, serving
from tests.stage import Project, eventually, held, sql

pytestmark = pytest.mark.usefixtures("worker")

NOBODY = "00000000-0000-7000-8000-000000000000"
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def orch(server: str, project: Project, template: tuple[str, str]) -> Orch:
    """The command line of an administrator, in a new project."""
    slug = project.api.get(project.path).json["slug"]  # type: ignore[index]
    return Orch({"ORCH_URL": server, "ORCH_API_KEY": template[1], "ORCH_PROJECT": slug})


def request(client: socket.socket) -> bytes:
    """One whole HTTP request, whose body may come later than its head."""
    read = b""
    while (head := re.match(rb"(?:.+\r\n)+\r\n", read)) is None:
        read += client.recv(65536)
    said = re.search(rb"content-length: (\d+)", head[0], re.IGNORECASE)
    while len(read) < len(head[0]) + int(said[1] if said else 0):
        read += client.recv(65536)
    return read


@contextmanager
def losing_answers(server: str, lost: int) -> Iterator[tuple[str, list[bytes]]]:
    """A way to the server on which the first answers are lost; its address, and the requests that went through."""
    host, _, port = server.removeprefix("http://").partition(":")
    requests: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client, socket.create_connection((host, int(port))) as behind:
                requests.append(request(client))
                behind.sendall(requests[-1].replace(b"keep-alive", b"close"))
                answer = b"".join(iter(lambda: behind.recv(65536), b""))
                if len(requests) > lost:
                    client.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", requests
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def stranger() -> Iterator[str]:
    """The address of a web server that is not ours."""
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        Thread(target=other.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{other.server_port}"
        other.shutdown()


def test_an_agents_life_from_the_command_line(orch: Orch, project: Project) -> None:
    memory = {"sheep": [1, None, "ß"]}
    fields = ["--task", "count", "--memory", json.dumps(memory), "--memory-ref", "s3://m", "--session", "s1"]
    born = orch.json("agent", "spawn", "scout", "--type", project.type_id, *fields, "--reason", "because")
    a = born["id"]

    assert (born["current_task"], born["short_term_memory"], born["session_id"]) == ("count", memory, "s1")
    assert orch.json("agent", "pause", a)["status"] == "paused"
    assert orch.json("agent", "resume", a)["status"] == "idle"
    changed = orch.json("agent", "update", a, "--status", "working", "--name", "spy", "--clear", "task")
    assert (changed["status"], changed["name"], changed["current_task"]) == ("working", "spy", None)
    assert orch.json("agent", "get", a) == changed
    assert orch.json("agent", "terminate", a, "--reason", "enough") == {
        "success": True,
        "message": "Agent 'spy' has been terminated",
    }
    history = orch.json("agent", "history", a)
    assert [event["verb"] for event in history] == ["spawn", "pause", "resume", "work", "terminate"]
    assert [event["reason"] for event in history] == ["because", None, None, None, "enough"]
    assert [event["version"] for event in orch.json("agent", "history", a, "--after-version", "3")] == [4, 5]
    assert len(orch.json("agent", "history", a, "--limit", "2")) == 2


def test_holds_are_placed_and_lifted_by_owner(orch: Orch, project: Project) -> None:
    agent = project.spawn()["id"]

    held = orch.json(
        "agent", "pause", agent, "--owner", "budget", "--until", "2099-01-01T00:00:00Z", "--reason", "dear"
    )
    orch.json("agent", "pause", agent)
    still = orch.json("agent", "resume", agent)
    refused = orch("agent", "resume", agent)

    (hold,) = held["holds"]
    assert (hold["owner"], hold["until"], hold["reason"]) == ("budget", "2099-01-01T00:00:00Z", "dear")
    assert (still["status"], still["holds"]) == ("paused", held["holds"])
    assert (refused.exit_code, "budget" in refused.stderr) == (5, True)
    assert orch.json("agent", "resume", agent, "--owner", "budget")["status"] == "idle"


def test_agents_are_listed_as_far_as_asked(orch: Orch, project: Project) -> None:
    ids = [project.spawn(name=f"a{n}")["id"] for n in range(3)]
    project.in_status("paused", name="b")
    kind = project.api.get(f"agent-types/{project.type_id}").json["slug"]  # type: ignore[index]

    some = orch("agent", "ls", "--limit", "2")

    assert [agent["name"] for agent in json.loads(some.stdout)] == ["b", "a2"]
    assert "more than 2" in some.stderr
    assert [agent["id"] for agent in orch.json("agent", "ls", "-q", "a")] == ids[::-1]
    assert [agent["name"] for agent in orch.json("agent", "ls", "--status", "paused", "--type", kind)] == ["b"]


def test_more_than_a_page_of_agents_and_events_is_shown(orch: Orch, project: Project) -> None:
    agent = project.spawn(name="first")["id"]
    for n in range(101):
        project.send(agent, "update", name=f"n{n}")
        project.spawn(wait=False)
    eventually(lambda: not sql("SELECT 1 FROM commands WHERE project_id = :p AND state = 'queued'", p=project.id))

    assert len(orch.json("agent", "ls", "--limit", "1000")) == 102
    assert [event["version"] for event in orch.json("agent", "history", agent)] == list(range(1, 103))


def test_types_and_projects_are_named_by_slug_or_id(orch: Orch) -> None:
    name = f"Kind {uuid4().hex[:8]}"
    kind = orch.json("type", "create", name)
    made = orch.json("project", "create", name, "--slug", f"p-{name[5:]}")

    by_slug = orch.json("agent", "spawn", "x", "--type", kind["slug"], "--project", made["slug"])
    by_id = orch.json("agent", "spawn", "x", "--type", kind["id"], "--project", made["id"].upper())

    assert (kind["slug"], kind["is_active"]) == (name.lower().replace(" ", "-"), True)
    assert {by_slug["project_id"], by_id["project_id"]} == {made["id"]}
    assert made["id"] in [found["id"] for found in orch.json("project", "ls")]
    assert [found["id"] for found in orch.json("type", "ls", "--limit", "1")] == [kind["id"]]
    assert orch.json("type", "create", f"{name} old", "--inactive")["is_active"] is False


def test_users_and_keys_are_made_used_and_revoked(orch: Orch) -> None:
    email = f"{uuid4().hex}@example.org"
    user = orch.json("user", "create", email)
    key = orch.json("key", "create", "laptop", "--user", email, "--expires-at", "2999-01-01T00:00:00Z")
    theirs = {"ORCH_API_KEY": key["key"]}

    owned = orch.json("project", "create", uuid4().hex, "--owner", email)

    assert (key["user_id"], owned["owner_id"], user["is_superuser"]) == (user["id"], user["id"], False)
    assert [found["id"] for found in orch.json("key", "ls", "--user", user["id"])] == [key["id"]]
    assert [found["id"] for found in json.loads(orch("project", "ls", **theirs).stdout)] == [owned["id"]]
    assert orch.json("key", "revoke", key["id"]) == {"id": key["id"], "revoked": True}
    assert eventually(lambda: orch("project", "ls", **theirs).exit_code == 4)
    assert orch.json("key", "ls", "--user", email) == []
    assert orch.json("user", "create", f"x{email}", "--superuser")["is_superuser"] is True


def test_every_answer_can_be_a_table(orch: Orch, project: Project) -> None:
    agent = project.spawn(name="scout [red]", current_task="steer\x1b[2J the\u202e terminal")["id"]

    listed, shown = orch.table("agent", "ls"), orch.table("agent", "get", agent)

    assert agent in listed
    assert "scout [red]" in listed
    assert "\x1b" not in listed + shown
    assert "\u202e" not in listed + shown
    assert "steer\\x1b[2J the\\u202e terminal" in shown
    assert "paused" in orch.table("agent", "pause", agent)
    assert "idle" in orch.table("agent", "history", agent)
    assert "has been terminated" in orch.table("agent", "terminate", agent)
    assert project.id in orch.table("project", "ls")
    assert project.type_id in orch.table("type", "ls")
    assert "prefix" in orch.table("key", "ls")
    assert "I10" in orch.table("verify")


def test_a_terminal_gets_a_table_and_a_pipe_json(orch: Orch, project: Project) -> None:
    agent = project.spawn()["id"]

    code, shown = orch.on_terminal("agent", "ls")
    piped = orch.run("agent", "ls")
    code_of_json, forced = orch.on_terminal("-o", "json", "agent", "ls")

    assert (code, piped.returncode, code_of_json) == (0, 0, 0)
    assert agent in shown
    assert "{" not in shown
    assert json.loads(piped.stdout)[0]["id"] == json.loads(forced)[0]["id"] == agent


def test_a_script_gets_ids_and_nothing_else(orch: Orch, project: Project) -> None:
    born = orch("agent", "spawn", "scout", "--type", project.type_id, "-o", "id").stdout
    project.spawn()

    listed = orch("agent", "ls", "-o", "id").stdout.splitlines()

    assert orch.json("agent", "get", born.strip())["name"] == "scout"
    assert listed == [agent["id"] for agent in orch.json("agent", "ls")]
    assert born.strip() in listed


def test_verify_names_what_is_violated(orch: Orch, project: Project) -> None:
    agent = project.spawn()["id"]
    clean = orch.json("verify")
    sql("UPDATE agents SET tokens_used = tokens_used + 1 WHERE id = :id", id=agent)
    try:
        broken = orch("verify")
    finally:
        sql("UPDATE agents SET tokens_used = tokens_used - 1 WHERE id = :id", id=agent)

    assert {found["violations"] for found in clean} == {0}
    assert broken.exit_code == 1
    assert {found["name"] for found in json.loads(broken.stdout) if found["violations"]} == {"I8a", "I8b"}
    assert "I8a, I8b violated" in broken.stderr


def test_a_mutation_need_not_be_waited_for(orch: Orch, project: Project) -> None:
    agent = project.spawn()["id"]

    command = orch.json("agent", "pause", agent, "--no-wait")
    closed = orch.json("command", "wait", command["id"])

    assert (command["verb"], command["agent_id"]) == ("pause", agent)
    assert (closed["state"], closed["version"]) == ("applied", 2)
    assert orch.json("command", "get", command["id"]) == closed
    assert "applied" in orch.table("command", "get", command["id"])


def test_waiting_too_long_is_exit_6_and_the_command_is_shown(orch: Orch, project: Project) -> None:
    agent = project.spawn()["id"]

    with held(agent):
        late = orch("agent", "pause", agent, "--wait", "0.3")
        command = json.loads(late.stdout)
        later = orch("command", "wait", command["id"], "--timeout", "0.3")

    assert (late.exit_code, later.exit_code) == (6, 6)
    assert f"orch command wait {command['id']}" in late.stderr
    assert orch.json("command", "wait", command["id"])["state"] == "applied"


def test_a_wait_goes_on_where_the_server_holds_no_answers(orch: Orch, project: Project, home: Path) -> None:
    agent = project.spawn()["id"]

    with serving(home / "web-cli-full.log", ORCH_WAITERS="0") as url:
        paused = orch("agent", "pause", agent, "--url", url)

    assert (paused.exit_code, json.loads(paused.stdout)["status"]) == (0, "paused")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (["agent", "resume", "{agent}"], 5),
        (["agent", "update", "{agent}", "--status", "waiting"], 5),
        (["agent", "update", "{agent}", "--name", "x", "--if-version", "9"], 5),
        (["agent", "spawn", "scout", "--type", "{type}", "--unique-name"], 5),
        (["project", "create", "x", "--slug", "{project}"], 5),
        (["agent", "get", NOBODY], 3),
        (["agent", "get", "scout"], 3),
        (["agent", "ls", "--project", "no-such-project"], 3),
        (["agent", "ls", "--project", NOBODY], 3),
        (["agent", "spawn", "x", "--type", "no-such-type"], 3),
        (["command", "get", NOBODY], 3),
        (["key", "revoke", NOBODY], 3),
        (["key", "create", "x", "--user", "nobody@example.org"], 3),
        (["agent", "spawn", " ", "--type", "{type}"], 1),
        (["agent", "update", "{agent}"], 2),
        (["agent", "update", "{agent}", "--memory", "[]"], 2),
        (["agent", "update", "{agent}", "--memory", "{{"], 2),
        (["agent", "update", "{agent}", "--status", "asleep"], 2),
        (["agent", "fly"], 2),
    ],
)
def test_what_fails_says_so_in_its_exit_code_and_a_sentence(
    orch: Orch, project: Project, line: list[str], code: int
) -> None:
    names = {"agent": project.spawn()["id"], "type": project.type_id, "project": orch.env["ORCH_PROJECT"]}

    result = orch(*(word.format(**names) for word in line))

    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("Usage: orch" if code == 2 else "orch: ")


def test_programs_get_the_problem_document_too(orch: Orch, project: Project) -> None:
    agent = project.spawn()["id"]

    as_json, as_table = orch("agent", "resume", agent), orch("agent", "resume", agent, "-o", "table")

    sentence, _, document = as_json.stderr.partition("\n")
    assert "possible now: working, paused, terminated" in sentence
    assert json.loads(document)["errors"][0]["code"] == "invalid_transition"
    assert as_table.stderr.splitlines() == [sentence]


@pytest.mark.parametrize(
    ("verb", "code", "sentence"), [("resume", 5, "cannot resume an agent that is idle"), ("pause", 0, "")]
)
def test_waiting_for_a_command_ends_as_the_command_does(
    orch: Orch, project: Project, verb: str, code: int, sentence: str
) -> None:
    command = project.send(project.spawn()["id"], verb)

    waited = orch("command", "wait", command["id"])

    assert waited.exit_code == code
    assert sentence in waited.stderr
    assert json.loads(waited.stdout)["id"] == command["id"]


@pytest.mark.parametrize("code", RECORDED)
def test_a_closed_commands_error_is_the_same_exit_code_as_the_refusal(code: str) -> None:
    assert BY_CODE.get(code, Exit.FAILED) is BY_STATUS.get(RECORDED[code].status, Exit.FAILED)


def test_a_cancelled_command_is_a_refusal(orch: Orch, project: Project) -> None:
    agent = project.spawn()["id"]
    with held(agent):
        command = project.send(agent, "pause")
        sql("UPDATE commands SET state = 'cancelled', closed_at = now() WHERE id = :id", id=command["id"])

    assert orch("command", "wait", command["id"]).exit_code == 5


def test_one_may_not_do_what_only_superusers_may(orch: Orch, project: Project) -> None:
    user = {"ORCH_API_KEY": str(project.api.user().key)}

    assert orch("verify", **user).exit_code == 4
    assert orch("user", "create", "x@example.org", **user).exit_code == 4
    assert orch("agent", "ls", **user).exit_code == 3


def test_a_wrong_key_is_not_allowed_and_says_what_to_set(orch: Orch) -> None:
    refused = orch("agent", "ls", ORCH_API_KEY="wrong")

    assert refused.exit_code == 4
    assert "Set ORCH_API_KEY" in refused.stderr


def projects(orch: Orch, **env: str) -> Result:
    """The list of projects, asked for in this process as if it had just started: it reads its settings once."""
    settings.cache_clear()
    listed = orch("project", "ls", **env)
    settings.cache_clear()
    return listed


def test_the_key_comes_from_the_environment_or_from_the_file_in_home(orch: Orch, tmp_path: Path) -> None:
    key = orch.env["ORCH_API_KEY"]
    bare = {"ORCH_HOME": str(tmp_path), "ORCH_API_KEY": ""}

    without = projects(orch, **bare)
    (tmp_path / "admin.key").write_text(f"{key}\n")
    with_file = projects(orch, **bare)
    (tmp_path / "admin.key").write_text("two words\n")
    with_rubbish = projects(orch, **bare)
    with_both = projects(orch, **bare | {"ORCH_API_KEY": key})

    assert (without.exit_code, with_file.exit_code, with_rubbish.exit_code, with_both.exit_code) == (4, 0, 4, 0)
    assert str(tmp_path / "admin.key") in without.stderr
    assert "one key and nothing else" in with_rubbish.stderr


def test_the_server_is_the_option_else_the_environment_else_the_port(orch: Orch) -> None:
    port = orch.env["ORCH_URL"].rpartition(":")[2]

    by_option = orch("--url", orch.env["ORCH_URL"], "project", "ls", ORCH_URL=NOWHERE)
    behind = orch("project", "ls", "--url", orch.env["ORCH_URL"], ORCH_URL=NOWHERE)
    by_port = projects(orch, ORCH_URL="", ORCH_PORT=port)

    assert (by_option.exit_code, behind.exit_code, by_port.exit_code) == (0, 0, 0)


@pytest.mark.parametrize("line", [["verify"], ["agent", "spawn", "x", "--type", NOBODY], ["demo"]])
def test_no_server_is_exit_7(orch: Orch, line: list[str]) -> None:
    result = orch(*line, ORCH_URL=NOWHERE, ORCH_PROJECT=NOBODY)

    assert result.exit_code == 7
    assert "no server answers at http://127.0.0.1:1" in result.stderr
    assert "orch up" in result.stderr


def test_another_programs_server_is_none(orch: Orch, stranger: str) -> None:
    result = orch("project", "ls", ORCH_URL=stranger)

    assert result.exit_code == 7
    assert "no orchestrator" in result.stderr


def test_a_lost_answer_is_asked_for_again_and_nothing_is_done_twice(orch: Orch, project: Project) -> None:
    name = uuid4().hex

    with losing_answers(orch.env["ORCH_URL"], lost=2) as (url, requests):
        made = orch("agent", "spawn", name, "--type", project.type_id, ORCH_URL=url, ORCH_PROJECT=project.id)

    assert made.exit_code == 0, made.output
    assert len(requests) == 3
    assert len(sql("SELECT 1 FROM agents WHERE name = :name", name=name)) == 1
    assert len(sql("SELECT 1 FROM commands WHERE project_id = :p", p=project.id)) == 1


def test_after_three_lost_answers_it_gives_up(orch: Orch) -> None:
    with losing_answers(orch.env["ORCH_URL"], lost=9) as (url, requests):
        result = orch("project", "create", uuid4().hex, ORCH_URL=url)

    assert (result.exit_code, len(requests)) == (7, 3)


def test_a_key_is_never_asked_for_twice(orch: Orch) -> None:
    name = uuid4().hex

    with losing_answers(orch.env["ORCH_URL"], lost=1) as (url, requests):
        result = orch("key", "create", name, ORCH_URL=url)

    assert (result.exit_code, len(requests)) == (7, 1)
    assert len(sql("SELECT 1 FROM api_keys WHERE name = :name", name=name)) == 1


def test_a_call_repeated_under_its_key_is_done_once(orch: Orch, project: Project) -> None:
    line = ["agent", "spawn", "x", "--type", project.type_id, "--idempotency-key", uuid4().hex]

    assert orch.json(*line)["id"] == orch.json(*line)["id"]
    assert len(orch.json("agent", "ls")) == 1


def test_a_server_without_its_database_is_tried_again_and_then_a_failure(orch: Orch, home: Path) -> None:
    nowhere = "postgresql+psycopg://postgres@127.0.0.1:1/nothing"

    with serving(home / "web-cli-bare.log", ORCH_DATABASE_URL=nowhere) as url:
        result = orch("project", "ls", ORCH_URL=url)

    assert result.exit_code == 1
    assert "Try again" in result.stderr
    assert json.loads(result.stderr.partition("\n")[2])["status"] == 503


def test_an_interrupted_wait_is_exit_130(orch: Orch, project: Project) -> None:
    agent = project.spawn()["id"]

    def pauses() -> list[Any]:
        return sql("SELECT 1 FROM commands WHERE agent_id = :id AND verb = 'pause'", id=agent)

    with held(agent), orch.start("agent", "pause", agent, "--wait", "25") as process:
        eventually(pauses)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)

    assert process.returncode == 130
    assert "Traceback" not in err
