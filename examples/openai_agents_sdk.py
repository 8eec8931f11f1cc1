"""An agent of the OpenAI Agents SDK, with a model that only pretends: it calls a tool again and again, then ends.

    ORCH_PROJECT=demo python examples/openai_agents_sdk.py scout-03 researcher 100 0.05

The arguments: the agent's name, its type, how many model calls, and how many seconds each takes.
"""

import asyncio
import os
import sys
from typing import Any

from agents import Agent, Model, ModelResponse, RunConfig, Runner, Usage, function_tool
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
)
from openai.types.responses.response_usage import InputTokensDetails

from orchestrator.sdk import Orchestrator
from orchestrator.sdk.adapters.openai_agents import Hooks


class Anvil(Model):
    """A model that answers without a network."""

    model = "anvil-small"

    def __init__(self, calls: int, seconds: float) -> None:
        self._calls, self._seconds, self._done = calls, seconds, 0

    async def get_response(self, *_: Any, **__: Any) -> ModelResponse:
        """Another call of the tool, or the last word."""
        await asyncio.sleep(self._seconds)
        print(f"step {self._done}", flush=True)
        self._done += 1
        cached = InputTokensDetails(cached_tokens=40, cache_write_tokens=0)
        used = Usage(requests=1, input_tokens=100, output_tokens=10, total_tokens=110, input_tokens_details=cached)
        return ModelResponse([self._word()], used, response_id=None)

    def _word(self) -> ResponseFunctionToolCall | ResponseOutputMessage:
        if self._done < self._calls:
            call = f"call-{self._done}"
            return ResponseFunctionToolCall(arguments="{}", call_id=call, name="look", type="function_call")
        text = ResponseOutputText(annotations=[], text="seen", type="output_text")
        return ResponseOutputMessage(id="last", content=[text], role="assistant", status="completed", type="message")

    async def stream_response(self, *_: Any, **__: Any) -> Any:  # type: ignore[override]
        """Nobody streams here."""
        raise NotImplementedError


@function_tool
def look() -> str:
    """Look around."""
    return "nothing new"


def main(name: str, kind: str, calls: int, seconds: float) -> None:
    """Run the agent once, as one task."""
    project = os.environ.get("ORCH_PROJECT", "demo")
    agent = Agent(name="Scout", model=Anvil(calls, seconds), tools=[look])
    with Orchestrator() as orch, orch.run_agent(name, project=project, type=kind, ttl=5) as me:
        print(f"agent {me.id}", flush=True)
        with me.task("look around"):
            quiet = RunConfig(tracing_disabled=True)
            running = Runner.run(agent, "Look around.", hooks=Hooks(me), max_turns=calls, run_config=quiet)
            print(asyncio.run(running).final_output, flush=True)
        print("done", flush=True)
    print("ended", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
