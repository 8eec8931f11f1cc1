"""One agent of the demo: its operator, who speaks to the API, and its process, a real one; and the book of both."""

from copy import deepcopy
from typing import Any

from orchestrator.cli.client import QUIESCED, Manner
from orchestrator.cli.demo.books import Book
from orchestrator.cli.demo.careers import Role
from orchestrator.cli.demo.stage import Stage
from orchestrator.cli.demo.troupe import Player, Troupe
from orchestrator.cli.failures import Failure

WAIT = 30.0
"""Seconds a command may take, or its stop, before the demo calls it lost."""

DEADLINE_SECONDS = 3
"""After which a process that does not stop is fenced."""

OPERATORS: dict[str, tuple[str, str, str]] = {
    "pause": ("POST", "/pause", "paused"),
    "resume": ("POST", "/resume", "idle"),
    "terminate": ("DELETE", "", "terminated"),
}
"""How each move of the operator's is asked for, and where it leads."""


class Actor:
    """Lives one role."""

    player: Player
    """Its process, as soon as the agent is born."""

    def __init__(self, stage: Stage, troupe: Troupe, role: Role, book: Book) -> None:
        self.stage, self.troupe, self.role, self.book = stage, troupe, role, book

    def live(self) -> None:
        """From birth to the end of the role."""
        self._spawn()
        self.player = self.troupe.start(self.role.name, self.book.id)
        for step in self.role.steps:
            self.stage.rest(self.role.pause())
            if step.endswith("!"):
                self._be_refused(step.removesuffix("!"))
            else:
                getattr(self, f"_{step}")()

    def _spawn(self) -> None:
        body = {"name": self.role.name, "agent_type_id": self.stage.types[self.role.kind]}
        self.book.id = self._command("POST", f"{self.stage.project}/agents", body, Manner(WAIT, "spawn"))["id"]
        self.book.move("spawn", "idle")

    def _work(self) -> None:
        """Takes up a task, or goes on with it after a wait."""
        if self.book.status != "waiting":
            self.book.current_task = self.role.task()
            self.player.do("work", task=self.book.current_task)
        else:
            self.player.do("work")
        self._moved("work", "working")

    def _wait(self) -> None:
        self.player.do("wait")
        self._moved("wait", "waiting")

    def _rest(self) -> None:
        self.player.do("rest")
        self.book.finish()
        self._moved("rest", "idle")

    def _pause(self) -> None:
        paused = self._operate("pause", {})
        self.book.expect("what its process is stopped by", "ack", paused["quiesced_by"])

    def _resume(self) -> None:
        """The process goes on where it was."""
        was = self.book.before_pause
        self._operate("resume", {})
        if was in ("working", "waiting"):
            self.book.move("work", "working")
        if was == "waiting":
            self.book.move("wait", "waiting")
        self._await(self.book.status)

    def _terminate(self) -> None:
        self._operate("terminate", {})
        self.book.current_task = None
        self.book.expect("the exit code of its process", 0, self.player.ended())

    def _kill(self) -> None:
        """Its process dies without a word; another one takes its place."""
        self.player.kill()
        self._moved("rest", "idle")
        self.player = self.troupe.start(self.role.name, self.book.id)

    def _deaf(self) -> None:
        """From now on its process ignores what it is told."""
        self.player.do("deaf")

    def _stop(self) -> None:
        """Fenced at its deadline, it can no longer write: what it says is not heard."""
        stopped = self._operate("pause", {"deadline": DEADLINE_SECONDS})
        self.book.expect("what its process is stopped by", "expiry", stopped["quiesced_by"])

    def _operate(self, verb: str, body: dict[str, Any]) -> Any:
        method, door, status = OPERATORS[verb]
        answer = self._command(method, self._path + door, body, Manner(WAIT, f"demo: {verb}", stage=QUIESCED))
        self.book.move(verb, status)
        return answer

    def _be_refused(self, verb: str) -> None:
        method, door, _ = OPERATORS[verb]
        try:
            self.stage.obey(lambda: self._send(method, self._path + door, {}, Manner(WAIT, "demo: cannot be")))
        except Failure as failure:
            self.book.expect(f"the answer to {verb}", 409, failure.status)
            self.book.refusals += 1
        else:
            self.book.surprises.append(f"{self.book.name}: {verb} should have been refused")

    def _report(self) -> None:
        """By its process; by the operator where there is none any more."""
        entries = self.role.entries(self.book.entries)
        send = self._play_usage if self.player.lives else self._send_usage
        send(entries)
        for entry in entries:
            self.book.count(entry)
        if self.role.twice():
            send(entries)
            self.book.repeats += 1
        if self.role.twice():
            false = deepcopy(entries[:1])
            false[0]["cost"] = "1" + false[0]["cost"]
            send(false)

    def _play_usage(self, entries: list[dict[str, Any]]) -> None:
        self.player.do("report", entries=entries)

    def _send_usage(self, entries: list[dict[str, Any]]) -> None:
        body = {"entries": entries}
        self.stage.obey(lambda: self.stage.client.post(f"{self._path}/usage", body, wait=WAIT))

    def _moved(self, verb: str, status: str) -> None:
        self.book.move(verb, status)
        self._await(status)

    def _await(self, status: str | None) -> None:
        if status is not None and not self.stage.shows(self.book.id, status, WAIT):
            self.book.surprises.append(f"{self.book.name}: was not seen {status} within {WAIT:g} s")

    def _command(self, method: str, path: str, body: dict[str, Any], manner: Manner) -> Any:
        """Send a command, now and then twice under one key, and wait until its stage is reached."""
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
    """What a repeated answer says again: not the status, which is the present one, and its process may have gone on."""
    return {name: answer.get(name) for name in ("id", "message")}
