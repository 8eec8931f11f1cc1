"""Words on the command line, and which of them can be sent at all."""

import math
import re
from typing import Any

import click

_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")
"""An Idempotency-Key as the server takes it, without the spaces at its ends: a header loses them."""


class Seconds(click.FloatRange):
    """A time to wait. `inf` waits for ever; `nan`, which no bound keeps out, is none."""

    name = "seconds"

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """So many; a usage error for what is no number of seconds."""
        found = float(super().convert(value, param, ctx))
        if math.isnan(found):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return found


class IdempotencyKey(click.ParamType[str]):
    """What a call can be repeated under."""

    name = "key"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The key; a usage error for what no header can carry."""
        if not _KEY.fullmatch(value):
            self.fail(
                f"{value!r} is no key: write 1 to 255 printable characters of ASCII, no space at an end", param, ctx
            )
        return str(value)


def refuse_bytes(ctx: click.Context) -> None:
    """A usage error for a word that is to be sent and is no text: Python keeps bytes that are not UTF-8 as halves of
    characters, which nothing can encode. Paths and the line of `orch run` may have them."""
    for param in ctx.command.params:
        given = ctx.params.get(param.name or "")
        words = given if isinstance(given, tuple) else (given,)
        if param.type is click.STRING and any(word != as_text(word) for word in words if isinstance(word, str)):
            raise click.BadParameter(f"{given!r} is not text in UTF-8", ctx, param)


def as_text(word: str) -> str:
    """The word with what is no character written out."""
    return word.encode(errors="backslashreplace").decode()
