"""One process that does several things at once: it stands still when all of them do."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from orchestrator.sdk import Orchestrator, ProjectClient, Run
from orchestrator.sdk.shapes import Told
from tests.stage import Project, eventually

pytestmark = pytest.mark.usefixtures("worker")


@pytest.fixture
def me(
    orch: Orchestrator, demo: ProjectClient, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Run]:
    """A run in this process."""
    monkeypatch.setenv("ORCH_OUTBOX", str(tmp_path))
    with orch.run_agent("scout", project=demo.id, type=project.type_id, ttl=5) as run:
        yield run
        agent = demo.agents.get(run.id)
        if agent.status == "paused":  # who stands still must be let go before the test can end
            demo.agents.resume(run.id)


def pause(demo: ProjectClient, me: Run, mode: str = "checkpoint") -> str:
    """Have the agent told to pause; the command's id."""
    command = demo.commands.wait(demo.agents.pause(me.id, mode=mode))
    me.flush()  # hear of it now
    return command.id


def quiesced(demo: ProjectClient, command_id: str) -> str | None:
    """Who has said that the process stands still, as soon as it is known."""
    return demo.commands.wait(command_id, until="quiesced", timeout=5).quiesced_by


async def heard(me: Run, directive: str) -> None:
    """Wait until the process has been told this."""
    while me.told is None or me.told.directive != directive:
        me.flush()
        await asyncio.sleep(0.02)


def test_who_is_cancelled_while_the_agent_is_paused_ends_at_once(demo: ProjectClient, me: Run) -> None:
    async def interrupted() -> None:
        await asyncio.to_thread(pause, demo, me)
        await heard(me, "pause")
        await asyncio.wait_for(me.acheckpoint(), 0.1)

    def interrupt() -> None:
        with pytest.raises(TimeoutError):
            asyncio.run(interrupted())

    runner = Thread(target=interrupt, daemon=True)
    runner.start()
    runner.join(5)

    assert not runner.is_alive()


def test_branches_of_one_task_regain_the_lease_together(demo: ProjectClient, me: Run) -> None:
    async def branch() -> None:
        while demo.agents.get(me.id).status != "paused":
            await asyncio.sleep(0.02)
        me.flush()  # it will be fenced
        while True:
            await me.acheckpoint()
            await asyncio.sleep(0.02)
            if demo.agents.explain(me.id)["lease"]["epoch"] == 3:
                return

    async def stop_and_go() -> None:
        await asyncio.to_thread(pause, demo, me, "immediate")
        await asyncio.sleep(0.5)
        await asyncio.to_thread(demo.agents.resume, me.id)

    async def everything() -> None:
        async with me.atask("the whole"):
            await asyncio.gather(branch(), branch(), stop_and_go())

    asyncio.run(asyncio.wait_for(everything(), 30))


def test_a_task_of_one_agent_inside_a_task_of_another_is_its_own(
    orch: Orchestrator, demo: ProjectClient, me: Run, project: Project
) -> None:
    with orch.run_agent("other", project=demo.id, type=project.type_id, ttl=5) as other:
        stander = Thread(target=lambda: [eventually(lambda: other.told and other.told.directive == "pause"),
                                         other.checkpoint()], daemon=True)  # fmt: skip
        with me.task("of one"), other.task("of the other"):
            stander.start()
            command = pause(demo, other)
            time.sleep(1.2)  # time for the thread that stands to be taken for all
            assert demo.commands.get(command).quiesced_at is None
        assert quiesced(demo, command) == "ack"
        demo.agents.resume(other.id)
        stander.join(10)


def test_listeners_hear_of_a_lost_lease_and_of_a_harder_stop_until_they_have_enough(
    demo: ProjectClient, me: Run
) -> None:
    heard_of: list[tuple[str, str | None]] = []
    enough = me.on_directive(lambda told: heard_of.append((told.directive, told.mode)))
    with me.task("something"):
        pause(demo, me, "drain")
        eventually(lambda: ("pause", "drain") in heard_of)
        demo.agents.pause(me.id, owner="other", mode="immediate")
        eventually(lambda: (me.flush(), heard_of[-1])[1] == ("pause", "immediate"))
        enough()
        demo.agents.resume(me.id, owner="other")
        demo.agents.resume(me.id)
    me.checkpoint()

    assert heard_of[-1] == ("pause", "immediate")


def test_a_listener_that_fails_is_nobody_elses_failure(
    demo: ProjectClient, me: Run, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(told: Told) -> None:
        raise RuntimeError(told.directive)

    heard_of: list[str] = []
    me.on_directive(fail)
    me.on_directive(lambda told: heard_of.append(told.directive))
    pause(demo, me)

    eventually(lambda: heard_of[-1:] == ["pause"])
    assert "a listener failed" in caplog.text
    demo.agents.resume(me.id)
    eventually(lambda: heard_of[-1:] == ["continue"])


def test_a_listener_that_would_stand_still_does_not_stop_the_beats(
    demo: ProjectClient, me: Run, caplog: pytest.LogCaptureFixture
) -> None:
    me.on_directive(lambda _: me.checkpoint())
    command = pause(demo, me)
    eventually(lambda: "must not wait" in caplog.text)
    working = Thread(target=me.checkpoint, daemon=True)
    working.start()

    assert quiesced(demo, command) == "ack"
    demo.agents.resume(me.id)
    working.join(10)
    assert not working.is_alive()
