"""One simulated agent: it lives its role through the public API and keeps its book."""

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from threading import Event
from typing import Any, TypeVar

from orchestrator.cli.client import Client, Manner
from orchestrator.cli.demo.books import Book
from orchestrator.cli.demo.careers import Role
from orchestrator.cli.failures import Failure

T = TypeVar("T")

WAIT = 20.0
"""Seconds a command may take before the demo calls it lost."""

MOVES: dict[str, tuple[str, str, str]] = {
    "work": ("PATCH", "", "working"),
    "wait": ("PATCH", "", "waiting"),
    "rest": ("PATCH", "", "idle"),
    "pause": ("POST", "/pause", "paused"),
    "resume": ("POST", "/resume", "idle"),
    "terminate": ("DELETE", "", "terminated"),
}
"""How each move is asked for, and where it leads."""


class Stopped(Exception):
    """The demo is over before its end."""


@dataclass
class Stage:
    """What all actors share: the API, the project, its types, and whether the play goes on."""

    client: Client
    project: str = ""
    types: dict[str, str] = field(default_factory=dict)
    over: Event = field(default_factory=Event)
    _limit: str = ""
    _limited_until: float = 0.0

    def rest(self, seconds: float) -> None:
        """Let time pass; raises Stopped when the play is over."""
        if self.over.wait(seconds):
            raise Stopped

    def obey(self, call: Callable[[], T]) -> T:
        """What the call returns; as often as the server's limits ask us to come back later, we do."""
        while True:
            try:
                return call()
            except Failure as failure:
                if failure.retry_after is None or failure.status != 429:  # noqa: PLR2004  # rate limited
                    raise
                self._limit, _, _ = failure.sentence.partition(";")
                self._limited_until = time.monotonic() + failure.retry_after
                self.rest(failure.retry_after)

    @property
    def held_up(self) -> str:
        """The limit that somebody waits for, if anybody does."""
        return f"waiting: {self._limit}" if time.monotonic() < self._limited_until else ""


class Actor:
    """Lives one role."""

    def __init__(self, stage: Stage, role: Role, book: Book) -> None:
        self.stage, self.role, self.book = stage, role, book

    def live(self) -> None:
        """From birth to the end of the role."""
        self._spawn()
        for step in self.role.steps:
            self.stage.rest(self.role.pause())
            if step == "report":
                self._report()
            elif step.endswith("!"):
                self._be_refused(step.removesuffix("!"))
            else:
                self._move(step)

    def _spawn(self) -> None:
        body = {"name": self.role.name, "agent_type_id": self.stage.types[self.role.kind]}
        self.book.id = self._command("POST", f"{self.stage.project}/agents", body, "spawn")["id"]
        self.book.move("spawn", "idle")

    def _move(self, verb: str) -> None:
        method, door, status = MOVES[verb]
        task = self.role.task() if verb == "work" else None
        body: dict[str, Any] = {"status": status} if method == "PATCH" else {}
        body |= {"current_task": task} if verb in ("work", "rest") else {}
        self._command(method, self._path + door, body, f"demo: {verb}")
        self.book.move(verb, status)
        if verb in ("work", "rest", "terminate"):
            self.book.current_task = task

    def _be_refused(self, verb: str) -> None:
        method, door, _ = MOVES[verb]
        try:
            self.stage.obey(lambda: self._send(method, self._path + door, {}, Manner(WAIT, "demo: cannot be")))
        except Failure as failure:
            self.book.expect(f"the answer to {verb}", 409, failure.status)
            self.book.refusals += 1
        else:
            self.book.surprises.append(f"{self.book.name}: {verb} should have been refused")

    def _report(self) -> None:
        entries = self.role.entries(self.book.entries)
        self._send_usage(entries, new=len(entries))
        if self.role.twice():
            later = self.role.entries(self.book.entries)
            self._send_usage([*entries, *later], new=len(later))
            self.book.repeats += 1
        if self.role.twice():
            false = deepcopy(entries[:1])
            false[0]["cost"] = "1" + false[0]["cost"]
            self._send_usage(false, new=0, conflicts=[0])

    def _send_usage(self, entries: list[dict[str, Any]], new: int, conflicts: list[int] | None = None) -> None:
        """Report; the last `new` of the entries are news."""
        body = {"entries": entries}
        taken = self.stage.obey(lambda: self.stage.client.post(f"{self._path}/usage", body, wait=WAIT))
        wanted = {"accepted": new, "duplicates": len(entries) - new, "conflicts": conflicts or []}
        self.book.expect("the answer to usage", wanted, taken)
        for entry in entries[len(entries) - new :]:
            self.book.count(entry)

    def _command(self, method: str, path: str, body: dict[str, Any], reason: str) -> Any:
        """Send a command, now and then twice under one key, and wait until it is applied."""
        manner = Manner(WAIT, reason)
        answer = self.stage.obey(lambda: self._send(method, path, body, manner))
        if self.role.twice():
            self.book.repeats += 1
            again = self.stage.obey(lambda: self._send(method, path, body, manner))
            self.book.expect("a repeated answer", _gist(answer), _gist(again))
        return answer

    def _send(self, method: str, path: str, body: dict[str, Any], manner: Manner) -> Any:
        document, settled = self.stage.client.command(method, path, body, manner)
        if not settled:
            raise Failure(f"{self.book.name}: a command was not applied within {WAIT:g} s; see `orch doctor`.")
        return document

    @property
    def _path(self) -> str:
        return f"{self.stage.project}/agents/{self.book.id}"


def _gist(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: answer.get(name) for name in ("id", "status", "version", "message")}
