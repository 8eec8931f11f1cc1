"""An agent's process with asyncio: many tasks in one Run stand still together, or not at all."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from orchestrator.sdk import AsyncOrchestrator, AsyncProjectClient, Run
from tests.stage import Project, violations

pytestmark = pytest.mark.usefixtures("worker")

Story = Callable[[AsyncOrchestrator, AsyncProjectClient], Awaitable[None]]


@pytest.fixture
def tell(
    server: str, template: tuple[str, str], project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Story], None]:
    """Have a story told with a client and the project, in an event loop of its own."""
    monkeypatch.setenv("ORCH_OUTBOX", str(tmp_path))

    async def go(story: Story) -> None:
        async with AsyncOrchestrator(server, template[1]) as orch:
            await asyncio.wait_for(story(orch, await orch.project(project.id)), 60)

    return lambda story: asyncio.run(go(story))


async def until(fact: Callable[[], bool]) -> None:
    """Wait for a fact."""
    while not fact():  # a fact of another's has no event
        await asyncio.sleep(0.01)


async def see(demo: AsyncProjectClient, agent_id: str, status: str) -> None:
    """Wait until the agent is seen in this status."""
    while (await demo.agents.get(agent_id)).status != status:
        await asyncio.sleep(0.02)


def test_an_agent_works_is_paused_goes_on_and_is_terminated(tell: Callable[[Story], None], project: Project) -> None:
    project.spawn(name="scout")
    steps: list[int] = []

    async def loop(me: Run) -> None:
        async with me.atask("count"):
            while True:
                await me.acheckpoint()
                steps.append(len(steps))
                me.usage(input_tokens=1)
                await asyncio.sleep(0.01)

    async def story(orch: AsyncOrchestrator, demo: AsyncProjectClient) -> None:
        async def work() -> None:
            async with orch.run_agent("scout", project=demo.id, ttl=5) as me:
                await loop(me)

        [agent] = [agent async for agent in demo.agents.list()]
        working = asyncio.create_task(work())
        await see(demo, agent.id, "working")
        pause = await demo.commands.wait(await demo.agents.pause(agent.id), until="quiesced")
        done = len(steps)
        await asyncio.sleep(0.2)  # in which it could go on
        assert (pause.quiesced_by, len(steps)) == ("ack", done)
        await demo.agents.resume(agent.id)
        await until(lambda: len(steps) > done)
        await demo.commands.wait(await demo.agents.terminate(agent.id), until="quiesced")
        await working  # it has ended, and quietly
        while (ended := await demo.agents.get(agent.id)).tokens_used < len(steps):  # taken, and not counted yet
            await asyncio.sleep(0.02)
        assert (ended.status, ended.tokens_used, ended.tasks_completed) == ("terminated", len(steps), 0)

    tell(story)
    assert violations() == {}


def test_more_tasks_than_threads_stand_still_together(tell: Callable[[Story], None], project: Project) -> None:
    agent_id = project.spawn(name="scout")["id"]
    steps = [0] * 40

    async def loop(me: Run, number: int) -> None:
        async with me.atask(f"part {number}"):
            while True:
                await me.acheckpoint()
                steps[number] += 1
                await asyncio.sleep(0.01)

    async def story(orch: AsyncOrchestrator, demo: AsyncProjectClient) -> None:
        async with orch.run_agent("scout", project=demo.id, ttl=5) as me, me.atask("the whole"):
            loops = asyncio.gather(*(loop(me, number) for number in range(40)))
            await until(lambda: min(steps) > 2)
            pause = await demo.commands.wait(await demo.agents.pause(agent_id), until="quiesced")
            done = list(steps)
            await asyncio.sleep(0.2)  # in which they could go on
            assert (pause.quiesced_by, steps) == ("ack", done)
            await demo.agents.resume(agent_id)
            await until(lambda: all(now > before for now, before in zip(steps, done, strict=True)))
            loops.cancel()
            with suppress(asyncio.CancelledError):
                await loops

    tell(story)


def test_one_that_goes_on_keeps_a_pause_from_being_acknowledged(
    tell: Callable[[Story], None], project: Project
) -> None:
    agent_id = project.spawn(name="scout")["id"]
    ready, halted = asyncio.Event(), []

    async def stands(me: Run) -> None:
        async with me.atask("stands"):
            await ready.wait()
            await me.acheckpoint()
            halted.append("stood")

    async def goes_on(me: Run) -> None:
        async with me.atask("goes on"):
            await ready.wait()
            await asyncio.sleep(1.5)
            halted.append("went on")
            await me.acheckpoint()

    async def story(orch: AsyncOrchestrator, demo: AsyncProjectClient) -> None:
        async with orch.run_agent("scout", project=demo.id, ttl=5) as me, me.atask("the whole"):
            both = asyncio.gather(stands(me), goes_on(me))
            pause = await demo.agents.pause(agent_id)
            while me.told is None or me.told.directive != "pause":
                me.flush()
                await asyncio.sleep(0.02)
            ready.set()
            assert (await demo.commands.wait(pause, until="quiesced")).quiesced_by == "ack"
            assert halted == ["went on"]
            await demo.agents.resume(agent_id)
            await both

    tell(story)


def test_one_that_waits_for_a_paused_agent_and_is_cancelled_takes_no_lease(
    tell: Callable[[Story], None], project: Project
) -> None:
    agent_id = project.in_status("paused", name="scout")

    async def story(orch: AsyncOrchestrator, demo: AsyncProjectClient) -> None:
        async def enter() -> None:
            async with orch.run_agent("scout", project=demo.id, ttl=5):
                pytest.fail("it is paused")

        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(enter(), 0.5)
        await demo.commands.wait(await demo.agents.resume(agent_id))
        assert (await demo.agents.explain(agent_id))["lease"] is None

    tell(story)


def test_what_a_block_raises_comes_out_of_it_and_the_lease_is_given_back(
    tell: Callable[[Story], None], project: Project
) -> None:
    agent_id = project.spawn(name="scout")["id"]

    async def story(orch: AsyncOrchestrator, demo: AsyncProjectClient) -> None:
        async def work() -> None:
            async with orch.run_agent("scout", project=demo.id, ttl=5) as me, me.atask("divide"):
                async with me.awaiting("a number"):
                    await see(demo, agent_id, "waiting")
                    assert (await demo.agents.get(agent_id)).current_task == "a number"
                await see(demo, agent_id, "working")
                assert (await demo.agents.get(agent_id)).current_task == "divide"
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await work()
        await see(demo, agent_id, "idle")
        agent = await demo.agents.get(agent_id)
        assert (agent.tasks_completed, agent.current_task) == (0, None)
        await demo.agents.lease(agent_id, holder="another")  # it is free

    tell(story)
