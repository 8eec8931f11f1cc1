"""Agents as processes, through the SDK: they work, stand still when told so, end when told so, and lose no usage."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from orchestrator.sdk import ProjectClient
from orchestrator.sdk.calls import Call
from orchestrator.sdk.connection import Connection
from orchestrator.sdk.running import Role, running
from tests.looping import Looping, looping
from tests.stage import Project, eventually, sql, violations

pytestmark = pytest.mark.usefixtures("worker")


@pytest.fixture
def loop(server: str, template: tuple[str, str], project: Project, tmp_path: Path) -> Iterator[Looping]:
    """A working process."""
    with looping(server, template[1], project, tmp_path) as started:
        yield started.working()


def test_a_process_that_ends_leaves_an_idle_agent_and_books_that_balance(
    server: str, template: tuple[str, str], project: Project, tmp_path: Path
) -> None:
    with looping(server, template[1], project, tmp_path, jobs=3, seconds=0.01) as started:
        assert started.process.wait(30) == 0, started.said()
        started.agent_id = started.said()[0].split()[1]

        assert started.said()[-2:] == ["done", "ended"]
        agent = eventually(lambda: (found := started.agent).tasks_completed == 3 and found)
        assert (agent.status, agent.tokens_used, str(agent.cost_incurred)) == ("idle", 3 * 3 * 110, "0.009")
        assert not list((tmp_path / "outbox").iterdir())
    assert violations() == {}


def test_a_pause_is_quiesced_within_a_checkpoint_and_a_second_and_nothing_is_lost(
    demo: ProjectClient, loop: Looping
) -> None:
    pause = demo.agents.pause(loop.agent_id, reason="tea")
    began = time.monotonic()

    demo.commands.wait(pause, until="quiesced")
    took, done = time.monotonic() - began, loop.steps()

    assert took < 0.05 + 1
    assert loop.agent.quiesced_by == "ack"
    assert loop.agent.status == "paused"
    time.sleep(0.3)  # time in which it could go on
    assert loop.steps() == done
    demo.agents.resume(loop.agent_id)
    eventually(lambda: loop.steps() > done)
    eventually(lambda: loop.agent.status == "working")


def test_a_terminate_ends_the_process(demo: ProjectClient, loop: Looping) -> None:
    command = demo.agents.terminate(loop.agent_id)

    demo.commands.wait(command, until="quiesced")

    assert loop.process.wait(10) == 0
    assert loop.said()[-1] == "ended"
    assert demo.commands.get(command.id).quiesced_by in {"ack", "release"}


def test_an_immediate_pause_fences_and_a_resume_lets_it_lease_anew(demo: ProjectClient, loop: Looping) -> None:
    pause = demo.commands.wait(demo.agents.pause(loop.agent_id, mode="immediate"), until="quiesced")
    assert pause.quiesced_by == "no_lease"
    eventually(lambda: len({loop.steps() for _ in range(2) if not time.sleep(0.2)}) == 1)
    done = loop.steps()

    demo.agents.resume(loop.agent_id)

    eventually(lambda: loop.steps() > done, 15)
    eventually(lambda: loop.agent.status == "working", 15)
    assert demo.agents.explain(loop.agent_id)["lease"]["epoch"] == 3


def test_a_frozen_process_is_quiesced_by_expiry_and_its_late_writes_are_refused(
    demo: ProjectClient, loop: Looping
) -> None:
    loop.process.send_signal(signal.SIGSTOP)
    pause = demo.agents.pause(loop.agent_id)

    stopped = demo.commands.wait(pause, until="quiesced", timeout=20)
    version, done = loop.agent.version, loop.steps()
    loop.process.send_signal(signal.SIGCONT)

    assert stopped.quiesced_by == "expiry"
    eventually(lambda: len({loop.steps() for _ in range(2) if not time.sleep(0.2)}) == 1)
    assert loop.steps() <= done + 1, "it was silent for too long: at its next checkpoint it stands still"
    assert (loop.agent.version, loop.agent.status) == (version, "paused")
    late = sql("SELECT state FROM commands WHERE agent_id = :id AND actor_type = 'agent' AND created_at >"
               " (SELECT quiesced_at FROM commands WHERE id = :pause)", id=loop.agent_id, pause=pause.id)  # fmt: skip
    assert late == []
    assert violations() == {}


def test_what_a_killed_process_had_not_sent_is_sent_at_its_next_start(
    server: str, template: tuple[str, str], project: Project, tmp_path: Path
) -> None:
    with looping(server, template[1], project, tmp_path) as first:
        first.working()
        first.process.kill()
        first.process.wait(10)
        done = first.steps()

    with looping(server, template[1], project, tmp_path, jobs=0) as second:
        assert second.process.wait(60) == 0, second.said()
        second.agent_id = first.agent_id

        assert second.said()[0] == f"agent {first.agent_id}"
        counted = eventually(lambda: (tokens := second.agent.tokens_used) >= done * 110 and tokens)
        assert counted in {done * 110, (done + 1) * 110}  # it may have died between the entry and its print
    assert violations() == {}


class Slow(Connection):
    """A connection on which something happens while a beat is on its way."""

    meanwhile: Callable[[], None] | None = None

    def send(self, call: Call[Any], token: str | None = None, retries: int | None = None) -> Any:
        """The answer."""
        answer = super().send(call, token, retries)
        if call.path.endswith("/beat") and self.meanwhile is not None:
            happens, self.meanwhile = self.meanwhile, None
            happens()
        return answer


def test_what_is_said_while_a_beat_is_on_its_way_is_said_with_the_next(
    server: str, template: tuple[str, str], project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCH_OUTBOX", str(tmp_path))
    agent_id = project.spawn()["id"]
    role = Role(project.id, agent_id, None, 5, None)
    with (
        Slow(server, template[1], None, 0) as connection,
        running(connection, role) as me,
        ExitStack() as doing,
    ):
        shown = ProjectClient(connection, project.id).agents
        doing.enter_context(me.task("count"))
        eventually(lambda: shown.get(agent_id).current_task == "count")
        connection.meanwhile = doing.close
        me.flush()

        eventually(lambda: (found := shown.get(agent_id)).status == "idle" and found.current_task is None)
