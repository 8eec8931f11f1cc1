"""The real frameworks, with models that pretend, as agents: usage, pauses and ends come through the adapters."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest

from orchestrator.sdk import Orchestrator, ProjectClient, Run
from orchestrator.sdk.shapes import Command
from tests.looping import Looping, looping
from tests.stage import Project, eventually, violations

pytestmark = pytest.mark.usefixtures("worker")

CALLS = 80
"""Of 50 ms each: far more than the 5/3 s in which a beat comes."""

COSTS = {"openai_agents_sdk": Decimal(0), "pydantic_ai_agent": CALLS * Decimal("0.001"), "langgraph_graph": Decimal(0)}
"""Only one of the frameworks tells what a call has cost."""


@pytest.fixture(params=sorted(COSTS))
def script(request: pytest.FixtureRequest) -> str:
    """An example of each framework."""
    return str(request.param)


@pytest.fixture
def calls() -> int:
    """How many model calls a run has."""
    return CALLS


@pytest.fixture
def run(
    server: str, template: tuple[str, str], project: Project, tmp_path: Path, script: str, calls: int
) -> Iterator[Looping]:
    """A process in the middle of its model calls."""
    with looping(server, template[1], project, tmp_path, jobs=calls, script=script) as running:
        yield running.working()


def test_a_paused_run_stands_before_its_next_model_call_and_then_ends_as_if_nothing_had_been(
    demo: ProjectClient, run: Looping, script: str
) -> None:
    demo.commands.wait(demo.agents.pause(run.agent_id), until="quiesced")
    done = run.steps()
    assert 0 < done < CALLS
    assert (run.agent.status, run.agent.quiesced_by) == ("paused", "ack")

    eventually(lambda: run.agent.tokens_used == done * 110)  # all there was, with a beat of the paused process
    time.sleep(0.3)  # time in which it could go on
    assert run.steps() == done
    demo.agents.resume(run.agent_id)

    assert run.process.wait(30) == 0, run.said()
    assert run.said() == [f"agent {run.agent_id}", *(f"step {n}" for n in range(CALLS)), "seen", "done", "ended"]
    agent = eventually(lambda: (found := run.agent).tasks_completed == 1 and found)
    (group,) = [group for group in demo.usage() if group.group == "anvil-small"]
    assert (group.entries, group.input_tokens, group.output_tokens) == (CALLS, CALLS * 100, CALLS * 10)
    assert (agent.tokens_used, group.cache_read_tokens) == (CALLS * 110, CALLS * 40)
    assert agent.cost_incurred == group.cost_incurred == COSTS[script]
    assert violations() == {}


@pytest.mark.parametrize("calls", [5_000], ids="{}".format)
def test_a_terminated_run_ends_before_its_next_model_call(demo: ProjectClient, run: Looping) -> None:
    demo.commands.wait(demo.agents.terminate(run.agent_id), until="quiesced")

    assert run.process.wait(10) == 0, run.said()
    assert run.said()[-1] == "ended"
    assert "done" not in run.said()
    eventually(lambda: run.agent.tokens_used == run.steps() * 110)


# LangGraph is imported where it is used: each process that collects tests would load it else, which takes a second.
def test_a_graph_without_checkpoints_is_refused_before_it_begins() -> None:
    from langgraph.graph import START, MessagesState, StateGraph  # noqa: PLC0415

    from orchestrator.sdk.adapters import langgraph  # noqa: PLC0415

    plan = StateGraph(MessagesState)
    plan.add_node("look", lambda state: state)
    plan.add_edge(START, "look")

    with pytest.raises(ValueError, match="checkpointer"):
        langgraph.invoke(plan.compile(), {}, cast("Run", None), thread_id="1")


def test_a_graph_goes_on_with_asyncio_too(
    server: str, template: tuple[str, str], demo: ProjectClient, project: Project, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    from langgraph.checkpoint.memory import InMemorySaver  # noqa: PLC0415
    from langgraph.graph import END, START, MessagesState, StateGraph  # noqa: PLC0415

    from orchestrator.sdk.adapters import langgraph  # noqa: PLC0415

    monkeypatch.setenv("ORCH_OUTBOX", str(tmp_path))
    steps: list[int] = []

    async def step(state: MessagesState) -> dict[str, Any]:
        steps.append(len(state["messages"]))
        if len(steps) == 3:
            command = await asyncio.to_thread(demo.agents.pause, me.id)
            while me.told is None or me.told.directive != "pause":
                me.flush()
                await asyncio.sleep(0.02)
            resuming.append(asyncio.create_task(resume_when_quiesced(command)))
        return {"messages": [("ai", "seen")]}

    async def resume_when_quiesced(command: Command) -> int:
        await asyncio.to_thread(demo.commands.wait, command, until="quiesced")
        done = len(steps)
        await asyncio.to_thread(demo.agents.resume, me.id)
        return done

    plan = StateGraph(MessagesState)
    plan.add_node("step", step)
    plan.add_edge(START, "step")
    plan.add_conditional_edges("step", lambda state: END if len(state["messages"]) > 5 else "step")
    graph, resuming = plan.compile(checkpointer=InMemorySaver()), []

    async def everything() -> tuple[Any, int]:
        async with me.atask("the graph"):
            seen = await langgraph.ainvoke(graph, {"messages": [("user", "go")]}, me, thread_id="1")
        return seen, await resuming[0]

    with (
        Orchestrator(server, template[1]) as orch,
        orch.run_agent("scout", project=demo.id, type=project.type_id, ttl=5) as me,
    ):
        seen, done = asyncio.run(asyncio.wait_for(everything(), 30))

    assert (done, steps, len(seen["messages"])) == (3, [1, 2, 3, 4, 5], 6)


def test_the_sdk_itself_imports_none_of_the_frameworks() -> None:
    line = (
        "import orchestrator.sdk, sys; print([name for name in ('agents', 'pydantic_ai', 'langgraph', 'langchain_core')"
    )
    found = subprocess.run([sys.executable, "-c", f"{line} if name in sys.modules])"], capture_output=True, text=True,
                           check=True)  # fmt: skip

    assert found.stdout.strip() == "[]"
