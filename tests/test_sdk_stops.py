"""Stops, as agents' processes meet them: between tasks, within them, before they start, and after another's death."""

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

from orchestrator.sdk import Orchestrator, ProjectClient, Run, Timeout
from tests.looping import looping
from tests.stage import Project, eventually, violations

pytestmark = pytest.mark.usefixtures("worker")


@pytest.fixture
def me(orch: Orchestrator, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """This process, as an agent."""
    monkeypatch.setenv("ORCH_OUTBOX", str(tmp_path))
    project.spawn(name="scout")
    with orch.run_agent("scout", project=project.id, ttl=5) as run:
        yield run


def thread(*steps: object) -> Thread:
    """A thread that does these things."""
    made = Thread(target=lambda: [step() for step in steps if callable(step)], daemon=True)
    made.start()
    return made


def shown(me: Run, demo: ProjectClient) -> tuple[str, str | None]:
    """The agent's status and task, as everybody sees them."""
    agent = demo.agents.get(me.id)
    return agent.status, agent.current_task


def hear_of_a_pause(me: Run) -> None:
    """Wait until the process has been told."""
    me.flush()
    eventually(lambda: me.told is not None and me.told.directive == "pause")


def test_a_draining_pause_lets_the_task_end_and_stops_before_the_next(
    server: str, template: tuple[str, str], demo: ProjectClient, project: Project, tmp_path: Path
) -> None:
    with looping(server, template[1], project, tmp_path, seconds=0.4) as running:
        running.working()
        pause = demo.agents.pause(running.agent_id, mode="drain")

        assert demo.commands.wait(pause, until="quiesced").quiesced_by == "ack"

        assert running.said()[-1].endswith(".2")  # the last step of a job
        done = running.steps()
        assert done % 3 == 0
        eventually(lambda: demo.agents.get(running.agent_id).tasks_completed == done // 3)
        demo.agents.resume(running.agent_id)
        eventually(lambda: running.steps() > done)


def test_a_draining_terminate_lets_the_task_end_and_counts_it(
    server: str, template: tuple[str, str], demo: ProjectClient, project: Project, tmp_path: Path
) -> None:
    with looping(server, template[1], project, tmp_path, seconds=0.4) as running:
        running.working()
        command = demo.agents.terminate(running.agent_id, mode="drain")

        assert demo.commands.wait(command, until="quiesced").quiesced_by == "release"

        assert running.process.wait(10) == 0
        done = running.steps()
        assert done % 3 == 0
        agent = eventually(lambda: (found := running.agent).tasks_completed == done // 3 and found)
        assert (agent.status, agent.tokens_used) == ("terminated", done * 110)


def test_a_pause_between_tasks_is_acknowledged_when_the_next_one_would_begin(me: Run, demo: ProjectClient) -> None:
    with me.task("the first"):
        pass
    pause = demo.agents.pause(me.id)
    hear_of_a_pause(me)
    with pytest.raises(Timeout):
        demo.commands.wait(pause, until="quiesced", timeout=0.5)
    begun = Event()

    def work() -> None:
        with me.task("the second"):
            begun.set()

    second = thread(work)

    assert demo.commands.wait(pause, until="quiesced").quiesced_by == "ack"
    assert not begun.is_set()
    demo.agents.resume(me.id)
    assert begun.wait(10)
    second.join(10)
    eventually(lambda: demo.agents.get(me.id).tasks_completed == 2)


def test_waiting_is_seen_and_then_working_at_the_same_task(me: Run, demo: ProjectClient) -> None:
    with me.task("write"):
        with me.waiting("for a word"):
            eventually(lambda: shown(me, demo) == ("waiting", "for a word"))
            with me.waiting():
                eventually(lambda: shown(me, demo) == ("waiting", "for a word"))
        eventually(lambda: shown(me, demo) == ("working", "write"))
    eventually(lambda: shown(me, demo) == ("idle", None))


def test_waiting_outside_any_task_is_seen_and_leaves_the_agent_as_it_was(me: Run, demo: ProjectClient) -> None:
    with me.waiting("for a word"):
        eventually(lambda: shown(me, demo) == ("waiting", "for a word"))
        me.flush()

    eventually(lambda: shown(me, demo) == ("idle", None))
    with me.task("write"):
        eventually(lambda: shown(me, demo) == ("working", "write"))
    assert not list(demo.commands.list(agent_id=me.id, state="rejected"))


def test_a_task_whose_name_is_no_text_is_shown_with_that_written_out(me: Run, demo: ProjectClient) -> None:
    with me.task("read a\0\udcff"):
        eventually(lambda: shown(me, demo) == ("working", r"read a\0\udcff"))
        with me.waiting("for \ud83d"):
            eventually(lambda: shown(me, demo) == ("waiting", r"for \ud83d"))
    eventually(lambda: shown(me, demo) == ("idle", None))


def test_a_task_that_has_ended_is_shown_no_more_while_another_is_on(me: Run, demo: ProjectClient) -> None:
    inside, done = Event(), Event()

    def beside() -> None:
        with me.task("beside"):
            inside.set()
            done.wait(10)

    with me.task("the whole"):
        with me.task("a part"):
            eventually(lambda: shown(me, demo) == ("working", "a part"))
        eventually(lambda: shown(me, demo) == ("working", "the whole"))
        other = thread(beside)
        inside.wait(10)
        eventually(lambda: shown(me, demo) == ("working", "beside"))
    time.sleep(1)  # time in which something else could be said
    assert shown(me, demo) == ("working", "beside")
    done.set()
    other.join(10)
    eventually(lambda: shown(me, demo) == ("idle", None))


def test_of_several_waits_the_agent_shows_the_last_that_is_still_on(me: Run, demo: ProjectClient) -> None:
    with me.waiting("outer"):
        with me.waiting("inner"):
            eventually(lambda: shown(me, demo) == ("waiting", "inner"))
        eventually(lambda: shown(me, demo) == ("waiting", "outer"))
    eventually(lambda: shown(me, demo) == ("idle", None))

    waits, begun = Event(), Event()
    other = thread(lambda: _work_until(me, "another's", begun, waits))
    with me.waiting("for a word"):
        begun.set()
        eventually(lambda: shown(me, demo) == ("working", "another's"))
    eventually(lambda: shown(me, demo) == ("working", "another's"))
    waits.set()
    other.join(20)
    eventually(lambda: shown(me, demo) == ("idle", None))
    assert not list(demo.commands.list(agent_id=me.id, state="rejected"))


def _work_until(me: Run, what: str, begin: Event, over: Event) -> None:
    begin.wait(20)
    with me.task(what):
        over.wait(20)


def test_two_threads_acknowledge_a_pause_only_when_both_stand_still(me: Run, demo: ProjectClient) -> None:
    told, on, passed = Event(), Event(), []

    def work(name: str, ready: Event) -> None:
        with me.task(name):
            ready.wait(20)
            me.checkpoint()
            passed.append(name)

    one, other = thread(lambda: work("one", told)), thread(lambda: work("other", on))
    eventually(lambda: demo.agents.get(me.id).status == "working")
    pause = demo.agents.pause(me.id)
    hear_of_a_pause(me)
    told.set()

    with pytest.raises(Timeout):
        demo.commands.wait(pause, until="quiesced", timeout=2.5)  # more than one beat
    on.set()

    assert demo.commands.wait(pause, until="quiesced").quiesced_by == "ack"
    assert passed == []
    demo.agents.resume(me.id)
    one.join(10)
    other.join(10)
    assert sorted(passed) == ["one", "other"]


def test_a_second_process_of_the_name_takes_over_when_the_first_is_killed(
    server: str, template: tuple[str, str], demo: ProjectClient, project: Project, tmp_path: Path
) -> None:
    with (
        looping(server, template[1], project, tmp_path) as first,
        looping(server, template[1], project, tmp_path) as second,
    ):
        eventually(lambda: first.steps() + second.steps() > 0, 20)
        lives, waits = (first, second) if first.steps() else (second, first)
        lives.working()
        eventually(lambda: lives.steps() > 20)
        assert waits.said() == []

        lives.process.kill()
        lives.process.wait(10)
        waits.working()

        assert waits.agent_id == lives.agent_id
        lease = demo.agents.explain(waits.agent_id)["lease"]
        assert (lease["epoch"], lease["holder"].split(":")[-2]) == (2, str(waits.process.pid))
        demo.commands.wait(demo.agents.pause(waits.agent_id), until="quiesced")
        done = lives.steps() + waits.steps()
        used = eventually(lambda: (now := demo.agents.get(waits.agent_id).tokens_used) >= done * 110 and now)
        assert used in {done * 110, (done + 1) * 110}  # it may have died between an entry and its print
    assert violations() == {}


def test_an_agent_that_is_paused_makes_its_process_wait_until_it_is_resumed(
    server: str, template: tuple[str, str], demo: ProjectClient, project: Project, tmp_path: Path
) -> None:
    agent_id = project.in_status("paused", name="scout")
    with looping(server, template[1], project, tmp_path) as running:
        eventually(lambda: (refused := demo.agents.explain(agent_id)) and running.process.poll() is None and refused)
        with pytest.raises(AssertionError):
            eventually(lambda: running.steps() > 0 or demo.agents.explain(agent_id)["lease"], 3)

        demo.agents.resume(agent_id)

        assert running.working().agent_id == agent_id
