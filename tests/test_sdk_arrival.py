"""Arrivals by id: an agent that is yet to be born is waited for, and one that never will be is not."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from orchestrator.sdk import NotFound, Orchestrator
from tests.stage import Api, Project, busy, settle
from tests.wire import Gunicorn


@pytest.fixture
def quiet(admin: Api, apart: str) -> Project:
    """A new project where nobody drains."""
    del apart
    return Project.make(admin)


@pytest.fixture
def orch(
    web: Gunicorn, template: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Orchestrator]:
    """The SDK's client, in the same place."""
    monkeypatch.setenv("ORCH_OUTBOX", str(tmp_path / "outbox"))
    with Orchestrator(f"http://127.0.0.1:{web.port}", template[1]) as client:
        yield client


def arrive(orch: Orchestrator, project: Project, agent_id: str) -> str:
    """Be the agent, and leave."""
    with orch.run_agent(agent_id, project=project.id, ttl=5) as me:
        return me.id


def test_an_id_that_is_no_agents_is_not_found_at_once(orch: Orchestrator, quiet: Project, tmp_path: Path) -> None:
    elsewhere = Project.make(quiet.api).born()

    for wrong in (str(uuid4()), elsewhere):
        began = time.monotonic()
        with pytest.raises(NotFound, match=f"there is no agent {wrong} in this project"):
            arrive(orch, quiet, wrong)

        assert time.monotonic() - began < busy(5)
    assert not list((tmp_path / "outbox").iterdir())


def test_one_that_is_about_to_be_born_is_waited_for_until_its_spawn_comes_to_nothing(
    orch: Orchestrator, quiet: Project
) -> None:
    born, dropped = quiet.spawn(wait=False), quiet.spawn(wait=False)
    with ThreadPoolExecutor(2) as pool:
        arrivals = [pool.submit(arrive, orch, quiet, spawn["agent_id"]) for spawn in (born, dropped)]
        time.sleep(2.5)  # time in which they could give up
        assert not any(arrival.done() for arrival in arrivals)

        orch.project(quiet.id).commands.cancel(dropped["id"])
        with pytest.raises(NotFound):
            arrivals[1].result(5)
        settle()

        assert arrivals[0].result(5) == born["agent_id"]
