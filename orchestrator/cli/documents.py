"""What a server says, and how another program's server is told from an orchestrator."""

from typing import Any, Never

import httpx2

from orchestrator.cli.failures import Exit, Failure

MARKS = frozenset(
    {"id", "agent_id", "batch_id", "count", "success", "user", "invariants", "accepted", "total_instances"}
)
"""Each thing of the API has one of these: another server's may be any JSON, and must not pass for success."""

LIST = frozenset({"data"})
"""The same for lists."""


class Document(dict[str, Any]):
    """An object of JSON from a server; whoever looks for what is not there learns that it is no orchestrator's."""

    url = ""

    def __missing__(self, name: str) -> Never:
        raise stranger(self.url)


Page = tuple[list[Document], str | None]
"""Items, and the cursor of the next page."""


def read(response: httpx2.Response, url: str) -> Document:
    """The object that an answer carries; empty where it carries none."""

    def from_here(pairs: dict[str, Any]) -> Document:
        made = Document(pairs)
        made.url = url
        return made

    try:
        found = response.json(object_hook=from_here)
    except (ValueError, RecursionError):  # no JSON, or nested deeper than anybody's data
        found = None
    return found if isinstance(found, Document) else from_here({})


def page(document: Document) -> Page:
    """A page of a list; raises Failure for what is none."""
    items, pagination = document["data"], document["pagination"]
    if not isinstance(pagination, Document) or not isinstance(items, list):
        raise stranger(document.url)
    if not all(isinstance(item, Document) for item in items):
        raise stranger(document.url)
    return items, pagination["next_cursor"]


def stranger(url: str) -> Failure:
    """What to say where something answers that is not ours."""
    return Failure(f"what answers at {url} is no orchestrator; name one with --url.", Exit.NO_SERVER)
