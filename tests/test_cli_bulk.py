"""`orch agent pause --where …` and its like: many agents in one call, asked for first, followed to the end."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from orchestrator import turns
from orchestrator.cli import client
from orchestrator.db import Guard, begin
from tests.shell import Orch, serving
from tests.stage import Project, blocked, eventually, held

pytestmark = pytest.mark.usefixtures("worker")


@pytest.fixture
def orch(server: str, project: Project, template: tuple[str, str]) -> Orch:
    """The command line of an administrator, in a new project with three agents: scout-0, scout-1 and writer."""
    for name in ("scout-0", "scout-1", "writer"):
        project.spawn(name=name)
    return Orch({"ORCH_URL": server, "ORCH_API_KEY": template[1], "ORCH_PROJECT": project.id})


def test_all_that_match_are_paused_resumed_and_terminated(orch: Orch) -> None:
    paused = orch.json("agent", "pause", "--where", "q=scout", "--yes", "--reason", "tea", "--owner", "night")

    assert (paused["total"], paused["states"]["applied"], paused["done"]) == (2, 2, True)
    agents = {agent["name"]: agent for agent in orch.json("agent", "ls")}
    assert {name: agent["status"] for name, agent in agents.items()} == {
        "scout-0": "paused", "scout-1": "paused", "writer": "idle",
    }  # fmt: skip
    assert agents["scout-0"]["holds"][0] | {"owner": "night", "reason": "tea"} == agents["scout-0"]["holds"][0]
    again = orch.json("agent", "resume", "--where", f"batch={paused['id']}", "--owner", "night", "--yes")
    assert (again["total"], again["states"]["applied"]) == (2, 2)
    assert orch.json("agent", "terminate", "--where", "all", "--yes")["total"] == 3
    assert {agent["status"] for agent in orch.json("agent", "ls")} == {"terminated"}


def test_nobody_is_stopped_unasked(orch: Orch) -> None:
    result = orch("agent", "pause", "--where", "all")

    assert result.exit_code == 2
    assert "3 agents match; add --yes" in result.output
    assert {agent["status"] for agent in orch.json("agent", "ls")} == {"idle"}


def test_those_that_are_refused_are_told_of(orch: Orch) -> None:
    orch.json("agent", "pause", "--where", "q=scout", "--yes")

    result = orch("agent", "pause", "--where", "all", "--yes")

    assert result.exit_code == 5
    assert "2 of 3 are rejected" in result.stderr
    batch = result.stderr.split("--batch ")[1].split()[0]
    listed = orch.json("command", "ls", "--batch", batch, "--state", "rejected")
    assert [command["error"]["code"] for command in listed] == ["invalid_transition"] * 2


def test_what_takes_longer_is_said_to_go_on(orch: Orch, project: Project) -> None:
    writer = next(agent["id"] for agent in orch.json("agent", "ls") if agent["name"] == "writer")

    with held(writer):
        result = orch("agent", "pause", "--where", "all", "--yes", "--wait", "1")

    assert result.exit_code == 6
    assert "1 are still queued after 1 s" in result.stderr


@pytest.mark.parametrize(("verb", "which"), [("pause", "status=idle"), ("terminate", "all")])
def test_a_call_that_is_repeated_under_its_key_is_done_once(orch: Orch, verb: str, which: str) -> None:
    line = ("agent", verb, "--where", which, "--yes", "--idempotency-key", uuid4().hex)

    assert orch.json(*line) == orch.json(*line)


def test_many_may_take_longer_to_be_accepted_than_any_other_answer(
    orch: Orch, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PATIENCE", 1.0)

    with ThreadPoolExecutor(1) as pool:
        with begin(Guard.TOOL) as db:
            turns.wait_for(db, UUID(project.id))
            sent = pool.submit(orch.json, "agent", "pause", "--where", "all", "--yes", "--no-wait")
            eventually(blocked)
            time.sleep(1.2)  # longer than the patience with any other

        assert sent.result(timeout=30)["count"] == 3


def test_who_looks_more_often_than_he_may_looks_again_later(orch: Orch, project: Project, home: Path) -> None:
    del orch
    limits = json.dumps({"*": "off", "anonymous": "off", "command": "1/second"})
    (writer,) = [agent["id"] for agent in project.api.get(f"{project.path}/agents?q=writer").json["data"]]  # type: ignore[index]

    with serving(home / "web-bar.log", ORCH_LIMITS=limits) as url, held(writer):
        limited = Orch({"ORCH_URL": url, "ORCH_API_KEY": project.api.key or "", "ORCH_PROJECT": project.id})
        result = limited("agent", "pause", "--where", "all", "--yes", "--wait", "5")

    assert result.exit_code == 6, result.output
    assert "1 are still queued after 5 s" in result.stderr


def test_who_does_not_wait_gets_the_batch(orch: Orch) -> None:
    sent = orch.json("agent", "pause", "--where", "type=none-such", "--yes", "--no-wait")

    assert sent.keys() == {"batch_id", "count"}
    assert sent["count"] == 0


def test_a_terminal_shows_a_bar_and_is_asked(orch: Orch) -> None:
    code, shown = orch.on_terminal("agent", "pause", "--where", "q=scout", "--yes")

    assert code == 0
    assert "2/2" in shown
    assert "closed" in shown


WRONG: list[tuple[list[str], str]] = [
    (["pause"], "name one AGENT, or choose many with --where"),
    (["resume"], "name one AGENT, or choose many with --where"),
    (["terminate"], "name one AGENT, or choose many with --where"),
    (["pause", "x", "--where", "all"], "name one AGENT, or choose many with --where"),
    (["pause", "x", "--yes"], "--yes goes with --where"),
    (["pause", "--where", "all", "--quiesced"], "--quiesced waits for one AGENT"),
    (["pause", "--where", "name=x"], "--where name=x: write status=…"),
    (["pause", "--where", "status="], "--where status=: write status=…"),
    (["pause", "--where", "q=a", "--where", "q=b"], "--where q may be given only once"),
    (["pause", "--where", "all", "--where", "q=b"], "--where all: write status=…"),
]


@pytest.mark.parametrize(("line", "sentence"), WRONG, ids=[" ".join(row[0]) for row in WRONG])
def test_a_wrong_line_is_a_usage_error(orch: Orch, line: list[str], sentence: str) -> None:
    result = orch("agent", *line)

    assert result.exit_code == 2
    assert sentence in result.output


def test_a_wrong_status_is_the_servers_to_refuse(orch: Orch) -> None:
    result = orch("agent", "pause", "--where", "status=asleep", "--yes")

    assert result.exit_code == 1
    assert "status" in result.stderr
