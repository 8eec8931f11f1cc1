"""Clients, time and faults around the fleet in memory: seeded histories, as long as one likes."""

import heapq
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tests.chaos.doors import Server
from tests.chaos.evidence import ORDERS
from tests.chaos.history import Call, Fault, History
from tests.chaos.simulated import Answer

MS = 10**6
SECOND = 1000 * MS

WAIT = 3 * SECOND

HOT = 6
"""So many agents are not ended, unless there are no others."""


@dataclass(frozen=True)
class Setting:
    """How large a history is. In a fault, half of all requests and answers are lost, and nobody drains."""

    seed: int
    seconds: float = 20.0
    agents: int = 12
    faults: int = 3
    idle_after: float = 0.0
    """For how many seconds after each fault still nobody drains."""


class Simulation:
    """Everything that happens is a moment in a heap; clients share the agents and know of them what they were told."""

    def __init__(self, setting: Setting) -> None:
        self._rng = random.Random(setting.seed)  # noqa: S311  # to be repeatable
        self._setting, self._server = setting, Server(self._rng)
        self._moments: list[tuple[int, int, Callable[[], None]]] = []
        self._now, self._count = 0, 0
        self._ends = int(setting.seconds * SECOND)
        self._calls: list[Call] = []
        self._unknown: list[Call] = []
        self._agents: list[str] = []
        self._versions: dict[str, int] = {}
        self._leases: list[tuple[str, int]] = []
        self._commands: list[str] = []
        self._apart = self._ends // (setting.faults + 1)
        self._faults = self._planned()

    def run(self) -> History:
        """The whole history."""
        for client in range(8):
            self._at(self._rng.randrange(10 * MS), partial(self._next, client))
        self._at(0, self._drain)
        self._until_nothing_happens()
        for call in [*self._unknown]:
            self._send(call, retries=0, then=lambda: None)
        self._until_nothing_happens()
        while self._server.dirty:
            self._server.drain()
        self._calls.sort(key=lambda call: call.t0)
        return History(self._calls, self._faults, self._server.final())

    def _planned(self) -> list[Fault]:
        apart = self._ends // (self._setting.faults + 1)
        begins = [apart * number for number in range(1, self._setting.faults + 1)]
        return [
            Fault(f"fault {n % 2}", "", t0, t0 + self._rng.randint(1, 10) * 100 * MS) for n, t0 in enumerate(begins)
        ]

    def _until_nothing_happens(self) -> None:
        while self._moments:
            self._now, _, happen = heapq.heappop(self._moments)
            happen()

    def _at(self, later: int, happen: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._moments, (self._now + later, self._count, happen))

    def _wrong(self, idle: float = 0.0) -> bool:
        """Whether the fault that began last is not over, or not for so many seconds."""
        begun = self._now // self._apart
        fault = self._faults[min(begun, len(self._faults)) - 1] if begun else None
        return fault is not None and self._now <= fault.healed + idle * SECOND

    def _drain(self) -> None:
        self._server.now = self._now
        if not self._wrong(self._setting.idle_after):
            self._server.drain()
        if self._now < self._ends:
            self._at(self._rng.randint(5, 30) * MS, self._drain)

    def _next(self, client: int) -> None:
        if self._now < self._ends:
            self._send(self._wish(client), retries=3, then=partial(self._rest, client))

    def _rest(self, client: int) -> None:
        self._at(self._rng.randrange(20 * MS), partial(self._next, client))

    def _send(self, wish: Call, retries: int, then: Callable[[], None]) -> None:
        call = replace(wish, t0=self._now)
        arrived = not (self._wrong() and self._rng.random() < 0.5)
        self._at(self._rng.randint(1, 8) * MS, lambda: self._arrive(call, arrived, retries, then))

    def _arrive(self, call: Call, arrived: bool, retries: int, then: Callable[[], None]) -> None:
        if not arrived:
            self._unanswered(call, retries, then)
            return
        taken = self._server.take(call, self._now)
        if isinstance(taken, tuple):
            self._reply(call, taken, retries, then)
        else:
            self._wait(call, taken, retries, then)

    def _wait(self, call: Call, command: dict[str, Any], retries: int, then: Callable[[], None]) -> None:
        waits = "wait" in call.sent
        answer = self._server.answer(command, call.op) if waits else None
        if answer is None and waits and self._now < call.t0 + WAIT:
            self._at(10 * MS, lambda: self._wait(call, command, retries, then))
        else:
            self._reply(call, answer or (202, dict(command)), retries, then)

    def _reply(self, call: Call, answer: Answer, retries: int, then: Callable[[], None]) -> None:
        if self._wrong() and self._rng.random() < 0.5:
            self._unanswered(call, retries, then)
        else:
            self._at(self._rng.randint(1, 8) * MS, lambda: self._answered(call, answer, then))

    def _answered(self, call: Call, answer: Answer, then: Callable[[], None]) -> None:
        done = replace(call, t1=self._now, status=answer[0], answer=answer[1])
        self._calls.append(done)
        self._learn(done)
        then()

    def _unanswered(self, call: Call, retries: int, then: Callable[[], None]) -> None:
        self._calls.append(call)
        if call.key is None:
            then()
        elif retries:
            self._at(200 * MS, lambda: self._send(call, retries - 1, then))
        else:
            self._unknown.append(call)
            then()

    def _learn(self, call: Call) -> None:
        if call.op == "spawn" and call.outcome == "ok":
            self._agents.append(call.answer["id" if call.status == 201 else "agent_id"])
        elif call.op in ORDERS and call.status == 202:
            self._commands = [*self._commands[-20:], call.answer["id"]]
        elif call.op == "get" and call.status == 200:
            self._versions[call.answer["id"]] = call.answer["version"]
        elif call.op == "lease" and call.status == 201:
            self._leases = [*self._leases[-5:], (call.agent or "", call.answer["epoch"])]

    def _wish(self, client: int) -> Call:
        if not self._agents:
            return self._call(client, "spawn")
        ops = WEIGHTS | ({} if len(self._server.subjects) < self._setting.agents else {"spawn": 0})
        return self._call(client, self._rng.choices([*ops], [*ops.values()])[0])

    def _call(self, client: int, op: str) -> Call:
        self._count += 1
        key, agent = f"k{self._count}", self._rng.choice(self._agents) if self._agents and op != "spawn" else None
        sent: dict[str, Any] = {}
        if op in ORDERS or op == "usage":
            sent = {"body": self._body(op, key)} | ({"wait": 3} if self._rng.random() < 0.4 else {})
        if op == "update" and agent in self._versions and self._rng.random() < 0.4:
            sent["if_match"] = self._versions[agent]
        if op == "terminate" and agent in self._agents[:HOT]:
            agent = self._agents[-1]
        if op == "cancel":
            sent["command"] = self._rng.choice(self._commands or [*self._server.commands])
        if op in ("beat", "beats", "release"):
            agent, sent["body"] = self._of_process(op, agent)
        if op == "lease":
            sent["body"] = {"holder": key, "ttl": 5}
        if op in ("bulk", "by_filter"):
            sent["body"] = self._many(op, key)
        keyed = op in ORDERS or op in ("usage", "cancel", "bulk", "by_filter")
        alone = op in ("cancel", "bulk", "by_filter", "beats", "list", "metrics")
        return Call(client, op, 0, None if alone else agent, key if keyed else None, sent)

    def _body(self, op: str, key: str) -> Mapping[str, Any]:
        rng = self._rng
        bodies: dict[str, list[dict[str, Any]]] = {
            "spawn": [{"agent_type_id": "type", "name": f"scout {key}"}],
            "pause": [{}, {"owner": "budget"}, {"mode": "immediate"}],
            "resume": [{}, {"owner": "budget"}],
            "update": [
                {"status": rng.choice(["working", "waiting", "idle"])},
                {"current_task": f"task {key}", "session_id": rng.choice([key, None])},
                {"status": "working", "short_term_memory": {"seen": self._count}},
                {"status": rng.choice(["paused", "idle"])},
            ],
            "terminate": [{}],
            "usage": [{"entries": [self._entry(f"{key}.{number}") for number in range(rng.randint(1, 3))]}],
        }
        return rng.choice(bodies[op]) | ({"reason": key} if op != "usage" else {})

    def _of_process(self, op: str, agent: str | None) -> tuple[str | None, dict[str, Any]]:
        """Whom it concerns, and its body."""
        if op == "beats":
            held = dict(self._leases) or {agent or "": 1}
            return None, {"beats": [{"agent_id": one, "epoch": n} | self._says() for one, n in held.items()]}
        agent, epoch = self._rng.choice(self._leases) if self._leases else (agent, 1)
        return agent, {"epoch": epoch} | (self._says() if op == "beat" else {})

    def _says(self) -> dict[str, Any]:
        """What a beat may say; that its process stands still only means something where it was told to."""
        self._count += 1
        used = {"entries": [self._entry(f"said {self._count}")]}
        return self._rng.choice([{}, {"status": "working"}, {"status": "idle"}, used, {"ack": True}])

    def _entry(self, report: str) -> dict[str, Any]:
        cost, tokens = f"0.{self._rng.randrange(10**9):09}", self._rng.randrange(1000)
        return {"report_id": report, "input_tokens": tokens, "output_tokens": 7, "cost": cost, "tasks_completed": 1}

    def _many(self, op: str, key: str) -> dict[str, Any]:
        verb = self._rng.choice(["pause", "resume"])
        if op == "by_filter":
            return {"verb": verb, "filter": {"status": self._rng.choice(["idle", "paused"])}, "reason": key}
        agents = [self._rng.choice(self._agents) for _ in range(5)]
        items = [{"verb": verb, "agent_id": agent, "reason": f"{key}#{n}"} for n, agent in enumerate(agents)]
        return {"commands": items}


WEIGHTS = {
    "update": 22, "pause": 12, "resume": 14, "usage": 12, "get": 14, "beat": 7, "beats": 2, "lease": 4, "release": 1,
    "spawn": 5, "cancel": 3, "terminate": 1, "bulk": 2, "by_filter": 1, "list": 1, "metrics": 3, "agent_metrics": 2,
    "stranger": 1,
}  # fmt: skip
