"""Why an agent is not working, as a person reads it: sentences first, then what they rest on."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from orchestrator.cli import render

HOLDS = ("owner", "reason", "until", "placed_at")
STOP = ("mode", "deadline", "quiesced_at", "quiesced_by")
QUEUED = ("id", "verb", "reason", "age")
LEASE = ("holder", "epoch", "ttl", "live", "age", "lost_at", "ended_at", "ended_by")
REFUSAL = ("verb", "at", "code", "message", "command_id")


def tell(found: dict[str, Any]) -> None:
    """Print an explanation; what it has nothing to say about is left out."""
    for part in _parts(found):
        render.console().print(part)


def _parts(found: dict[str, Any]) -> Iterator[RenderableType]:
    yield Text.assemble(f"{found['agent_id']} is ", render.cell("status", found["status"]))
    yield from _sentences("why", found["why"])
    yield from _sentences("what would change it", found["what_would_change_it"])
    yield from _sentences("what comes by itself", [_change(change) for change in found["coming"]])
    yield from _table("holds", HOLDS, found["holds"])
    yield from _table("stop", STOP, [found["stop"]] if found["stop"] else [])
    yield from _table("queued", QUEUED, found["queued"])
    yield from _table("lease", LEASE, [found["lease"]] if found["lease"] else [])
    yield from _table("last refusal", REFUSAL, [_flat(found["last_refusal"])] if found["last_refusal"] else [])


def _sentences(title: str, sentences: Sequence[str]) -> Iterator[RenderableType]:
    if sentences:
        yield _title(title)
        yield Text("\n".join(f"  {render.visible(sentence)}" for sentence in sentences))


def _table(title: str, columns: render.Columns, items: Sequence[dict[str, Any]]) -> Iterator[RenderableType]:
    if items:
        yield _title(title)
        yield render.table(items, columns)


def _title(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _change(change: dict[str, Any]) -> str:
    return f"{change['what']}, at {render.cell('at', change['at'])}" if change["at"] else str(change["what"])


def _flat(refusal: dict[str, Any]) -> dict[str, Any]:
    return {**refusal, **refusal["error"]}
