"""A request as a value, and how its answer is read: the same for the synchronous and the asynchronous client."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from uuid import uuid4

import httpx2

from orchestrator.sdk.errors import NoServer, from_problem

T = TypeVar("T")

PREFIX = "/api/v1"

RETRIES = 2
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
"""Seconds before the first retry, doubled from one to the next; up to a quarter is taken off by chance."""
LONGEST_OBEYED = 60.0
"""Seconds of a Retry-After that are waited for; a longer one is the caller's to decide about."""

RETRIED = frozenset({408, 429, 500, 502, 503, 504})
"""Never 409: a refusal is final, the same request would be refused again."""

PATIENCE = 30.0
"""Seconds an answer may take beyond what it was asked to wait."""
CONNECT_SECONDS = 5.0

Outcome = httpx2.Response | httpx2.TransportError
"""How an attempt ended."""


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and how its document becomes an answer."""

    method: str
    path: str
    read: Callable[[Any], T]
    body: Mapping[str, Any] | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    keyed: bool = True
    """Whether a mutation is sent with an Idempotency-Key: all retries together have one effect."""
    repeatable: bool = True
    """Whether it may be sent again where the first attempt may have had its effect."""
    wait: float = 0
    """Seconds the server is asked to hold the answer."""
    patience: float | None = None
    """Seconds it may take beyond that; PATIENCE where nothing is said."""

    def request(self, url: str, token: str) -> dict[str, Any]:
        """The arguments of httpx2's `request`: the same for each attempt."""
        headers = self.headers | {"Authorization": f"Bearer {token}"}
        if self.keyed and self.method != "GET":
            headers.setdefault("Idempotency-Key", uuid4().hex)
        if self.wait:
            headers["Prefer"] = f"wait={self.wait:g}"
        given = {name: value for name, value in self.params.items() if value is not None}
        return {
            "method": self.method,
            "url": url + PREFIX + self.path,
            "json": None if self.body is None else dict(self.body),
            "params": given,
            "headers": headers,
            "timeout": self._timeout(),
        }

    def _timeout(self) -> httpx2.Timeout:
        seconds = self.wait + (PATIENCE if self.patience is None else self.patience)
        return httpx2.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))


def pause_before_retry(call: Call[Any], attempt: int, retries: int, outcome: Outcome) -> float | None:
    """Seconds before the attempt after this one (0 is the first); None where there is none."""
    if attempt >= retries or not _is_retried(call, outcome):
        return None
    asked = retry_after(outcome)
    if asked is not None:
        return asked if asked <= LONGEST_OBEYED else None
    pause = min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE)
    return float(pause * random.uniform(0.75, 1))  # noqa: S311  # so that a fleet does not come back in step


def _is_retried(call: Call[Any], outcome: Outcome) -> bool:
    if not call.repeatable:  # only what has had no effect for certain
        refused = isinstance(outcome, httpx2.Response) and outcome.status_code == httpx2.codes.TOO_MANY_REQUESTS
        return refused or isinstance(outcome, httpx2.ConnectError | httpx2.ConnectTimeout)
    return not isinstance(outcome, httpx2.Response) or outcome.status_code in RETRIED


def retry_after(outcome: Outcome) -> float | None:
    """What the server has asked for, in seconds."""
    given = outcome.headers.get("Retry-After", "") if isinstance(outcome, httpx2.Response) else ""
    return float(given) if given.isascii() and given.isdigit() else None


def answer(call: Call[T], response: httpx2.Response) -> T:
    """What a response says; raises the ApiError it tells of, NoServer where it says nothing of ours."""
    document = _document(response)
    try:
        if response.is_success:
            return call.read(document)
        error = from_problem(document, retry_after(response))
    except (KeyError, TypeError, ValueError):
        found = f"what answers at {response.request.url} is no orchestrator (status {response.status_code})"
        raise NoServer(found) from None
    raise error


def _document(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None
