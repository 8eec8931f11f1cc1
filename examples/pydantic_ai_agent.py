"""An agent of pydantic-ai, with a model that only pretends: it calls a tool again and again, then ends.

    ORCH_PROJECT=demo python examples/pydantic_ai_agent.py scout-03 researcher 100 0.05

The arguments: the agent's name, its type, how many model calls, and how many seconds each takes.
"""

import asyncio
import os
import sys
from decimal import Decimal
from itertools import count

from pydantic_ai import Agent, UsageLimits
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage

from orchestrator.sdk import Orchestrator
from orchestrator.sdk.adapters.pydantic_ai import hooks


def anvil(calls: int, seconds: float) -> FunctionModel:
    """A model that answers without a network."""
    steps = count()

    async def answer(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        await asyncio.sleep(seconds)
        step = next(steps)
        print(f"step {step}", flush=True)
        word = ToolCallPart("look", {}) if step < calls - 1 else TextPart("seen")
        used = RequestUsage(input_tokens=100, output_tokens=10, cache_read_tokens=40, cost=Decimal("0.001"))
        return ModelResponse(parts=[word], usage=used)

    return FunctionModel(answer, model_name="anvil-small")


def look() -> str:
    """Look around."""
    return "nothing new"


def main(name: str, kind: str, calls: int, seconds: float) -> None:
    """Run the agent once, as one task."""
    project = os.environ.get("ORCH_PROJECT", "demo")
    with Orchestrator() as orch, orch.run_agent(name, project=project, type=kind, ttl=5) as me:
        print(f"agent {me.id}", flush=True)
        agent = Agent(anvil(calls, seconds), tools=[look], capabilities=[hooks(me)])
        with me.task("look around"):
            unlimited = UsageLimits(request_limit=None)
            print(agent.run_sync("Look around.", usage_limits=unlimited).output, flush=True)
        print("done", flush=True)
    print("ended", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
