"""A fleet in memory about which every promise is kept, for histories that are known to be right."""

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tests.chaos.contract import STATUSES, UNBORN, Life, Order
from tests.chaos.history import Final

Answer = tuple[int, Any]
"""Status and body."""

STOPPED = ("paused", "terminated")

REJECTIONS = {"not_found": 404, "precondition_failed": 412}


@dataclass
class Subject:
    """One agent: its life, mailbox, books and lease."""

    id: str
    life: Life = UNBORN
    mail: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    reports: set[str] = field(default_factory=set)
    uncounted: list[Mapping[str, Any]] = field(default_factory=list)
    counters: tuple[int, int, Decimal] = (0, 0, Decimal(0))
    epoch: int = 0
    holder: str | None = None
    lost_at: int = 0
    acked: bool = False
    waiting: list[dict[str, Any]] = field(default_factory=list)
    """The stops whose end its process has not told."""

    def alive(self, now: int) -> bool:
        """Whether it has a lease."""
        return self.holder is not None and now < self.lost_at


class Fleet:
    """All agents and their commands, which have their effect when they are drained."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.now = 0
        self.subjects: dict[str, Subject] = {}
        self.commands: dict[str, dict[str, Any]] = {}
        self.orders: dict[str, Order] = {}
        self.kept: dict[str, Answer | dict[str, Any]] = {}
        self.dirty: dict[str, Subject] = {}

    def drain(self) -> None:
        """Apply some of what waits, of some agents."""
        for subject in [one for one in self.dirty.values() if self._rng.random() < 0.8]:
            for _ in range(self._rng.randint(0, len(subject.mail) + 1)):
                if subject.mail:
                    self._apply(subject, subject.mail.pop(0))
            self.count(subject)
            if not subject.mail:
                del self.dirty[subject.id]

    def answer(self, command: Mapping[str, Any], op: str) -> Answer | None:
        """What is said to whoever waited; None while the command is queued."""
        if command["state"] == "queued":
            return None
        if command["state"] != "applied":
            code = (command["error"] or {"code": "conflict"})["code"]
            return REJECTIONS.get(code, 409), {"command_id": command["id"]}
        if op == "terminate":
            return 200, {"success": True}
        return 201 if op == "spawn" else 200, self.show(self.subjects[command["agent_id"]])

    def show(self, subject: Subject) -> dict[str, Any]:
        """An agent as it stands."""
        life, (tasks, tokens, cost) = subject.life, subject.counters
        return {
            "id": subject.id,
            "status": life.status,
            "version": life.version,
            **{name: life.fields.get(name) for name in ("name", "current_task", "session_id", "short_term_memory")},
            "holds": [{"owner": owner} for owner in life.fields["holds"]],
            "terminated_at": "now" if life.status == "terminated" else None,
            "quiesced_by": None if subject.waiting or life.status not in STOPPED else "no_lease",
            "tasks_completed": tasks,
            "tokens_used": tokens,
            "cost_incurred": str(cost),
        }

    def final(self) -> Final:
        """What there is in the end, when all leases are over."""
        self.now += 10**11
        for subject in self.subjects.values():
            self.quiesce(subject, "expiry")
        born = [subject for subject in self.subjects.values() if subject.life.status]
        return Final(
            agents=[self.show(subject) for subject in born],
            commands=[dict(command) for command in self.commands.values()],
            events={subject.id: subject.events for subject in born},
            metrics=self.sums([*self.subjects.values()]),
            usage=[self._used()],
            feed=[[subject.id, event["version"]] for subject in born for event in subject.events],
            stream=[[subject.id, event["version"]] for subject in born for event in subject.events],
        )

    def accept(self, subject: Subject, order: Order, reason: str | None, actor: str = "user") -> dict[str, Any]:
        """One more command in a mailbox."""
        made: dict[str, Any] = {
            "id": f"command-{len(self.commands)}",
            "agent_id": subject.id,
            "verb": order.verb,
            "state": "queued",
            "reason": reason,
            "actor": {"type": actor, "id": None},
            "requested_at": self._time(),
            "closed_at": None,
            "version": None,
            "error": None,
            "quiesced_at": None,
            "quiesced_by": None,
        }
        self.commands[made["id"]], self.orders[made["id"]] = made, order
        subject.mail.append(made)
        self.dirty[subject.id] = subject
        if order.wanted.get("mode") == "immediate":
            subject.epoch, subject.holder = subject.epoch + 1, None
        return made

    def _apply(self, subject: Subject, command: dict[str, Any]) -> None:
        order = self.orders[command["id"]]
        demanded = self._demanded(subject, order, command["actor"]["type"])
        command["state"], command["closed_at"] = "applied", self._time()
        if isinstance(demanded, str):
            command["state"], command["error"] = "rejected", {"code": demanded}
        elif demanded is not None:
            subject.life = subject.life.after(demanded)
            event = demanded._asdict() | {"version": subject.life.version, "command_id": command["id"]}
            event |= {"actor": command["actor"], "reason": command["reason"]}
            if "holds" in demanded.changes:
                holds = [{"owner": owner} for owner in demanded.changes["holds"]]
                event["changes"] = demanded.changes | {"holds": holds}
            subject.events.append(event)
            self._stop(subject, command)
        command["version"] = subject.life.version

    def _time(self) -> str:
        """Now, by a database's clock that shows another time than the clients'."""
        return (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=self.now // 1000)).isoformat()

    def _stop(self, subject: Subject, command: dict[str, Any]) -> None:
        """Note who is waited for: a process that is there, and has not said yet that it stands still."""
        if subject.life.status not in STOPPED:
            subject.waiting, subject.acked = [], False
        elif command["verb"] in ("pause", "update", "terminate"):
            subject.waiting.append(command)
            if subject.acked or subject.holder is None:
                self.quiesce(subject, "ack" if subject.holder else "no_lease")

    def quiesce(self, subject: Subject, cause: str) -> None:
        """What was waited for has come."""
        for command in subject.waiting:
            command.update(quiesced_by=cause, quiesced_at=self._time())
        subject.waiting = []

    def _demanded(self, subject: Subject, order: Order, actor: str) -> Any:
        """A process cannot resume its agent; the word that one is gone lets the agent rest."""
        paused = subject.life.status == "paused"
        if actor == "agent" and (order.if_match != subject.epoch or (paused and "status" in order.wanted)):
            return "fenced"
        if order.verb == "settle":
            working = subject.life.status in ("working", "waiting")
            return subject.life.demands(Order("update", {"status": "idle"})) if working else None
        return subject.life.demands(order._replace(if_match=None) if actor == "agent" else order)

    def count(self, subject: Subject) -> None:
        """Add the usage that waits."""
        tasks, tokens, cost = subject.counters
        for entry in subject.uncounted:
            tasks += entry["tasks_completed"]
            tokens += entry["input_tokens"] + entry["output_tokens"]
            cost += Decimal(entry["cost"])
        subject.counters = (tasks, tokens, cost)
        subject.uncounted.clear()

    def _used(self) -> dict[str, Any]:
        """All of it is of one model."""
        tasks, tokens, cost = (sum(one.counters[column] for one in self.subjects.values()) for column in range(3))
        return {"group": None, "tasks_completed": tasks, "tokens_used": tokens, "cost_incurred": str(cost)}

    def sums(self, subjects: list[Subject]) -> dict[str, Any]:
        """Metrics of these."""
        found = Counter(subject.life.status for subject in subjects if subject.life.status)
        tasks, tokens, cost = (sum(one.counters[column] for one in subjects) for column in range(3))
        return {
            "total_instances": sum(found.values()),
            "active_instances": found["working"],
            "idle_instances": found["idle"],
            "total_tasks_completed": tasks,
            "total_tokens_used": tokens,
            "total_cost_incurred": str(cost),
            "by_status": {status: found[status] for status in STATUSES},
        }
