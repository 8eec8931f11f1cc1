"""`orch run`: any program as an agent's process, stopped, let go on and ended as the agent is."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from orchestrator.cli.wrapped import Program
from orchestrator.sdk import ProjectClient
from tests.shell import Orch
from tests.stage import Project, busy, eventually, violations

pytestmark = pytest.mark.usefixtures("worker")

COUNTING = 'trap "echo ended >> $0; exit 7" TERM; while :; do echo $ORCH_AGENT >> $0; sleep 0.02; done'
STARTING = """
import contextlib, subprocess
while True:  # its child is between vfork and exec nearly always: it looks for its program in so many places
    with contextlib.suppress(FileNotFoundError):
        subprocess.run(["none"], env={"PATH": ("/usr/.." * 500 + ":") * 20_000})
"""
DEAF = 'trap "" TSTP TERM; while :; do echo on >> $0; sleep 0.02; done'


@dataclass
class Wrapped:
    """A program that writes lines to a file as long as it runs, and `orch run` around it."""

    orch: "subprocess.Popen[str]"
    file: Path
    demo: ProjectClient
    agent_id: str

    def lines(self) -> list[str]:
        """What it has written."""
        return self.file.read_text().splitlines() if self.file.exists() else []

    def stopped(self) -> bool:
        """Whether `orch run` is stopped: by then nothing of what it guards runs."""
        return psutil.Process(self.orch.pid).status() == psutil.STATUS_STOPPED

    def stands(self) -> bool:
        """Whether it writes no more."""
        before = len(self.lines())
        time.sleep(0.2)
        return len(self.lines()) == before

    def ended(self, seconds: float = 20) -> int:
        """The exit code of `orch run`, as soon as it has ended."""
        return self.orch.wait(seconds)


@pytest.fixture
def cli(server: str, project: Project, template: tuple[str, str], tmp_path: Path) -> Orch:
    """The command line of an administrator, in a new project."""
    outbox = str(tmp_path / "outbox")
    return Orch({"ORCH_URL": server, "ORCH_API_KEY": template[1], "ORCH_PROJECT": project.id, "ORCH_OUTBOX": outbox})


@contextmanager
def running(
    cli: Orch, demo: ProjectClient, project: Project, file: Path, script: str, *options: str
) -> Iterator[Wrapped]:
    """Such a program, at work; killed at the end of the block."""
    agent_id = project.spawn(name="scout")["id"]
    line = ("run", "--name", "scout", "--ttl", "5", *options, "--", "sh", "-c", script, str(file))
    with cli.start(*line) as process:
        wrapped = Wrapped(process, file, demo, agent_id)
        try:
            eventually(wrapped.lines, 20)
            yield wrapped
        finally:
            process.kill()
    eventually(wrapped.stands)


def test_a_pause_stops_the_program_a_resumption_lets_it_go_on_and_a_terminate_ends_it(
    cli: Orch, demo: ProjectClient, project: Project, tmp_path: Path
) -> None:
    with running(cli, demo, project, tmp_path / "out", COUNTING) as wrapped:
        eventually(lambda: demo.agents.get(wrapped.agent_id).status == "working")
        assert demo.agents.get(wrapped.agent_id).current_task.startswith("sh -c 'trap")  # type: ignore[union-attr]
        pause = demo.agents.pause(wrapped.agent_id)

        assert demo.commands.wait(pause, until="quiesced").quiesced_by == "ack"
        assert wrapped.stands()
        demo.agents.resume(wrapped.agent_id)
        eventually(lambda: not wrapped.stands())
        ended = demo.commands.wait(demo.agents.terminate(wrapped.agent_id), until="quiesced")

        assert wrapped.ended() == 7
        assert (ended.quiesced_by, wrapped.lines()[-1]) == ("release", "ended")
        assert set(wrapped.lines()[:-1]) == {wrapped.agent_id}
        assert demo.agents.get(wrapped.agent_id).tasks_completed == 0
    assert violations() == {}


def test_a_deaf_program_is_stopped_and_ended_all_the_same(
    cli: Orch, demo: ProjectClient, project: Project, tmp_path: Path
) -> None:
    with running(cli, demo, project, tmp_path / "out", DEAF, "--grace", "0.5") as wrapped:
        demo.commands.wait(demo.agents.pause(wrapped.agent_id), until="quiesced")
        assert wrapped.stands()

        demo.agents.terminate(wrapped.agent_id)

        assert wrapped.ended() == 128 + signal.SIGKILL


def test_an_immediate_pause_stops_it_and_a_resumption_leases_anew(
    cli: Orch, demo: ProjectClient, project: Project, tmp_path: Path
) -> None:
    with running(cli, demo, project, tmp_path / "out", COUNTING) as wrapped:
        demo.commands.wait(demo.agents.pause(wrapped.agent_id, mode="immediate"), until="quiesced")
        eventually(wrapped.stands)

        demo.agents.resume(wrapped.agent_id)

        eventually(lambda: not wrapped.stands())
        assert demo.agents.explain(wrapped.agent_id)["lease"]["epoch"] == 3


def test_a_pause_that_drains_lets_it_run_to_its_end(
    cli: Orch, demo: ProjectClient, project: Project, tmp_path: Path
) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do echo $i >> $0; sleep 0.3; done"
    with running(cli, demo, project, tmp_path / "out", script) as wrapped:
        pause = demo.agents.pause(wrapped.agent_id, mode="drain")

        assert demo.commands.wait(pause, until="quiesced").quiesced_by == "release"
        assert (wrapped.ended(), len(wrapped.lines())) == (0, 8)
        eventually(lambda: demo.agents.get(wrapped.agent_id).tasks_completed == 1)


def test_ctrl_z_stops_the_program_and_then_orch_run_and_both_go_on_with_a_new_lease(
    cli: Orch, demo: ProjectClient, project: Project, tmp_path: Path
) -> None:
    with running(cli, demo, project, tmp_path / "out", COUNTING) as wrapped:
        eventually(lambda: demo.agents.get(wrapped.agent_id).status == "working")

        wrapped.orch.send_signal(signal.SIGTSTP)
        eventually(wrapped.stopped)
        assert wrapped.stands()
        eventually(lambda: demo.agents.get(wrapped.agent_id).status == "idle", 20)  # its lease is lost
        wrapped.orch.send_signal(signal.SIGCONT)

        eventually(lambda: not wrapped.stands())
        eventually(lambda: demo.agents.get(wrapped.agent_id).status == "working")
        assert demo.agents.explain(wrapped.agent_id)["lease"]["epoch"] == 2
    assert violations() == {}


def test_a_program_whose_lease_went_to_another_during_ctrl_z_is_ended(
    cli: Orch, demo: ProjectClient, project: Project, tmp_path: Path
) -> None:
    with running(cli, demo, project, tmp_path / "out", COUNTING) as wrapped:
        wrapped.orch.send_signal(signal.SIGTSTP)
        eventually(wrapped.stopped)
        assert wrapped.stands()
        place, before = f"{project.agent(wrapped.agent_id)}/lease", len(wrapped.lines())
        eventually(lambda: project.api.post(place, {"holder": "other"}).status_code == 201, 20)

        wrapped.orch.send_signal(signal.SIGCONT)

        assert wrapped.ended() != 0
        assert wrapped.lines()[before:] == ["ended"], "it ran on without a lease"


def test_ctrl_z_while_the_agent_is_paused_stops_orch_run_at_once_and_resumes_nobody(
    cli: Orch, demo: ProjectClient, project: Project, tmp_path: Path
) -> None:
    with running(cli, demo, project, tmp_path / "out", COUNTING) as wrapped:
        demo.commands.wait(demo.agents.pause(wrapped.agent_id), until="quiesced")

        wrapped.orch.send_signal(signal.SIGTSTP)
        eventually(wrapped.stopped)
        wrapped.orch.send_signal(signal.SIGCONT)
        assert wrapped.stands()
        demo.agents.resume(wrapped.agent_id)

        eventually(lambda: not wrapped.stands())
        assert demo.agents.explain(wrapped.agent_id)["lease"]["epoch"] == 1


def test_a_signal_that_comes_while_the_program_starts_leaves_nothing_of_it(tmp_path: Path) -> None:
    file = tmp_path / "out"
    came = threading.Event()

    def interrupted(*_: object) -> None:
        came.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupted)
    line = ["sh", "-c", COUNTING.replace("while", "kill -TERM $PPID; while", 1), str(file)]
    program = Program(line, grace=5)
    try:
        with pytest.raises(KeyboardInterrupt), program.running(os.environ | {"ORCH_AGENT": "a"}):
            came.wait(10)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert program.code == 7
    assert file.read_text().split()[-1] == "ended"


def test_a_program_that_waits_for_its_stopped_child_to_start_is_still() -> None:
    program = Program([sys.executable, "-c", STARTING], grace=0.5)
    with program.running(os.environ):
        eventually(lambda: psutil.STATUS_DISK_SLEEP in [child.status() for child in psutil.Process().children()])

        stopping = threading.Thread(target=program.stop, kwargs={"at_once": True}, daemon=True)
        stopping.start()
        stopping.join(5)
        assert not stopping.is_alive()
        program.go_on()


def test_a_program_that_is_interrupted_ends_and_gives_the_lease_back(
    cli: Orch, demo: ProjectClient, project: Project, tmp_path: Path
) -> None:
    with running(cli, demo, project, tmp_path / "out", COUNTING) as wrapped:
        wrapped.orch.send_signal(signal.SIGTERM)

        assert wrapped.ended() == 128 + signal.SIGTERM
        assert wrapped.lines()[-1] == "ended"
        eventually(lambda: demo.agents.get(wrapped.agent_id).status == "idle")
        assert demo.agents.explain(wrapped.agent_id)["lease"]["live"] is False


def test_a_program_does_not_outlive_its_guard(cli: Orch, demo: ProjectClient, project: Project, tmp_path: Path) -> None:
    with running(cli, demo, project, tmp_path / "out", DEAF, "--grace", "0.5") as wrapped:
        below = psutil.Process(wrapped.orch.pid).children(recursive=True)

        wrapped.orch.kill()

        assert psutil.wait_procs(below, busy(5))[1] == []


@pytest.mark.parametrize(("command", "code"), [("true", 0), ("exit 3", 3)])
def test_the_exit_code_is_the_programs_and_a_task_is_done_if_it_is_0(
    cli: Orch, demo: ProjectClient, project: Project, command: str, code: int
) -> None:
    result = cli.run("run", "--name", "scout", "--type", project.type_id, "--", "sh", "-c", command)

    assert (result.returncode, result.stderr) == (code, "")
    [agent] = demo.agents.list()
    assert eventually(lambda: demo.agents.get(agent.id).status == "idle")
    eventually(lambda: demo.agents.get(agent.id).tasks_completed == (code == 0))


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        (("--", "no-such-program"), 2, "there is no program 'no-such-program'"),
        (("--",), 2, "Missing argument"),
        (("--name", "nobody", "--", "true"), 1, "there is no agent 'nobody'; give its type to have it spawned."),
        (("-p", "nowhere", "--", "true"), 3, "there is no project 'nowhere'"),
        (("--url", "http://127.0.0.1:9", "--", "true"), 7, "refused"),
        (("--ttl", "4", "--", "true"), 2, "4 is not in the range"),
    ],
)
def test_what_cannot_be_run_is_said(cli: Orch, line: tuple[str, ...], code: int, says: str) -> None:
    result = cli("run", *line)

    assert result.exit_code == code
    assert says in result.stderr


def test_an_agent_that_is_terminated_before_its_program_starts_is_said(
    cli: Orch, demo: ProjectClient, project: Project, tmp_path: Path
) -> None:
    agent_id = project.in_status("paused", name="scout")
    with cli.start("run", "--name", "scout", "--", "true") as process:
        eventually((tmp_path / "outbox").exists)  # from then on it knows whom it waits for
        demo.agents.terminate(agent_id)
        _, err = process.communicate(timeout=20)

    assert process.returncode == 5
    assert "terminated" in err


def test_a_line_that_is_no_text_is_run_all_the_same(cli: Orch, project: Project) -> None:
    ran = cli.run("run", "--name", "bytes", "--type", project.type_id, "--", "test", "a\udc80b")

    assert (ran.returncode, ran.stderr) == (0, "")
