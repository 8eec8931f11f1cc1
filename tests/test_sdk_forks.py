"""Forks of an agent's process: they are told at once that the run is their parent's, and leave it alone."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from orchestrator.sdk import ProjectClient
from tests.stage import ROOT, Project, eventually, violations

pytestmark = pytest.mark.usefixtures("worker")

FORKING = """
import asyncio, multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from orchestrator.sdk import Forked, Orchestrator

def step():
    me.checkpoint()

def enter(block):
    with block:
        pass

def all_of_it():
    doors = {{
        "checkpoint": me.checkpoint,
        "acheckpoint": lambda: asyncio.run(me.acheckpoint()),
        "task": lambda: enter(me.task("child's")),
        "waiting": lambda: enter(me.waiting("child's")),
        "usage": lambda: me.usage(input_tokens=100),
        "flush": me.flush,
        "on_directive": lambda: me.on_directive(print),
        "told": lambda: me.told,
    }}
    for name, door in doors.items():
        try:
            door()
        except Forked as error:
            print(name, "is the parent's:", str(os.getppid()) in str(error), flush=True)

with Orchestrator() as orch, orch.run_agent({name!r}, project={project!r}, ttl=5) as me:
    with me.task("parent's"):
        me.usage(input_tokens=1)
        time.sleep(1)  # the last word is too old for a checkpoint to go by
        if (child := os.fork()) == 0:
            all_of_it()
            sys.exit(7)  # through all the blocks that the parent is in
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
            print(type(pool.submit(step).exception(10)).__name__, code, flush=True)
        me.checkpoint()
        me.usage(input_tokens=2)
        sys.stdin.readline()
        me.checkpoint()
    with me.task("shared"), me.waiting("for nobody"):
        child = os.fork()
    if child == 0:
        os._exit(9)  # it has left both as the parent does
    print("left", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_a_fork_is_told_that_the_run_is_its_parents_and_the_parent_goes_on(
    server: str, template: tuple[str, str], demo: ProjectClient, project: Project, tmp_path: Path
) -> None:
    agent_id = project.spawn(name="scout")["id"]
    env = os.environ | {"ORCH_URL": server, "ORCH_API_KEY": template[1], "ORCH_OUTBOX": str(tmp_path)}
    line = [sys.executable, "-W", "ignore", "-c", FORKING.format(name=agent_id, project=project.id)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(line, cwd=ROOT, env=env, text=True, start_new_session=True, **pipes) as parent:
        try:
            eventually(lambda: demo.agents.get(agent_id).tokens_used == 3, 20)
            seen, lease = demo.agents.get(agent_id), demo.agents.explain(agent_id)["lease"]
            files = list(tmp_path.iterdir())
            said, _ = parent.communicate("\n", timeout=20)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)  # its forks as well

    doors = ("checkpoint", "acheckpoint", "task", "waiting", "usage", "flush", "on_directive", "told")
    assert said.splitlines() == [*(f"{door} is the parent's: True" for door in doors), "Forked 7", "left 9"]
    assert (seen.status, seen.current_task, seen.tasks_completed) == ("working", "parent's", 0)
    assert (lease["live"], lease["epoch"]) == (True, 1)
    assert [file.name for file in files] == [f"{agent_id}.jsonl"]
    assert parent.returncode == 0
    eventually(lambda: (found := demo.agents.get(agent_id)).status == "idle" and found.tasks_completed == 2)
    assert demo.agents.get(agent_id).tokens_used == 3
    assert demo.agents.explain(agent_id)["lease"]["ended_by"] == "release"
    assert violations() == {}
