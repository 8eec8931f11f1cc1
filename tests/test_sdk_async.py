"""The client for asyncio: the same walk as the one that waits, and an agent's process as tasks."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest

from orchestrator.sdk import AsyncOrchestrator, AsyncProjectClient, InvalidTransition, NotFound, Timeout
from tests.stage import Project

pytestmark = pytest.mark.usefixtures("worker")

Walk = Callable[[AsyncOrchestrator, AsyncProjectClient], Awaitable[None]]


@pytest.fixture
def walk(server: str, template: tuple[str, str], project: Project) -> Callable[[Walk], None]:
    """Have something done with a client and the project, in an event loop of its own."""

    async def go(there: Walk) -> None:
        async with AsyncOrchestrator(server, template[1]) as orch:
            await there(orch, await orch.project(project.id))

    return lambda there: asyncio.run(go(there))


def test_an_agent_lives_and_ends(walk: Callable[[Walk], None], project: Project) -> None:
    async def life(_: AsyncOrchestrator, demo: AsyncProjectClient) -> None:
        spawn = await demo.commands.wait(await demo.agents.spawn("scout", agent_type_id=project.type_id))
        id_ = spawn.agent_id
        lease = await demo.agents.lease(id_, holder="host:1")
        assert (await demo.agents.beat(id_, epoch=lease.epoch, status="working")).directive == "continue"
        pause = await demo.agents.pause(id_)
        with pytest.raises(Timeout, match="not quiesced"):
            await demo.commands.wait(pause, until="quiesced", timeout=0.2)
        assert (await demo.agents.beat(id_, epoch=lease.epoch, ack=True)).directive == "pause"
        assert (await demo.commands.wait(pause, until="quiesced")).quiesced_by == "ack"
        await demo.commands.wait(await demo.agents.resume(id_))
        assert (await demo.agents.beat(id_, epoch=lease.epoch)).directive == "continue"
        lifted = await demo.agents.update(id_, status="paused")
        with pytest.raises(Timeout, match="not quiesced"):
            await demo.commands.wait(lifted, until="quiesced", timeout=0.2)
        await demo.commands.wait(await demo.agents.resume(id_))
        assert (await demo.commands.wait(lifted, until="quiesced", timeout=5)).quiesced_at is None
        with pytest.raises(InvalidTransition) as caught:
            await demo.commands.wait(await demo.agents.resume(id_))
        assert caught.value.current_status == "idle"
        await demo.agents.release(id_, epoch=lease.epoch)
        await demo.commands.wait(await demo.agents.terminate(id_), until="quiesced")

        assert [event.after async for event in demo.agents.history(id_)][-1] == "terminated"
        verbs = [command.verb async for command in demo.commands.list(agent_id=id_)]
        assert (verbs[0], verbs[-1]) == ("terminate", "spawn")
        assert (await demo.metrics()).by_status["terminated"] == 1
        assert (await demo.agents.explain(id_))["status"] == "terminated"

    walk(life)


def test_projects_usage_and_issues(walk: Callable[[Walk], None], project: Project) -> None:
    agent_id = project.spawn()["id"]

    async def books(orch: AsyncOrchestrator, demo: AsyncProjectClient) -> None:
        made = await orch.projects.create(f"Project {uuid4().hex[:8]}")
        assert (await orch.project(made.slug)).id == made.id
        with pytest.raises(NotFound, match="no project 'nowhere'"):
            await orch.project("nowhere")
        entry = {"agent_id": agent_id, "report_id": "call-1", "input_tokens": 10}
        assert (await demo.report([entry])).accepted == 1
        issue = await demo.issues.create("It leaks")
        assert [found.id async for found in demo.issues.list()] == [issue.id]
        while not [event async for event in demo.events()]:
            await asyncio.sleep(0.01)  # a feed without gaps waits for whoever is writing just then
        assert (await orch.me())["user"]["is_superuser"]
        assert {found["violations"] for found in (await orch.verify())["invariants"]} == {0}

    walk(books)
