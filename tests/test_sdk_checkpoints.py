"""What a checkpoint knows: a stop is heard of within a second whatever the ttl, and looking often costs little."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from orchestrator.sdk import AsyncOrchestrator, Orchestrator, ProjectClient, Run, Terminated
from orchestrator.sdk.calls import Call
from orchestrator.sdk.connection import Connection
from tests.stage import Project, eventually

pytestmark = pytest.mark.usefixtures("worker")


class Beats:
    """The beats this process sends: how many, and how many seconds each is held up."""

    def __init__(self, send: Callable[..., Any]) -> None:
        self.count, self.delay, self._send = 0, 0.0, send

    def send(self, connection: Connection, call: Call[Any], *given: Any, **more: Any) -> Any:
        """In place of Connection.send."""
        if call.path.endswith("/beat"):
            self.count += 1
            time.sleep(self.delay)
        return self._send(connection, call, *given, **more)


@pytest.fixture
def beats(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Beats:
    """Those of this process."""
    monkeypatch.setenv("ORCH_OUTBOX", str(tmp_path))
    made = Beats(Connection.send)

    def send(*given: Any, **more: Any) -> Any:  # a function, for the connection to be its first argument
        return made.send(*given, **more)

    monkeypatch.setattr(Connection, "send", send)
    return made


@pytest.fixture
def me(orch: Orchestrator, project: Project, beats: Beats) -> Iterator[Run]:
    """This process, as an agent, with the ttl that there is where none is given."""
    project.spawn(name="scout")
    with orch.run_agent("scout", project=project.id) as run:
        yield run


@contextmanager
def at_work(me: Run, threads: int = 1) -> Iterator[list[float]]:
    """Threads in the middle of one long task each, at a checkpoint every 50 ms; when they have passed one."""
    passed: list[float] = []
    enough = Event()

    def work() -> None:
        with me.task("the long one"):
            while not enough.wait(0.05):
                me.checkpoint()
                passed.append(time.monotonic())

    workers = [Thread(target=work, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    eventually(lambda: len(passed) > threads)
    try:
        yield passed
    finally:
        enough.set()
        for worker in workers:
            worker.join(10)


def test_a_pause_is_quiesced_within_a_second_of_a_checkpoint_whatever_the_ttl(me: Run, demo: ProjectClient) -> None:
    with at_work(me):
        time.sleep(1.5)  # the beats that a beginning brings are over

        asked_at = time.monotonic()
        pause = demo.commands.wait(demo.agents.pause(me.id), until="quiesced", timeout=12)
        took = time.monotonic() - asked_at

        demo.agents.resume(me.id)
        assert pause.quiesced_by == "ack"
        assert took < 0.05 + 1 + 0.3  # the slack is for a machine that is busy with other things


def test_a_terminate_is_heard_of_as_soon(me: Run, demo: ProjectClient) -> None:
    with me.task("the long one"):
        time.sleep(1.5)
        demo.commands.wait(demo.agents.terminate(me.id))

        with pytest.raises(Terminated):
            me.checkpoint()


@pytest.mark.parametrize("threads", [1, 4])
def test_checkpoints_however_many_cost_no_more_than_three_beats_in_two_seconds(
    me: Run, beats: Beats, threads: int
) -> None:
    with at_work(me, threads) as passed:
        time.sleep(1)  # as above
        before, done = beats.count, len(passed)
        time.sleep(4)
        sent, passed_meanwhile = beats.count - before, len(passed) - done

    assert 4 <= sent <= 1.5 * 4
    assert passed_meanwhile > 30 * threads


def test_an_answer_that_is_slow_is_waited_for_by_all_and_asked_for_once(me: Run, beats: Beats) -> None:
    with at_work(me, threads=4) as passed:
        beats.delay = 1.5
        eventually(lambda: passed[-1] < time.monotonic() - 1)  # they wait
        before = beats.count
        eventually(lambda: passed[-1] > time.monotonic() - 0.2)

        assert beats.count - before <= 1
        beats.delay = 0


def test_no_checkpoint_waits_for_a_server_that_is_known_to_be_away(
    me: Run, beats: Beats, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Connection("http://127.0.0.1:9", "key", None, 0)
    monkeypatch.setattr(me._place, "connection", away)
    me.flush()
    eventually(lambda: me._pulse._is_away)
    beats.delay = 2

    with at_work(me) as passed:
        time.sleep(4)

    assert max(after - before for before, after in itertools.pairwise(passed)) < 0.5


def test_an_event_loop_goes_on_while_a_checkpoint_waits_for_an_answer(
    server: str, template: tuple[str, str], project: Project, beats: Beats
) -> None:
    project.spawn(name="scout")
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.02)

    async def story() -> float:
        async with AsyncOrchestrator(server, template[1]) as orch, orch.run_agent("scout", project=project.id) as me:
            await asyncio.sleep(1)
            beats.delay, began, ticking = 1, time.monotonic(), asyncio.create_task(tick())
            await me.acheckpoint()
            ticking.cancel()
            beats.delay = 0
            return time.monotonic() - began

    assert asyncio.run(asyncio.wait_for(story(), 30)) >= 1
    assert max(after - before for before, after in itertools.pairwise(ticks)) < 0.5
