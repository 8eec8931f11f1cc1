"""The API over HTTP: a lost connection is retried without doing anything twice, and every error is a Failure."""

import time
from collections.abc import Iterator, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import UUID, uuid4

import httpx2

from orchestrator.cli import documents
from orchestrator.cli.documents import LIST, MARKS, Document, Page, stranger
from orchestrator.cli.failures import Exit, Failure, refusal
from orchestrator.sdk.address import is_loopback, needs_certificates
from orchestrator.sdk.calls import Call

PREFIX = "/api/v1"

PAUSES = (0.2, 1.0)
"""Seconds before the second and before the third try, where the server names none."""
LONGEST_PAUSE = 10.0
LONGEST_WAIT = 30.0
"""Seconds the server holds one answer, at most."""
PATIENCE = 10.0
"""Seconds an answer may take beyond what it was asked to wait."""

PAGE = 100

APPLIED, QUIESCED = "applied", "quiesced"
"""The stages of a stop: nothing new starts; the agent's process stands still."""


@dataclass(frozen=True)
class Manner:
    """How a mutation is sent: for how long it is waited for, why, under which Idempotency-Key, and until which stage
    of a stop: APPLIED or QUIESCED."""

    wait: float = 10.0
    reason: str | None = None
    key: str = field(default_factory=lambda: uuid4().hex)
    stage: str = APPLIED


