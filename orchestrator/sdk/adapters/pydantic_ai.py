"""pydantic-ai: `Agent("…", capabilities=[hooks(me)])`. Tried with pydantic-ai-slim 2.68."""

from typing import Any

from pydantic_ai.capabilities import Hooks
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import ModelRequestContext
from pydantic_ai.tools import RunContext

from orchestrator.sdk.running import Run


def hooks(me: Run) -> Hooks[Any]:
    """A capability that checkpoints before each model request and reports usage after it.

    A pause holds the run before its next request, and it goes on from there; terminated, the run raises Terminated.
    """
    made: Hooks[Any] = Hooks()

    @made.on.before_model_request
    async def stand(ctx: RunContext[Any], request_context: ModelRequestContext) -> ModelRequestContext:  # noqa: ARG001
        await me.acheckpoint()
        return request_context

    @made.on.after_model_request
    async def count(
        ctx: RunContext[Any],  # noqa: ARG001
        *,
        request_context: ModelRequestContext,  # noqa: ARG001
        response: ModelResponse,
    ) -> ModelResponse:
        used = response.usage  # input tokens include the cached ones, here and there
        me.usage(
            provider=response.provider_name,
            model=response.model_name,
            input_tokens=used.input_tokens,
            output_tokens=used.output_tokens,
            cache_read_tokens=used.cache_read_tokens,
            cache_write_tokens=used.cache_write_tokens,
            cost=used.cost,
        )
        return response

    return made
