"""The examples as processes: what they have printed, and their agents as the API shows them."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.sdk import Orchestrator, ProjectClient
from tests.stage import ROOT, Project, eventually


@dataclass
class Looping:
    """A process of one of the examples, and its agent as the API shows it."""

    process: "subprocess.Popen[str]"
    log: Path
    project: ProjectClient
    agent_id: str = ""

    def said(self) -> list[str]:
        """What it has printed."""
        return self.log.read_text().splitlines()

    def steps(self) -> int:
        """How many steps it has done."""
        return sum(line.startswith("step") for line in self.said())

    @property
    def agent(self) -> Any:
        """The agent."""
        return self.project.agents.get(self.agent_id)

    def working(self) -> "Looping":
        """Wait until it has done something, and the agent is seen to work."""
        eventually(lambda: self.steps() > 0 or self.process.poll() is not None, 40)
        assert self.process.poll() is None, self.said()
        self.agent_id = self.said()[0].split()[1]
        eventually(lambda: self.agent.status == "working")
        return self


@contextmanager
def looping(
    server: str,
    key: str,
    project: Project,
    folder: Path,
    jobs: int = 1000,
    seconds: float = 0.05,
    name: str = "scout",
    script: str = "plain_loop",
) -> Iterator[Looping]:
    """A process of an example that works through jobs; killed at the end of the block."""
    kind = project.api.get(f"agent-types/{project.type_id}").json["slug"]  # type: ignore[index]
    env = os.environ | {
        "ORCH_URL": server,
        "ORCH_API_KEY": key,
        "ORCH_PROJECT": project.id,
        "ORCH_OUTBOX": str(folder / "outbox"),
    }
    log = folder / f"loop-{time.monotonic_ns()}.log"
    with log.open("w") as output, Orchestrator(server, key) as orch:
        line = [sys.executable, f"examples/{script}.py", name, kind, str(jobs), str(seconds)]
        process = subprocess.Popen(line, cwd=ROOT, env=env, stdout=output, stderr=output, text=True)
        try:
            yield Looping(process, log, orch.project(project.id))
        finally:
            process.kill()
            process.wait(10)
