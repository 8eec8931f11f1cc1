"""The options for what an agent carries."""

import json
from collections.abc import Iterable
from typing import Any

import click

SHOWN = 80
"""Characters of what was given that a message repeats."""


DEEPEST = 200
"""Levels of nesting, well beyond what the server takes: what passes here can be sent and shown without recursing too
far."""


class Json(click.ParamType[dict[str, Any]]):
    """A JSON object on the command line."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        """The object; a usage error for anything else."""
        shown = repr(value if len(value) <= SHOWN else f"{value[:SHOWN]}…")
        try:
            found = json.loads(value)
            json.dumps(found, ensure_ascii=False, allow_nan=False).encode()  # Python reads more than can be sent
        except UnicodeEncodeError:
            self.fail(f"{shown} has half a character, which cannot be sent", param, ctx)
        except RecursionError:
            self.fail(f"{shown} is nested deeper than {DEEPEST} levels", param, ctx)
        except ValueError as error:
            self.fail(f"{shown} is not JSON: {error}", param, ctx)
        if _is_deep(found):
            self.fail(f"{shown} is nested deeper than {DEEPEST} levels", param, ctx)
        if not isinstance(found, dict):
            self.fail(f"{shown} is not a JSON object", param, ctx)
        return found


def _is_deep(value: Any) -> bool:
    row = [value]
    for _ in range(DEEPEST):
        row = [inner for item in row if isinstance(item, dict | list) for inner in _inside(item)]
    return bool(row)


def _inside(item: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return item.values() if isinstance(item, dict) else item


def carried(function: Any) -> Any:
    """The options for what an agent carries."""
    for option in (
        click.option("--session", "session_id", help="The session it works in."),
        click.option("--memory-ref", "long_term_memory_ref", help="Where its long-term memory is."),
        click.option("--memory", "short_term_memory", type=Json(), metavar="JSON", help="Its short-term memory."),
        click.option("--task", "current_task", help="What it works on."),
    ):
        function = option(function)
    return function
