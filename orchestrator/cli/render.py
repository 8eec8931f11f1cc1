"""How answers look: tables for people, JSON for programs, ids for the next command of a script."""

import json
import sys
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.cli import layout, outlet

Columns = Sequence[str]
"""The attributes shown as columns, those first that are needed most: what does not fit is left out from the end. Each
is its own heading, some in fewer words."""

WIDE = 500
"""Columns of a table that goes to a file: nothing is cut off there."""

COLOURS = {
    "idle": "cyan",
    "working": "green",
    "waiting": "yellow",
    "paused": "magenta",
    "terminated": "dim",
    "queued": "yellow",
    "applied": "green",
    "rejected": "red",
    "dead": "red",
    "cancelled": "dim",
    "ok": "green",
    "warn": "yellow",
    "fail": "red",
}

_HEADINGS = {"tokens_used": "tokens", "cost_incurred": "cost", "tasks_completed": "tasks", "agent_type_slug": "type"}
_NUMBERS = frozenset(
    {"tokens_used", "cost_incurred", "tasks_completed", "version", "violations", "age", "epoch", "ttl"}
)
_COLOURED = frozenset({"status", "state", "before", "after"})
_TIMES = frozenset({"at", "until", "deadline"})
_TEXTS = frozenset(
    {"name", "slug", "agent", "project", "current_task", "reason", "message", "sentence", "agent_type_slug"}
)
_TEXTS |= {"changes", "error", "holder", "owner", "quiesced_by", "ended_by"}
"""What may have several lines, where there is no room; a number or an id that is broken is none."""

READABLE = 16
"""Columns of a screen below which no text is broken."""


def as_json(output: str | None) -> bool:
    """Whether to print JSON: as asked, else where standard output is no terminal."""
    return output == "json" or (output is None and not outlet.is_terminal(sys.stdout))


def one(item: Any, output: str | None) -> None:
    """Print one thing: JSON, its id (or that of the agent it is about), or its attributes one a line."""
    if output == "id":
        print(item.get("id", item.get("agent_id", "")))
        return
    if as_json(output):
        print(dump(item))
        return
    lines = Table(box=None, show_header=False, pad_edge=False)
    lines.add_column(style="bold", no_wrap=True)
    lines.add_column(overflow="fold")
    for name, value in item.items():
        lines.add_row(name.replace("_", " "), cell(name, value))
    console().print(lines)


def many(items: Sequence[dict[str, Any]], columns: Columns, output: str | None) -> None:
    """Print many things of a kind: a JSON array, their ids one a line, or a table of these columns."""
    if output == "id":
        print(*(item.get("id", item.get("agent_id", "")) for item in items), sep="\n")
        return
    if as_json(output):
        print(dump(items))
        return
    console().print(table(items, columns))


def table(items: Sequence[dict[str, Any]], columns: Columns) -> Table:
    """A table of these columns, as far as they fit, with a row for each item; its caption names the others."""
    cells = [[cell(name, item[name]) for name in columns] for item in items]
    wishes = [_wish(name, [row[place] for row in cells]) for place, name in enumerate(columns)]
    widths = layout.fit(wishes, console().width - 1)  # rich leaves room for a gap behind the last one, too
    made = heading([columns[place] for place in widths])
    for column, width in zip(made.columns, widths.values(), strict=True):
        column.width = width
    for row in cells:
        made.add_row(*(row[place] for place in widths))
    absent = [title(name) for place, name in enumerate(columns) if place not in widths]
    made.caption = f"left out: {', '.join(absent)}; a wider terminal or -o json has all" if absent else None
    return made


def heading(columns: Columns) -> Table:
    """An empty table of these columns."""
    empty = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), caption_justify="left")
    for name in columns:
        empty.add_column(title(name), overflow="fold", justify="right" if name in _NUMBERS else "left")
    return empty


def title(name: str) -> str:
    """What an attribute's column is called."""
    return _HEADINGS.get(name, name.replace("_", " "))


def _wish(name: str, cells: Sequence[Text]) -> layout.Wish:
    best = max(cell_len(line) for text in (title(name), *(c.plain for c in cells)) for line in text.split("\n"))
    least = max(READABLE, cell_len(title(name))) if name in _TEXTS else best
    return layout.Wish(min(least, best), best)


def cell(name: str, value: Any) -> Text:
    """A value as a person reads it; nothing in it can steer the terminal."""
    if value is None:
        return Text("–", style="dim")
    if isinstance(value, bool):
        value = "yes" if value else "no"
    text = visible(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    if name == "age":
        text = f"{value:.1f} s"
    if name in _TIMES or name.endswith("_at"):
        text = f"{text[:19].replace('T', ' ')}Z"
    return Text(text, style=COLOURS.get(text, "") if name in _COLOURED else "")


def visible(text: str) -> str:
    """The text with every control and format character written out."""
    return "".join(c if unicodedata.category(c) not in ("Cc", "Cf") or c == "\n" else repr(c)[1:-1] for c in text)


def dump(item: Any, indent: int | None = 2) -> str:
    """JSON as programs and people can read it; it stays JSON where standard output has no code for a character."""
    return json.dumps(item, indent=indent, ensure_ascii=not outlet.is_unicode())


@cache
def console() -> Console:
    """Standard output: as wide as the terminal, or as wide as it takes."""
    return Console(highlight=False, soft_wrap=False, width=None if outlet.is_terminal(sys.stdout) else WIDE)
