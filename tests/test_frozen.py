"""A process that was frozen for longer than its lease, and goes on as if nothing had happened."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.stage import ROOT, Project, eventually, violations
from tests.test_leases import shown


@pytest.fixture
def agent(project: Project) -> str:
    """An idle agent."""
    agent_id: str = project.spawn()["id"]
    return agent_id


@pytest.fixture
def process(server: str, template: tuple[str, str], project: Project, agent: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that acts as the agent, without the SDK; killed at the end."""
    line = [sys.executable, "-m", "tests.raw_process", server, template[1], project.agent(agent)]
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def test_what_a_frozen_process_writes_late_is_refused_and_its_usage_counted(
    project: Project, agent: str, process: "subprocess.Popen[str]"
) -> None:
    eventually(lambda: shown(project, agent)["status"] == "working")
    process.send_signal(signal.SIGSTOP)
    eventually(lambda: shown(project, agent)["status"] == "idle", 20)  # its lease is lost
    lost = shown(project, agent)
    lease = project.api.get(f"{project.agent(agent)}/explain").json["lease"]  # type: ignore[index]

    process.send_signal(signal.SIGCONT)
    beats, late = json.loads(process.communicate(timeout=30)[0])

    assert late == [[409, "fenced"]] * 3  # a beat, a PATCH with its epoch, the release
    eventually(lambda: shown(project, agent)["tokens_used"] == beats)
    now = shown(project, agent)
    assert [now[name] for name in ("status", "version", "current_task")] == ["idle", lost["version"], "count"]
    assert now["tokens_used"] > lost["tokens_used"]
    explained = project.api.get(f"{project.agent(agent)}/explain").json["lease"]  # type: ignore[index]
    assert (explained["epoch"], explained["ended_by"], explained["ended_at"]) == (1, "expiry", lease["ended_at"])
    assert violations() == {}
