"""The OpenAI Agents SDK: `await Runner.run(agent, "…", hooks=Hooks(me))`. Tried with openai-agents 0.24."""

from typing import Any

from agents import Agent, ModelResponse, RunContextWrapper, RunHooks, TResponseInputItem
from agents.models import get_default_model

from orchestrator.sdk.running import Run


class Hooks(RunHooks[Any]):
    """Checkpoints before each model call, usage after it.

    A pause holds the run before its next model call, and it goes on from there; terminated, the run raises Terminated.
    `model` is for the books where it is not the agent's own, as with a RunConfig that names one.
    """

    def __init__(self, me: Run, *, model: str | None = None) -> None:
        self._me, self._model = me, model

    async def on_llm_start(
        self,
        context: RunContextWrapper[Any],  # noqa: ARG002
        agent: Agent[Any],  # noqa: ARG002
        system_prompt: str | None,  # noqa: ARG002
        input_items: list[TResponseInputItem],  # noqa: ARG002
    ) -> None:
        """Stand still here, if told so."""
        await self._me.acheckpoint()

    async def on_llm_end(
        self,
        context: RunContextWrapper[Any],  # noqa: ARG002
        agent: Agent[Any],
        response: ModelResponse,
    ) -> None:
        """Report what this call used; input tokens include the cached ones, here and there."""
        used, cached = response.usage, response.usage.input_tokens_details
        self._me.usage(
            model=self._model or _name(agent.model),
            input_tokens=used.input_tokens,
            output_tokens=used.output_tokens,
            cache_read_tokens=cached.cached_tokens or 0,
            cache_write_tokens=getattr(cached, "cache_write_tokens", 0) or 0,  # told by newer versions only
        )


def _name(model: Any) -> str:
    """Of a model that is given by its name, as an object, or not at all."""
    if model is None:
        return get_default_model()
    return model if isinstance(model, str) else str(getattr(model, "model", type(model).__name__))