class Client:
    """One server as one caller sees it. Threads may share it."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url, self.key = url, key
        self.has_changed = False
        """Whether the server has taken something that changes it."""
        self._http = httpx2.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=PATIENCE,
            trust_env=not is_loopback(url),  # a proxy for the world cannot reach our own machine
            verify=needs_certificates(url),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(
        self, path: str, *, patience: float = PATIENCE, prefer: str = "", marks: Set[str] = MARKS, **params: Any
    ) -> Any:
        """The document at a path below the prefix; parameters that are None are left out."""
        given = {name: value for name, value in params.items() if value is not None}
        headers = {"Prefer": prefer} if prefer else {}
        return self.document(self.request("GET", PREFIX + path, params=given, headers=headers, timeout=patience), marks)

    def page(self, path: str, **params: Any) -> Page:
        """A page of the list at a path."""
        return documents.page(self.get(path, marks=LIST, **params))

    def pages(
        self, path: str, most: int | None, cursor: str = "cursor", begin: str | None = None, **params: Any
    ) -> Iterator[dict[str, Any]]:
        """The items of a list by cursor, page after page, at most so many; `cursor` is what the parameter is called,
        and `begin` the first one."""
        at = begin
        while most is None or most > 0:
            limit = PAGE if most is None else min(most, PAGE)
            items, at = self.page(path, **params | {"limit": limit, cursor: at})
            yield from items
            if at is None:
                return
            most = None if most is None else most - len(items)

    def open(self, call: Call[None]) -> AbstractContextManager[httpx2.Response]:
        """One attempt, whose answer comes bit by bit; a TransportError where there is none."""
        return self._http.stream(**call.request(self.url, self.key or ""))

    def find(self, path: str, noun: str, attribute: str, wanted: str) -> dict[str, Any]:
        """The item of a list whose attribute (a slug, an e-mail address) is the wanted one."""
        for item in self.pages(path, None):
            if item[attribute] == wanted:
                return item
        raise Failure(f"there is no {noun} {wanted!r}, or it is not yours to see.", Exit.NOT_FOUND)

    def id_of(self, path: str, noun: str, attribute: str, wanted: str) -> str:
        """The id of what is named by its id or by an attribute."""
        return wanted if is_uuid(wanted) else str(self.find(path, noun, attribute, wanted)["id"])

    def post(
        self, path: str, body: dict[str, Any], wait: float = 0, key: str | None = None, patience: float | None = None
    ) -> Any:
        """A new object, made once however often the connection is lost."""
        return self.document(self._send("POST", path, body, wait, {"Idempotency-Key": key or uuid4().hex}, patience))

    def post_secret(self, path: str, body: dict[str, Any]) -> Any:
        """A new object that is shown only once: sent again only where it cannot have arrived."""
        return self.document(self.request("POST", PREFIX + path, json=body, repeatable=False))

    def delete(self, path: str) -> None:
        """End something that needs no queue."""
        response = self.request("DELETE", PREFIX + path, headers={"Idempotency-Key": uuid4().hex})
        if response.status_code != httpx2.codes.NO_CONTENT:
            self.document(response)
        self.has_changed = True

    def command(self, method: str, path: str, body: dict[str, Any], manner: Manner, **headers: str) -> tuple[Any, bool]:
        """Send a mutation and wait for it; its answer, and whether it is the agent (else the command, still queued, or
        applied and not quiesced yet).

        Raises Failure for whatever the server or the lifecycle refuses.
        """
        body = body if manner.reason is None else body | {"reason": manner.reason}
        headers = headers | {"Idempotency-Key": manner.key}
        path = path if manner.stage == APPLIED else f"{path}?until={manner.stage}"
        deadline = time.monotonic() + manner.wait
        response = self._send(method, path, body, min(manner.wait, LONGEST_WAIT), headers)
        if response.status_code == httpx2.codes.ACCEPTED and manner.wait:
            command, reached = self.await_stage(self.document(response), deadline, manner.stage)
            if not reached:
                return command, False
            # The same request again: it is answered from what the first one made, as that stands now.
            response = self._send(method, path, body, 1, headers)
        return self.document(response), response.status_code != httpx2.codes.ACCEPTED

    def await_stage(self, command: Any, deadline: float, stage: str = APPLIED) -> tuple[Any, bool]:
        """The command as soon as it has reached the stage, or as it is at the deadline (of the monotonic clock); and
        whether it has."""
        path = f"/projects/{command['project_id']}/commands/{command['id']}"
        reached = self._has_reached(command, stage)
        while not reached and (left := deadline - time.monotonic()) > 0:
            asked = time.monotonic()
            wait = min(left, LONGEST_WAIT)
            command = self.get(path, prefer=f"wait={wait:g}", patience=wait + PATIENCE, until=stage)
            reached = self._has_reached(command, stage)
            if not reached and time.monotonic() - asked < 1:
                time.sleep(min(left, 1))  # too many wait already: the answer was not held
        if reached and stage != APPLIED and command["quiesced_at"] is None:  # by what came after it was asked for
            command = self.get(path)
        return command, reached

    def _has_reached(self, command: Any, stage: str) -> bool:
        """Whether it is closed and, where that is asked for, its stop is over: the process stands still, or goes on
        because the stop was lifted first, which only the agent shows."""
        if command["state"] != "applied" or stage == APPLIED or command["quiesced_at"] is not None:
            return bool(command["state"] != "queued")
        agent = self.get(f"/projects/{command['project_id']}/agents/{command['agent_id']}")
        return agent["quiesced_at"] is not None or agent["status"] not in ("paused", "terminated")

    def request(self, method: str, path: str, *, repeatable: bool = True, **how: Any) -> httpx2.Response:
        """One request, tried twice more where the connection is lost or the server is not able to serve (503)."""
        try:
            for pause in PAUSES:
                found = self._attempt(method, path, repeatable, how)
                if found is not None and (found.status_code != httpx2.codes.SERVICE_UNAVAILABLE or not repeatable):
                    return found
                time.sleep(min(_retry_after(found) or pause, LONGEST_PAUSE))
            return self._http.request(method, path, **how)
        except httpx2.TimeoutException:
            raise Failure(f"{self.url} does not answer in time; `orch doctor` says more.", Exit.NO_SERVER) from None
        except httpx2.TransportError as error:
            raise self.nobody(error) from None
        except httpx2.DecodingError:
            raise stranger(self.url) from None

    def nobody(self, error: httpx2.TransportError) -> Failure:
        """What to say where there is no server."""
        sentence = f"no server answers at {self.url} ({error}); start one with `orch up`, or name another with --url."
        return Failure(sentence, Exit.NO_SERVER)

    def _attempt(self, method: str, path: str, repeatable: bool, how: dict[str, Any]) -> httpx2.Response | None:
        """The answer; None where the connection was lost and trying again does no harm."""
        try:
            return self._http.request(method, path, **how)
        except httpx2.TimeoutException:
            raise
        except httpx2.TransportError as error:
            if not repeatable and not isinstance(error, httpx2.ConnectError):
                raise
            return None

    def _send(
        self,
        method: str,
        path: str,
        body: dict[str, Any],
        wait: float,
        headers: dict[str, str],
        patience: float | None = None,
    ) -> httpx2.Response:
        headers = headers | {"Prefer": f"wait={wait:g}"}
        seconds = wait + (PATIENCE if patience is None else patience)
        return self.request(method, PREFIX + path, json=body, headers=headers, timeout=seconds)

    def document(self, response: httpx2.Response, marks: Set[str] = MARKS) -> Document:
        """What an answer says, which has one of these marks; raises the Failure it tells of."""
        found = documents.read(response, self.url)
        if response.is_error and "request_id" in found and found.get("status") == response.status_code:
            raise refusal(found, _retry_after(response))
        if response.is_success and marks & found.keys():
            self.has_changed |= response.request.method != "GET"
            return found
        raise stranger(self.url)


def is_uuid(text: str) -> bool:
    """Whether this is an id, and not a slug."""
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


def named(noun: str, text: str) -> str:
    """The id the user typed; raises Failure for what can be no id, as the server would."""
    if not is_uuid(text):
        raise Failure(f"there is no {noun} {text!r}; name it by its id.", Exit.NOT_FOUND)
    return text


def _retry_after(response: httpx2.Response | None) -> float | None:
    given = response.headers.get("Retry-After", "") if response is not None else ""
    return float(given) if given.isascii() and given.isdigit() else None
