"""A graph of LangGraph, with a model that only pretends: one node calls it again and again, then the graph ends.

    ORCH_PROJECT=demo python examples/langgraph_graph.py scout-03 researcher 100 0.05

The arguments: the agent's name, its type, how many model calls, and how many seconds each takes.
"""

import os
import sys
import time
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph

from orchestrator.sdk import Orchestrator
from orchestrator.sdk.adapters.langgraph import invoke


class Anvil(BaseChatModel):
    """A model that answers without a network."""

    seconds: float

    @property
    def _llm_type(self) -> str:
        return "anvil"

    def _generate(self, messages: list[Any], *_: Any, **__: Any) -> ChatResult:
        time.sleep(self.seconds)
        print(f"step {len(messages) - 1}", flush=True)
        cached = InputTokenDetails(cache_read=40)
        used = UsageMetadata(input_tokens=100, output_tokens=10, total_tokens=110, input_token_details=cached)
        message = AIMessage("seen", usage_metadata=used, response_metadata={"model_name": "anvil-small"})
        return ChatResult(generations=[ChatGeneration(message=message)])


def graph(calls: int, seconds: float) -> Any:
    """A node, called again until there are so many answers; what it has seen is kept after each step."""
    model = Anvil(seconds=seconds)
    plan = StateGraph(MessagesState)
    plan.add_node("look", lambda state: {"messages": [model.invoke(state["messages"])]})
    plan.add_edge(START, "look")
    plan.add_conditional_edges("look", lambda state: END if len(state["messages"]) > calls else "look")
    return plan.compile(checkpointer=InMemorySaver())


def main(name: str, kind: str, calls: int, seconds: float) -> None:
    """Run the graph once, as one task."""
    project = os.environ.get("ORCH_PROJECT", "demo")
    with Orchestrator() as orch, orch.run_agent(name, project=project, type=kind, ttl=5) as me:
        print(f"agent {me.id}", flush=True)
        with me.task("look around"):
            asked = {"messages": [("user", "Look around.")]}
            plan = graph(calls, seconds)
            seen = invoke(plan, asked, me, thread_id=me.id, config={"recursion_limit": calls + 1})
            print(seen["messages"][-1].content, flush=True)
        print("done", flush=True)
    print("ended", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
