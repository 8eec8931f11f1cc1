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


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and how its document becomes an answer."""

    method: str
    path: str
    read: Callable[[Any], T]
    body: Mapping[str, Any] | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    keyed: bool = True
    """Whether a mutation is sent with an Idempotency-Key: all retries together have one effect."""
    wait: float = 0
    """Seconds the server is asked to hold the answer."""
    patience: float = PATIENCE
    """Seconds the answer may take beyond that."""

    def request(self, token: str | None = None) -> dict[str, Any]:
        """The arguments of httpx2's `request`: the same for each attempt."""
        headers = dict(self.headers)
        if self.keyed and self.method != "GET":
            headers.setdefault("Idempotency-Key", uuid4().hex)
        if self.wait:
            headers["Prefer"] = f"wait={self.wait:g}"
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        given = {name: value for name, value in self.params.items() if value is not None}
        return {
            "method": self.method,
            "url": PREFIX + self.path,
            "json": None if self.body is None else dict(self.body),
            "params": given,
            "headers": headers,
            "timeout": self.wait + self.patience,
        }


def pause_before_retry(attempt: int, retries: int, response: httpx2.Response | None) -> float | None:
    """Seconds before the attempt after this one (0 is the first); None where there is none."""
    if attempt >= retries or (response is not None and response.status_code not in RETRIED):
        return None
    asked = retry_after(response)
    if asked is not None:
        return asked if asked <= LONGEST_OBEYED else None
    pause = min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE)
    return float(pause * random.uniform(0.75, 1))  # noqa: S311  # so that a fleet does not come back in step


def retry_after(response: httpx2.Response | None) -> float | None:
    """What the server has asked for, in seconds."""
    given = response.headers.get("Retry-After", "") if response is not None else ""
    return float(given) if given.isdigit() else None


def answer(call: Call[T], response: httpx2.Response) -> T:
    """What a response says; raises the ApiError it tells of."""
    if response.status_code == httpx2.codes.NO_CONTENT:
        return call.read(None)
    try:
        document = response.json()
    except ValueError:
        document = None
    if isinstance(document, dict):
        if response.is_success:
            return call.read(document)
        if "status" in document and "errors" in document:
            raise from_problem(document, retry_after(response))
    raise NoServer(f"what answers at {response.request.url} is no orchestrator (status {response.status_code})")
