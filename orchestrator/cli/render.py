"""How answers look: tables for people, JSON for programs, ids for the next command of a script."""

import json
import sys
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.cli import outlet

Columns = Sequence[str]
"""The attributes shown as columns; each is its own heading, some in fewer words."""

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
_NEVER_BROKEN = frozenset({"id", "agent_id", "command_id", "status", "state", "slug", "prefix", "version"})


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
    """A table of these columns, with a row for each item."""
    made = heading(columns)
    for item in items:
        made.add_row(*(cell(name, item[name]) for name in columns))
    return made


def heading(columns: Columns) -> Table:
    """An empty table of these columns."""
    empty = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        title = _HEADINGS.get(name, name.replace("_", " "))
        empty.add_column(title, no_wrap=name in _NEVER_BROKEN, overflow="fold")
        empty.columns[-1].justify = "right" if name in _NUMBERS else "left"
    return empty


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
