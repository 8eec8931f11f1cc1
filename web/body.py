"""Reading a request's body: strict JSON, one object, within its size; the same for every route."""

import json
from typing import Any, NoReturn

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

from orchestrator.errors import Invalid, MalformedJson, TooLarge, UnsupportedMediaType, Violation

SINGLE_BYTES = 1 << 20
BULK_BYTES = 4 << 20
DEEPEST = 64
"""Levels of nesting; more is nobody's data, and recursion has its limits."""


_BULK = ("/usage", "/commands")


class JsonRequest(Request):
    """A request whose JSON is an object, or absent."""

    _read = False
    _json: dict[str, Any] | None = None

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """The body's object; None where there is no body at all.

        Raises MalformedJson, UnsupportedMediaType, TooLarge, Invalid. The parameters are Flask's; none of them matters.
        """
        del force, silent, cache
        if not self._read:
            self._json = self._parse()
            self._read = True
        return self._json

    def _parse(self) -> dict[str, Any] | None:
        most = BULK_BYTES if self.path.endswith(_BULK) else SINGLE_BYTES
        self.max_content_length = most  # counted while reading, whatever Content-Length says
        try:
            raw = self.get_data()
        except RequestEntityTooLarge:
            raise TooLarge(f"the body may have {most} bytes") from None
        if not raw:
            return None
        if self.mimetype != "application/json":
            raise UnsupportedMediaType
        value = parse(raw)
        if not isinstance(value, dict):
            raise Invalid(Violation("the body must be a JSON object"))
        return value


def parse(raw: bytes) -> Any:
    """The JSON value in these bytes; raises MalformedJson, or Invalid for what no column could hold."""
    try:
        text = raw.decode()
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        raise MalformedJson(f"the body is nested deeper than {DEEPEST} levels") from None
    except ValueError as error:
        raise MalformedJson(f"the body is not JSON: {error}") from None
    _check_depth(value)
    if "\\u" in text or "\\U" in text:
        _check_characters(value)
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is too large for a number")
    return number


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    raise MalformedJson(f"the body is nested deeper than {DEEPEST} levels")


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _check_characters(value: Any) -> None:
    """Only an escape can bring NUL or half a surrogate pair past the decoder."""
    try:
        text = json.dumps(value, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError:
        raise Invalid(Violation("a string holds half of a surrogate pair")) from None
    if "\\u0000" in text.replace("\\\\", ""):  # a backslash that is meant as one begins no escape
        raise Invalid(Violation("a string holds a NUL character"))
