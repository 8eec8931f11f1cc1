"""A client of the campaign: asks for everything the API has, seeded, and writes down what it sent and was answered."""

import json
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any

from tests.chaos.history import Call, Recorder

PATIENCE_SECONDS = 8.0
"""For an answer; after that nobody knows what became of the request."""

TRIES = 5
"""Of one request with one key, in a row."""


@dataclass(frozen=True)
class Request:
    """What can be sent again: what it is for, its address, and everything that makes it the same request."""

    op: str
    method: str
    path: str
    agent: str | None = None
    key: str | None = None
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def sent(self) -> dict[str, Any]:
        """What the history keeps of it."""
        found: dict[str, Any] = {} if self.body is None else {"body": self.body}
        if "If-Match" in self.headers:
            found["if_match"] = int(self.headers["If-Match"].strip('"'))
        if "Prefer" in self.headers:
            found["wait"] = int(self.headers["Prefer"].removeprefix("wait="))
        if self.op == "cancel":
            found["command"] = self.path.split("/")[-2]
        return found


class Caller:
    """Sends requests over a connection of its own, with one API key, and records them."""

    def __init__(self, address: str, key: str, recorder: Recorder, number: int) -> None:
        self._address, self._key, self._recorder, self._number = address, key, recorder, number
        self._connection = HTTPConnection(address, timeout=PATIENCE_SECONDS)

    def send(self, request: Request, token: str | None = None) -> Call:
        """One try."""
        call = Call(self._number, request.op, time.monotonic_ns(), request.agent, request.key, request.sent())
        number = self._recorder.begin(call)
        answered = self.ask(request, token)
        if answered is None:
            return call
        status, answer = answered
        done = time.monotonic_ns()
        self._recorder.end(number, done, status, _kept(answer))
        return Call(call.client, call.op, call.t0, call.agent, call.key, call.sent, done, status, answer)

    def ask(self, request: Request, token: str | None = None) -> tuple[int, Any] | None:
        """Status and answer, unrecorded; None where there is none."""
        headers = {"Authorization": f"Bearer {token or self._key}", "Content-Type": "application/json"}
        headers |= {"Idempotency-Key": request.key} if request.key else {}
        body = None if request.body is None else json.dumps(request.body)
        try:
            self._connection.request(request.method, request.path, body, headers | dict(request.headers))
            answer = self._connection.getresponse()
            content = answer.read()
            return answer.status, json.loads(content) if content else None
        except (OSError, HTTPException, ValueError):  # refused, reset, too late, or cut off in the middle
            self._connection.close()
            return None

    def walk(self, request: Request) -> None:
        """A whole list by cursor, recorded as one call that is answered with the ids, or with the version of each that
        was found by a filter; unknown where a page failed."""
        number = self._recorder.begin(Call(self._number, request.op, time.monotonic_ns()))
        try:
            rows = [*self.pages(request.path)]
        except ConnectionError:
            return
        found = {"seen": {row["id"]: row["version"] for row in rows}}  # of all there are it would be too much to keep
        answer = found if request.op == "found" else {"ids": [row["id"] for row in rows]}
        self._recorder.end(number, time.monotonic_ns(), 200, answer)

    def pages(self, path: str) -> Iterator[dict[str, Any]]:
        """The rows of a list, page after page by its cursor; raises ConnectionError where one is not answered well."""
        cursor = ""
        while cursor is not None:
            answered = self.ask(Request("pages", "GET", f"{path}{cursor and '&cursor='}{cursor}"))
            if answered is None or answered[0] != 200:
                raise ConnectionError(f"{path}: {answered}")
            yield from answered[1]["data"]
            cursor = answered[1]["pagination"]["next_cursor"]

    def insist(self, request: Request, rng: random.Random, token: str | None = None) -> Call:
        """Try, with the same key, until it is known what became of it, or five times: the last try."""
        for attempt in range(TRIES):
            call = self.send(request, token)
            if call.outcome != "unknown":
                break
            time.sleep(rng.uniform(0.05, 0.2) * 2**attempt)
        return call


def _kept(answer: Any) -> Any:
    """An answer without what no history should show."""
    return {k: v for k, v in answer.items() if k != "token"} if isinstance(answer, dict) else answer
