"""Usage that a process has left: it is sent by the next start in its project, whatever became of the agent."""

import json
import logging
from pathlib import Path
from threading import Thread

import pytest

from orchestrator.sdk import Orchestrator, ProjectClient, Terminated
from orchestrator.sdk.outbox import Outbox
from orchestrator.sdk.sheet import Sheet
from orchestrator.sdk.usage import entry
from tests.stage import Project, eventually

pytestmark = pytest.mark.usefixtures("worker")


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Of the outboxes."""
    monkeypatch.setenv("ORCH_OUTBOX", str(tmp_path / "outbox"))
    (tmp_path / "outbox").mkdir()
    return tmp_path / "outbox"


def leave(folder: Path, agent_id: str, tokens: int = 7) -> Path:
    """What a killed process has left."""
    file = folder / f"{agent_id}.jsonl"
    file.write_text(json.dumps(entry(input_tokens=tokens)) + "\n")
    return file


def counted(demo: ProjectClient, agent_id: str, tokens: int = 7) -> None:
    """Wait until so much is counted."""
    eventually(lambda: demo.agents.get(agent_id).tokens_used == tokens)


def test_what_a_terminated_agent_had_left_is_sent_when_it_is_started_by_its_id(
    orch: Orchestrator, demo: ProjectClient, project: Project, folder: Path
) -> None:
    agent_id = project.in_status("terminated")
    file = leave(folder, agent_id)

    with pytest.raises(Terminated), orch.run_agent(agent_id, project=project.id):
        pass

    counted(demo, agent_id)
    assert not file.exists()


def test_what_a_terminated_agent_had_left_is_sent_by_its_successor(
    orch: Orchestrator, demo: ProjectClient, project: Project, folder: Path
) -> None:
    agent_id = project.in_status("terminated", name="scout")
    file = leave(folder, agent_id)

    with orch.run_agent("scout", project=project.id, type=project.type_id) as me:
        assert me.id != agent_id

    counted(demo, agent_id)
    assert not file.exists()


def test_what_a_paused_agent_had_left_is_sent_before_it_is_resumed(
    orch: Orchestrator, demo: ProjectClient, project: Project, folder: Path
) -> None:
    agent_id = project.in_status("paused", name="scout")
    leave(folder, agent_id)

    def work() -> None:
        with orch.run_agent("scout", project=project.id, ttl=5):
            pass

    waiting = Thread(target=work, daemon=True)
    waiting.start()

    counted(demo, agent_id)
    assert demo.agents.get(agent_id).status == "paused"
    demo.agents.resume(agent_id)
    waiting.join(10)


def test_what_is_another_processs_or_another_projects_is_let_be(
    orch: Orchestrator, demo: ProjectClient, project: Project, folder: Path
) -> None:
    mine, living = project.spawn(name="scout")["id"], project.spawn(name="other")["id"]
    stranger = Project.make(project.api).spawn()["id"]
    strange = leave(folder, stranger)
    owned = leave(folder, living)
    with Outbox.open(owned):
        with orch.run_agent(mine, project=project.id):
            pass

        assert (strange.exists(), owned.exists()) == (True, True)
        assert demo.agents.get(living).tokens_used == 0
    with orch.run_agent(mine, project=project.id):
        counted(demo, living)
    assert (strange.exists(), owned.exists()) == (True, False)


def test_two_processes_of_one_agent_have_files_of_their_own_and_the_living_takes_over(folder: Path) -> None:
    first = Outbox.open(folder / "agent.jsonl")
    second = Outbox.open(folder / "agent.jsonl")
    first.put(entry(report_id="of the first"))
    second.put(entry(report_id="of the second"))
    second.adopt()
    assert [kept["report_id"] for kept in second.first(9)] == ["of the second"]

    first.close()
    second.adopt()

    assert [kept["report_id"] for kept in second.first(9)] == ["of the first", "of the second"]
    second.close()
    with Outbox.open(folder / "agent.jsonl") as third:
        assert len(third) == 2


def test_a_disk_that_takes_nothing_ends_no_work_and_costs_no_usage(
    orch: Orchestrator,
    demo: ProjectClient,
    project: Project,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    agent_id = project.spawn(name="scout")["id"]
    with caplog.at_level(logging.ERROR, "orchestrator.sdk"), orch.run_agent("scout", project=project.id) as me:
        monkeypatch.setattr(Sheet, "add", full)
        monkeypatch.setattr(Sheet, "replace", full)
        with me.task("count"):
            me.usage(input_tokens=7)
        me.flush()
        counted(demo, agent_id)
        me.usage(input_tokens=1)

    assert "usage is kept in memory alone" in caplog.text
    counted(demo, agent_id, 8)
    assert demo.agents.explain(agent_id)["lease"]["ended_by"] == "release"
    assert not list(folder.iterdir())


def test_an_outbox_that_cannot_be_opened_is_said_before_there_is_a_lease(
    orch: Orchestrator, demo: ProjectClient, project: Project, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent_id = project.spawn(name="scout")["id"]
    (folder / "file").write_text("")
    monkeypatch.setenv("ORCH_OUTBOX", str(folder / "file"))

    with pytest.raises(OSError, match="file"), orch.run_agent("scout", project=project.id):
        pass

    assert demo.agents.explain(agent_id)["lease"] is None


def test_entries_that_are_too_large_together_are_sent_in_several_reports(
    demo: ProjectClient, orch: Orchestrator, project: Project, folder: Path
) -> None:
    agent = project.spawn(name="wordy")["id"]
    lines = [json.dumps(entry(input_tokens=1, note="é" * 20_000)) for _ in range(40)]
    (folder / f"{agent}.jsonl").write_text("\n".join(lines) + "\n")

    with orch.run_agent(agent, project=project.id) as me:
        for _ in range(70):
            me.usage(input_tokens=1, note="x" * 20_000)
        me.checkpoint()

    counted(demo, agent, 110)


def test_what_a_host_with_a_wrong_clock_has_used_is_counted_all_the_same(
    demo: ProjectClient, orch: Orchestrator, project: Project, folder: Path
) -> None:
    agent = project.spawn(name="ahead")["id"]
    ahead = entry(input_tokens=7) | {"occurred_at": "2099-01-01T00:00:00Z"}
    (folder / f"{agent}.jsonl").write_text(json.dumps(ahead) + "\n")

    with orch.run_agent(agent, project=project.id):
        counted(demo, agent)
