"""Reading a request's body: strict JSON, one object, within its size; the same for every route."""

import json
from importlib import import_module
from typing import Any, NoReturn

from flask import Request
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from orchestrator.errors import Invalid, MalformedJson, Problem, TooLarge, UnsupportedMediaType, Violation
from orchestrator.fields import Written

SINGLE_BYTES = 1 << 20
BULK_BYTES = 4 << 20
DEEPEST = 64
"""Levels of nesting; more is nobody's data, and recursion has its limits."""


_BULK = ("/usage", "/commands", "/beats")


def _framing_errors() -> tuple[type[Exception], ...]:
    """What our web server raises where chunks are malformed; WSGI has no word for it."""
    try:
        errors = import_module("gunicorn.http.errors")
    except ImportError:  # another server is in use
        return ()
    return (errors.ParseException,)


_BROKEN: tuple[type[Exception], ...] = (ClientDisconnected, *_framing_errors())


class JsonRequest(Request):
    """A request whose JSON is an object, or absent."""

    _read = False
    _json: dict[str, Any] | None = None
    _wrong: Problem | None = None

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """The body's object; None where there is no body at all.

        Raises MalformedJson, UnsupportedMediaType, TooLarge, Invalid. The parameters are Flask's; none of them matters.
        """
        del force, silent, cache
        if not self._read:
            self._read = True
            try:
                self._json = self._parse()
            except Problem as problem:
                self._wrong = problem  # a second look would find what is left of a body that broke off
        if self._wrong is not None:
            raise self._wrong
        return self._json

    def _parse(self) -> dict[str, Any] | None:
        raw = self._bytes(BULK_BYTES if self.path.endswith(_BULK) else SINGLE_BYTES)
        if not raw:
            return None
        if self.mimetype != "application/json":
            raise UnsupportedMediaType
        if self.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise UnsupportedMediaType("The body is read as it is; send it uncompressed, without Content-Encoding.")
        value = parse(raw)
        if not isinstance(value, dict):
            raise Invalid(Violation("the body must be a JSON object"))
        return value

    def _bytes(self, most: int) -> bytes:
        self.max_content_length = most + 1  # werkzeug cuts chunks off at its limit; one byte more tells that they go on
        try:
            raw = self.get_data()
        except RequestEntityTooLarge:
            raise TooLarge(f"the body may have {most} bytes") from None
        except _BROKEN:
            raise MalformedJson("the body broke off, or its chunks are malformed") from None
        if len(raw) > most:
            raise TooLarge(f"the body may have {most} bytes")
        if self.content_length not in (None, len(raw)):
            raise MalformedJson(f"the body ended after {len(raw)} of {self.content_length} bytes")
        return raw


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
    number = Written.of(text)
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
