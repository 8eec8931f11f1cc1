"""LangGraph: `invoke(graph, {…}, me, thread_id="…")` in place of `graph.invoke`. Tried with langgraph 1.2."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import merge_configs
from langgraph.errors import GraphDrained
from langgraph.runtime import RunControl

from orchestrator.sdk.running import Run
from orchestrator.sdk.shapes import Told


class Usage(BaseCallbackHandler):
    """Reports what each call of a chat model used, as far as the model says so; once, even if it hears of it twice."""

    def __init__(self, me: Run) -> None:
        self._me = me

    def on_llm_end(self, response: LLMResult, *, run_id: Any, **_: Any) -> None:
        """Input tokens include the cached ones, here and there."""
        made = response.generations[0][0] if response.generations and response.generations[0] else None
        message = made.message if isinstance(made, ChatGeneration) else None
        if isinstance(message, AIMessage) and message.usage_metadata:
            used, about = message.usage_metadata, message.response_metadata
            cached = used.get("input_token_details", {})
            self._me.usage(
                report_id=str(run_id),
                provider=about.get("model_provider"),
                model=about.get("model_name"),
                input_tokens=used["input_tokens"],
                output_tokens=used["output_tokens"],
                cache_read_tokens=cached.get("cache_read") or 0,
                cache_write_tokens=cached.get("cache_creation") or 0,
            )


def invoke(
    graph: Any, given: Any, me: Run, *, thread_id: str, config: RunnableConfig | None = None, **more: Any
) -> Any:
    """As `graph.invoke`, with which it shares `more`; the graph needs a checkpointer, else ValueError.

    A pause ends the graph after the step it is at, and it goes on from its checkpoint; a terminate raises Terminated.
    `given` may be None: go on with the thread, say after this process was killed.
    """
    full = _config(graph, me, thread_id, config)
    while True:
        with _control(me) as control, suppress(GraphDrained):
            me.checkpoint()
            return graph.invoke(given, full, control=control, **more)
        given = None


async def ainvoke(
    graph: Any, given: Any, me: Run, *, thread_id: str, config: RunnableConfig | None = None, **more: Any
) -> Any:
    """The same with asyncio."""
    full = _config(graph, me, thread_id, config)
    while True:
        with _control(me) as control, suppress(GraphDrained):
            await me.acheckpoint()
            return await graph.ainvoke(given, full, control=control, **more)
        given = None


def _config(graph: Any, me: Run, thread_id: str, config: RunnableConfig | None) -> RunnableConfig:
    if not graph.checkpointer:
        raise ValueError("the graph needs a checkpointer: it goes on from there after a pause")
    return merge_configs(config, {"configurable": {"thread_id": thread_id}, "callbacks": [Usage(me)]})


@contextmanager
def _control(me: Run) -> Iterator[RunControl]:
    """Of one stretch of the graph: whoever listens first and only then looks misses no stop."""
    control = RunControl()

    def heed(told: Told) -> None:
        if told.directive != "continue":
            control.request_drain(told.directive)

    enough = me.on_directive(heed)
    try:
        yield control
    finally:
        enough()
