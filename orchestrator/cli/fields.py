"""The options for what an agent carries."""

import json
from typing import Any

import click


class Json(click.ParamType[dict[str, Any]]):
    """A JSON object on the command line."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        """The object; a usage error for anything else."""
        try:
            found = json.loads(value)
        except ValueError as error:
            self.fail(f"{value!r} is not JSON: {error}", param, ctx)
        if not isinstance(found, dict):
            self.fail(f"{value!r} is not a JSON object", param, ctx)
        return found


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
