"""Bulk commands through the SDK, for threads and for asyncio."""

import asyncio

import pytest

from orchestrator.sdk import AsyncOrchestrator, Conflict, Orchestrator, ProjectClient, Timeout
from tests.stage import Project, held

pytestmark = pytest.mark.usefixtures("worker")


def test_a_list_and_all_that_match(demo: ProjectClient, project: Project) -> None:
    agents = [project.spawn(name=f"scout-{n}")["id"] for n in range(3)]

    sent = demo.commands.send([{"verb": "pause", "agent_id": agent, "reason": "tea"} for agent in (*agents, "x")])
    done = demo.commands.wait_batch(sent.batch_id)

    assert (sent.accepted, sent.refused) == (3, 1)
    assert [item.error and item.error.code for item in sent.items] == [None, None, None, "validation_error"]
    assert done.states["applied"] == 3
    assert demo.commands.count_matching("resume", status="paused") == 3
    resumed = demo.commands.send_matching("resume", q="scout", reason="tea is over")
    assert resumed.count == 3
    assert demo.commands.wait_batch(resumed.batch_id).states["applied"] == 3
    with pytest.raises(Conflict):
        demo.commands.send_matching("terminate", q="scout", expect_count=2)
    assert demo.metrics().by_status["idle"] == 3


def test_waiting_for_a_batch_has_an_end(demo: ProjectClient, project: Project) -> None:
    agent = project.spawn()["id"]

    with held(agent):
        sent = demo.commands.send_matching("pause")
        with pytest.raises(Timeout, match="1 of 1 commands"):
            demo.commands.wait_batch(sent.batch_id, timeout=0.2)


def test_asyncio_does_the_same(orch: Orchestrator, template: tuple[str, str], project: Project) -> None:
    agent = project.spawn()["id"]

    async def play() -> tuple[int, bool]:
        async with AsyncOrchestrator(orch.url, template[1]) as later:
            there = await later.project(project.id)
            sent = await there.commands.send([{"verb": "pause", "agent_id": agent}])
            first = await there.commands.wait_batch(sent.batch_id)
            with held(agent):
                blocked = await there.commands.send_matching("resume")
                with pytest.raises(Timeout):
                    await there.commands.wait_batch(blocked.batch_id, timeout=0.2)
            return first.total, (await there.commands.wait_batch(blocked.batch_id)).done

    assert asyncio.run(play()) == (1, True)
