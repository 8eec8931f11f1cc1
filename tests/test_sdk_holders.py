"""Who holds a lease: each run is a holder of its own, even in one process."""

import logging
from pathlib import Path
from threading import Event, Thread

import pytest

from orchestrator.sdk import Conflict, Orchestrator, OrchestratorError, ProjectClient, Terminated, arrival
from tests.stage import Project, eventually

pytestmark = pytest.mark.usefixtures("worker")


@pytest.fixture(autouse=True)
def outbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder of the test's own."""
    monkeypatch.setenv("ORCH_OUTBOX", str(tmp_path))


def test_two_runs_of_one_name_in_one_process_are_never_both_the_agent(
    orch: Orchestrator, demo: ProjectClient, project: Project
) -> None:
    agent_id, entered = project.spawn(name="scout")["id"], Event()

    def second() -> None:
        with orch.run_agent("scout", project=project.id, ttl=5):
            entered.set()

    with orch.run_agent("scout", project=project.id, ttl=5) as first:
        waiting = Thread(target=second, daemon=True)
        waiting.start()
        assert not entered.wait(8)  # longer than a lease lives without beats
        first.checkpoint()
        assert demo.agents.explain(agent_id)["lease"]["epoch"] == 1
    assert entered.wait(10)
    waiting.join(10)


def test_who_finds_the_lease_held_waits_for_as_long_as_it_is_and_says_so(
    orch: Orchestrator,
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "orchestrator.sdk")
    project.spawn(name="scout")
    monkeypatch.setattr(arrival, "BIRTH_SECONDS", -60.0)  # as if it had waited for a minute longer
    entered = Event()

    def second() -> None:
        with orch.run_agent("scout", project=project.id, ttl=5):
            entered.set()

    with orch.run_agent("scout", project=project.id, ttl=300, holder="the first"):
        waiting = Thread(target=second, daemon=True)
        waiting.start()
        assert not entered.wait(2)
    assert entered.wait(10)
    waiting.join(10)
    assert "no lease yet: the first holds the agent's lease" in caplog.text


def test_a_lease_is_regained_under_the_same_holder(orch: Orchestrator, demo: ProjectClient, project: Project) -> None:
    agent_id = project.spawn(name="scout")["id"]
    with orch.run_agent("scout", project=project.id, ttl=5) as me:
        before = demo.agents.explain(agent_id)["lease"]
        demo.commands.wait(demo.agents.pause(agent_id, mode="immediate"))
        Thread(target=lambda: [eventually(lambda: me.told and me.told.directive == "pause"),
                               demo.agents.resume(agent_id)], daemon=True).start()  # fmt: skip
        me.flush()
        eventually(lambda: me.told and me.told.directive == "pause")
        me.checkpoint()

        after = demo.agents.explain(agent_id)["lease"]

    assert after["epoch"] > before["epoch"]
    assert after["holder"] == before["holder"]


def test_an_archived_project_is_said_to_be_archived_and_its_agent_not_to_be_terminated(
    orch: Orchestrator, project: Project
) -> None:
    agent_id = project.spawn(name="scout")["id"]
    orch.projects.change(project.id, status="archived")

    with (
        pytest.raises(Conflict, match="is archived and grants no leases"),
        orch.run_agent(agent_id, project=project.id),
    ):
        pass


def test_a_terminated_agent_is_said_to_be_terminated(orch: Orchestrator, project: Project) -> None:
    agent_id = project.in_status("terminated")

    with pytest.raises(Terminated, match="is terminated"), orch.run_agent(agent_id, project=project.id):
        pass


def test_one_that_stands_still_while_its_project_is_archived_hears_of_that(
    orch: Orchestrator, demo: ProjectClient, project: Project
) -> None:
    agent_id = project.spawn(name="scout")["id"]
    with orch.run_agent(agent_id, project=project.id, ttl=5) as me:
        demo.commands.wait(demo.agents.pause(agent_id, mode="immediate"))
        me.flush()
        eventually(lambda: me.told and me.told.directive == "pause")
        demo.commands.wait(demo.agents.resume(agent_id))
        orch.projects.change(project.id, status="archived")

        with pytest.raises(OrchestratorError, match="is archived and grants no leases") as raised:
            me.checkpoint()
    assert raised.type is Conflict
