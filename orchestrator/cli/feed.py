"""The feed as the command line reads it: what happens, and every error is a Failure."""

from collections.abc import Iterator
from typing import Any

import httpx2

from orchestrator.cli.client import Client
from orchestrator.cli.documents import stranger
from orchestrator.cli.failures import Exit, Failure, refusal
from orchestrator.sdk.errors import ApiError, OrchestratorError
from orchestrator.sdk.following import Following
from orchestrator.sdk.following import follow as events


def follow(client: Client, path: str, after: str | None, **params: Any) -> Iterator[dict[str, Any]]:
    """The events of a feed as they happen, for ever: from now on, or from a cursor on. A stream that is cut goes on
    where it was. Raises Failure for what the server refuses."""
    given = {name: value for name, value in params.items() if value is not None}
    begin = here(client, path, after, **given)  # which says what is wrong, or that nobody is there
    try:
        for event in events(client, Following(path, given, begin)):
            yield event.model_dump(mode="json")
    except ApiError as error:
        raise refusal(error.problem, error.retry_after) from None
    except (httpx2.DecodingError, RecursionError):
        raise stranger(client.url) from None
    except OrchestratorError as error:
        raise Failure(f"{error}; name another with --url.", Exit.NO_SERVER) from None


def here(client: Client, path: str, after: str | None = None, **params: Any) -> str:
    """The cursor of a feed as it stands now (or `after`). Raises Failure for what the server refuses."""
    try:
        with client.open(Following(path, params | ({"after": after} if after else {})).call()) as response:
            if response.is_success:
                return next((message.id for message in httpx2.EventSource(response)), after or "")
            response.read()
            client.document(response)
    except httpx2.ConnectError as error:
        raise client.nobody(error) from None
    except httpx2.DecodingError:
        raise stranger(client.url) from None
    except httpx2.TransportError as error:
        raise Failure(f"no events come from {client.url} ({error}).", Exit.NO_SERVER) from None
    raise Failure(f"no events come from {client.url}.", Exit.NO_SERVER)
