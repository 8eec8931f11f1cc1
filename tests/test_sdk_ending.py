"""Processes that are ended by SIGTERM: they give their lease back, as if their work had ended."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest

from orchestrator.sdk import Orchestrator, ProjectClient
from tests.looping import looping
from tests.stage import ROOT, Project, eventually

pytestmark = pytest.mark.usefixtures("worker")

WITH_ASYNCIO = """
import asyncio
from orchestrator.sdk import AsyncOrchestrator

async def main():
    async with AsyncOrchestrator() as orch, orch.run_agent({name!r}, project={project!r}, ttl=5) as me:
        async with me.atask("wait"):
            while True:
                await me.acheckpoint()
                await asyncio.sleep(0.05)

asyncio.run(main())
"""


def is_given_back(demo: ProjectClient, agent_id: str) -> None:
    """The lease of an idle agent has ended, and was not lost."""
    eventually(lambda: demo.agents.get(agent_id).status == "idle")
    lease = demo.agents.explain(agent_id)["lease"]
    assert (lease["ended_by"], lease["epoch"]) == ("release", 1)
    reasons = {event.reason for event in demo.agents.history(agent_id)}
    assert "lease_lost" not in reasons


def test_sigterm_gives_the_lease_back(
    server: str, template: tuple[str, str], demo: ProjectClient, project: Project, tmp_path: Path
) -> None:
    with looping(server, template[1], project, tmp_path) as running:
        running.working()

        running.process.send_signal(signal.SIGTERM)

        assert running.process.wait(10) == 128 + signal.SIGTERM
        is_given_back(demo, running.agent_id)
        eventually(lambda: running.agent.tokens_used >= running.steps() * 110)


def test_sigterm_gives_the_lease_back_with_asyncio_too(
    server: str, template: tuple[str, str], demo: ProjectClient, project: Project, tmp_path: Path
) -> None:
    agent_id = project.spawn(name="scout")["id"]
    env = os.environ | {"ORCH_URL": server, "ORCH_API_KEY": template[1], "ORCH_OUTBOX": str(tmp_path)}
    code = WITH_ASYNCIO.format(name=agent_id, project=project.id)
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
    try:
        eventually(lambda: demo.agents.get(agent_id).status == "working", 20)

        process.send_signal(signal.SIGTERM)

        assert process.communicate(timeout=10)[1] == ""
        assert process.returncode == 128 + signal.SIGTERM
        is_given_back(demo, agent_id)
    finally:
        process.kill()
        process.communicate()


def test_handlers_are_put_back_and_those_of_others_are_let_be(
    orch: Orchestrator, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCH_OUTBOX", str(tmp_path))
    seen: list[object] = []
    before = signal.getsignal(signal.SIGTERM)
    project.spawn(name="scout")

    def be() -> None:
        with orch.run_agent("scout", project=project.id, ttl=5):
            seen.append(signal.getsignal(signal.SIGTERM))

    try:
        for handler in (signal.SIG_DFL, signal.SIG_IGN):
            signal.signal(signal.SIGTERM, handler)
            be()
            assert signal.getsignal(signal.SIGTERM) is handler
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        thread = Thread(target=be)
        thread.start()
        thread.join(10)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert callable(seen[0])
    assert seen[1:] == [signal.SIG_IGN, signal.SIG_DFL]
