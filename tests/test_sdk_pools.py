"""Threads of a pool that share the work of one task."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from orchestrator.sdk import Orchestrator, ProjectClient, Run, Timeout
from tests.stage import Project, eventually

pytestmark = pytest.mark.usefixtures("worker")


@pytest.fixture
def me(orch: Orchestrator, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """This process, as an agent."""
    monkeypatch.setenv("ORCH_OUTBOX", str(tmp_path))
    project.spawn(name="scout")
    with orch.run_agent("scout", project=project.id, ttl=5) as run:
        yield run


@pytest.mark.parametrize("has_tasks", [True, False])
def test_a_pause_is_quiesced_once_all_threads_of_a_pool_stand(me: Run, demo: ProjectClient, has_tasks: bool) -> None:
    enough, held, ready = Event(), Event(), Event()

    def loop(number: int) -> None:
        while not enough.wait(0.02):
            ready.set()
            if number == 1 and has_tasks:
                held.wait(20)
            me.checkpoint()

    def work(number: int) -> None:
        if not has_tasks:
            return loop(number)
        with me.task(f"part {number}"):
            return loop(number)

    with me.task("the whole"), ThreadPoolExecutor(2) as pool:
        parts = [pool.submit(me.carry(work), number) for number in range(2)]
        eventually(lambda: demo.agents.get(me.id).status == "working" and ready.is_set())
        pause = demo.agents.pause(me.id)
        if has_tasks:  # without tasks of their own they are not told apart
            with pytest.raises(Timeout):
                demo.commands.wait(pause, until="quiesced", timeout=2.5)
        held.set()

        assert demo.commands.wait(pause, until="quiesced", timeout=5).quiesced_by == "ack"
        enough.set()
        demo.agents.resume(me.id)
    assert [part.result() for part in parts] == [None, None]
    eventually(lambda: demo.agents.get(me.id).tasks_completed == (3 if has_tasks else 1))


def test_what_was_carried_is_part_of_nothing_afterwards(me: Run, demo: ProjectClient) -> None:
    with ThreadPoolExecutor(1) as pool:
        with me.task("the whole"):
            assert pool.submit(me.carry(lambda: 7)).result() == 7
        eventually(lambda: demo.agents.get(me.id).tasks_completed == 1)
        with me.task("another"):
            pause = demo.agents.pause(me.id)
            me.flush()
            eventually(lambda: me.told and me.told.directive == "pause")
            standing = pool.submit(me.checkpoint)

            with pytest.raises(Timeout):
                demo.commands.wait(pause, until="quiesced", timeout=2.5)
        assert demo.commands.wait(pause, until="quiesced", timeout=5).quiesced_by == "ack"
        demo.agents.resume(me.id)
        standing.result(10)
