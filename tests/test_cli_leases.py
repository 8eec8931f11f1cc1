"""`orch` and running processes: stops in two stages, and why an agent is not working."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.shell import Orch, serving
from tests.stage import Project, eventually, held, sql

pytestmark = pytest.mark.usefixtures("worker")

LEASE = {"holder": "host-1:7", "ttl": 300}


@pytest.fixture
def orch(server: str, project: Project, template: tuple[str, str]) -> Orch:
    """The command line of an administrator, in a new project."""
    return Orch({"ORCH_URL": server, "ORCH_API_KEY": template[1], "ORCH_PROJECT": project.id})


@pytest.fixture
def leased(project: Project) -> str:
    """An agent that a process acts as."""
    agent: str = project.spawn()["id"]
    granted = project.api.post(f"{project.agent(agent)}/lease", LEASE)
    assert granted.status_code == 201, granted.json
    return agent


def beat(project: Project, agent_id: str, **says: Any) -> dict[str, Any]:
    """One beat of the first process, and what it is told."""
    answer = project.api.post(f"{project.agent(agent_id)}/beat", {"epoch": 1} | says)
    assert answer.status_code == 200, answer.json
    return answer.json  # type: ignore[return-value]


def stop_applied(agent_id: str) -> list[Any]:
    """The stops of an agent that are applied, and whose process goes on still."""
    return sql(
        "SELECT id FROM commands WHERE agent_id = :agent AND state = 'applied' AND quiesced_at IS NULL"
        " AND verb IN ('pause', 'terminate')",
        agent=agent_id,
    )


@pytest.mark.parametrize(("verb", "status"), [("pause", "paused"), ("terminate", "terminated")])
def test_a_stop_says_how_soon_the_process_must_stand_still(
    orch: Orch, project: Project, leased: str, verb: str, status: str
) -> None:
    orch.json("agent", verb, leased, "--mode", "drain", "--deadline", "60", "--reason", "too dear")

    told = beat(project, leased)
    shown = orch.json("agent", "get", leased)

    assert (told["directive"], told["mode"], told["reason"]) == (verb, "drain", "too dear")
    assert told["deadline"] is not None
    assert (shown["status"], shown["quiesced_at"], shown["quiesced_by"]) == (status, None, None)


@pytest.mark.parametrize("verb", ["pause", "terminate"])
def test_an_immediate_stop_waits_for_nobody(orch: Orch, leased: str, verb: str) -> None:
    orch.json("agent", verb, leased, "--mode", "immediate", "--quiesced")

    shown = orch.json("agent", "get", leased)

    assert shown["quiesced_by"] == "no_lease"
    assert shown["quiesced_at"] is not None
    assert "no_lease" in orch.table("agent", "get", leased)


@pytest.mark.parametrize("verb", ["pause", "terminate"])
def test_one_can_wait_until_the_process_stands_still(orch: Orch, project: Project, leased: str, verb: str) -> None:
    with orch.start("agent", verb, leased, "--quiesced", "--wait", "30") as process:
        eventually(lambda: stop_applied(leased))
        assert process.poll() is None
        beat(project, leased, ack=True)
        out, err = process.communicate(timeout=30)

    assert process.returncode == 0, err
    assert json.loads(out).get("quiesced_by", "ack") == "ack"
    assert orch.json("agent", "get", leased)["quiesced_by"] == "ack"


def test_a_process_that_goes_on_for_too_long_is_exit_6_and_its_stop_stands(
    orch: Orch, project: Project, leased: str
) -> None:
    late = orch("agent", "pause", leased, "--quiesced", "--wait", "0.3")
    command = json.loads(late.stdout)
    later = orch("command", "wait", command["id"], "--quiesced", "--timeout", "0.3")

    assert (late.exit_code, later.exit_code) == (6, 6)
    assert f"orch command wait {command['id']} --project {project.id} --quiesced" in late.stderr
    assert f"orch agent explain {leased} --project {project.id}" in later.stderr
    assert orch.json("command", "wait", command["id"])["quiesced_at"] is None
    assert orch.json("agent", "get", leased)["status"] == "paused"

    beat(project, leased, ack=True)

    closed = orch.json("command", "wait", command["id"], "--quiesced")
    assert (closed["state"], closed["quiesced_by"]) == ("applied", "ack")
    assert closed["quiesced_at"] == orch.json("agent", "get", leased)["quiesced_at"]
    assert orch.json("command", "get", command["id"]) == closed
    assert "quiesced by" in orch.table("command", "get", command["id"])


def test_nobody_waits_for_the_end_of_a_stop_that_was_lifted(orch: Orch, leased: str) -> None:
    with orch.start("agent", "pause", leased, "--quiesced", "--wait", "30") as process:
        [stop] = eventually(lambda: stop_applied(leased))
        orch.json("agent", "resume", leased)
        out, err = process.communicate(timeout=10)

    assert process.returncode == 0, err
    assert json.loads(out)["status"] == "idle"
    assert orch.json("command", "wait", str(stop.id), "--quiesced", "--timeout", "9")["quiesced_at"] is None


def test_the_second_stage_comes_where_the_server_holds_no_answers(
    orch: Orch, project: Project, leased: str, home: Path
) -> None:
    with (
        serving(home / "web-cli-leases-full.log", ORCH_WAITERS="0") as url,
        orch.start("agent", "pause", leased, "--quiesced", "--wait", "30", "--url", url) as process,
    ):
        eventually(lambda: stop_applied(leased))
        beat(project, leased, ack=True)
        out, err = process.communicate(timeout=30)

    assert process.returncode == 0, err
    assert json.loads(out)["quiesced_by"] == "ack"


def test_an_interrupted_wait_for_the_second_stage_is_exit_130(orch: Orch, leased: str) -> None:
    with orch.start("agent", "pause", leased, "--quiesced", "--wait", "25") as process:
        eventually(lambda: stop_applied(leased))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)

    assert (process.returncode, "Traceback" in err) == (130, False)


@pytest.mark.parametrize(
    "more",
    [["--mode", "soon"], ["--deadline", "0"], ["--deadline", "now"], ["--quiesced", "--no-wait"]],
    ids=" ".join,
)
def test_a_stop_that_makes_no_sense_is_a_usage_error(orch: Orch, leased: str, more: list[str]) -> None:
    result = orch("agent", "pause", leased, *more)

    assert (result.exit_code, result.stderr.startswith("Usage: orch")) == (2, True)
    assert orch.json("agent", "get", leased)["status"] == "idle"


def test_why_an_agent_does_not_work_is_told_in_sentences_and_tables(orch: Orch, project: Project, leased: str) -> None:
    orch("agent", "update", leased, "--status", "waiting")
    budget = [
        "--owner",
        "budget",
        "--until",
        "2099-01-01T00:00:00Z",
        "--reason",
        "too \x1b[2Jdear",
        "--deadline",
        "900",
    ]
    orch.json("agent", "pause", leased, *budget)

    document = orch.json("agent", "explain", leased)
    code, shown = orch.on_terminal("agent", "explain", leased)

    assert document == project.api.get(f"{project.agent(leased)}/explain").json | {
        "lease": document["lease"]  # whose age grows
    }
    assert code == 0
    assert f"{leased} is \x1b[35mpaused" in shown
    for line in (
        "'budget' holds it until 2099-01-01T00:00:00Z: too \\x1b[2Jdear",
        "host-1:7 has not stopped yet",
        "a resume with owner 'budget'",
        "its lease is lost, unless host-1:7 beats, at 2",
        "2099-01-01 00:00:00Z",
        "checkpoint",
        "invalid_transition",
        "an agent that is idle cannot become waiting",
    ):
        assert line in shown
    for title in ("why", "what would change it", "what comes by itself", "holds", "stop", "lease", "last refusal"):
        assert f"\x1b[1m{title}\x1b[0m" in shown
    assert "queued" not in shown
    assert "{" not in shown


def test_what_there_is_nothing_to_say_about_is_left_out(orch: Orch, project: Project) -> None:
    agent = project.in_status("terminated")

    shown = orch.table("agent", "explain", agent)

    assert f"{agent} is terminated" in shown
    assert "nothing; spawn another" in shown
    for title in ("what comes by itself", "holds", "queued", "lease", "last refusal"):
        assert f"\n{title}\n" not in shown
    assert orch("agent", "explain", agent, "-o", "id").stdout == f"{agent}\n"


def test_nothing_needs_to_change_for_an_agent_that_works(orch: Orch, project: Project) -> None:
    found = orch.json("agent", "explain", project.in_status("working"))

    assert (found["working"], found["why"], found["what_would_change_it"]) == (True, [], [])


def test_what_waits_in_an_agents_mailbox_is_told(orch: Orch, project: Project) -> None:
    agent = project.spawn()["id"]

    with held(agent):
        command = project.send(agent, "pause", reason="later")
        shown = orch.table("agent", "explain", agent)

    assert "1 command in its mailbox" in shown
    assert re.search(rf"{command['id']} +pause +later +\d+\.\d s\b", shown)
