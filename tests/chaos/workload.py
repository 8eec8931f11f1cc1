"""What the clients ask for: every verb, reads, leases and usage, in seeded mixes, on agents that all of them share."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from tests.chaos.client import Caller, Request
from tests.chaos.history import Call
from tests.chaos.tenures import Processes, Reports

API = "/api/v1"
HOT = 6
"""So many agents get a third of all commands, and are never ended."""

FLOCKS = 5
BURST = 10
THINK_SECONDS = 0.02
TOGETHER_SECONDS = 0.4
HOLD_SECONDS = 2.0


@dataclass
class World:
    """What all clients know: where to act, the agents there are, and the requests whose fate is unknown."""

    project: str
    type_id: str
    agents: list[str] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)
    versions: dict[str, int] = field(default_factory=dict)
    unknown: list[Request] = field(default_factory=list)

    @property
    def path(self) -> str:
        """The project's address."""
        return f"{API}/projects/{self.project}"


class Client:
    """One of the eight. It goes on until it is told to stop, whatever it is answered."""

    def __init__(self, number: int, caller: Caller, stranger: Caller, world: World, seed: int) -> None:
        self._number, self._caller, self._stranger, self._world = number, caller, stranger, world
        self._rng = random.Random(f"{seed}-{number}")  # noqa: S311  # to be repeatable
        self._count = 0
        self._command: str | None = None
        self._used: str | None = None
        self._asked: list[Request] = []
        self._reports = Reports(self._rng)
        self._processes = Processes(caller, world.path, self._rng, self._reports)
        self.stopping = False

    def work(self) -> None:
        """One thing after the other."""
        ops: dict[Callable[[], None], int] = {
            self._move: 26, self._update: 22, self._usage: 12, self._get: 12, self._beat: 14, self._spawn: 6,
            self._cancel: 3, self._terminate: 10, self._bulk: 3, self._by_filter: 3, self._list: 1, self._metrics: 3,
            self._agent_metrics: 2, self._stranger_looks: 1, self._use_a_key_again: 1, self._spawn_again: 5,
            self._ask_again: 4,
        }  # fmt: skip
        while not self.stopping:
            enough = len(self._world.agents) >= HOT
            (self._rng.choices([*ops], [*ops.values()])[0] if enough else self._spawn)()
            time.sleep(self._rng.uniform(0, 2 * THINK_SECONDS))

    def _key(self) -> str:
        self._count += 1
        return f"c{self._number}-{self._count}"

    def _agent(self) -> str:
        agents = self._world.agents
        return self._rng.choice(agents[:HOT] if self._rng.random() < 0.35 else agents[-150:])

    def _wait(self) -> dict[str, str]:
        return {"Prefer": "wait=3"} if self._rng.random() < 0.3 else {}

    def _order(self, op: str, agent: str, body: dict[str, Any], headers: dict[str, str]) -> Call:
        method, tail = {"update": ("PATCH", ""), "terminate": ("DELETE", "")}.get(op, ("POST", f"/{op}"))
        key = self._key()
        path = f"{self._world.path}/agents/{agent}{tail}"
        call = self._mutate(Request(op, method, path, agent, key, body | {"reason": key}, headers))
        if isinstance(call.answer, dict) and call.status == 202:
            self._command = call.answer["id"]
        return call

    def _mutate(self, request: Request) -> Call:
        call = self._caller.insist(request, self._rng)
        if call.outcome == "unknown":
            self._world.unknown.append(request)
        elif call.outcome == "ok":
            self._used = request.key
            self._asked = [*self._asked[-20:], request]
        self._learn(call)
        return call

    def _learn(self, call: Call) -> None:
        if call.agent and isinstance(call.answer, dict) and isinstance(call.answer.get("version"), int):
            self._world.versions[call.agent] = call.answer["version"]

    def _spawn(self) -> None:
        key = self._key()
        body = {"agent_type_id": self._world.type_id, "name": f"flock-{self._rng.randrange(FLOCKS)}", "reason": key}
        request = Request("spawn", "POST", f"{self._world.path}/agents", None, key, body, self._wait())
        self._add(self._mutate(request))

    def _add(self, call: Call) -> None:
        if call.outcome == "ok":
            self._world.agents.append(call.answer["id" if call.status == 201 else "agent_id"])

    def _spawn_again(self) -> None:
        """Under a name that is to be one agent's alone: the first gets it, and the door refuses the others. Often when
        others do so, too, and under the name of that moment."""
        key, name = self._key(), "unique"
        if self._rng.random() < 0.6:
            moment = int(time.monotonic() / TOGETHER_SECONDS) + 1
            name = f"flock-{moment % FLOCKS}-{moment}"  # which filters name, too
            time.sleep(max(0.0, moment * TOGETHER_SECONDS - time.monotonic()))
        body = {"agent_type_id": self._world.type_id, "name": name, "unique_name": True, "reason": key}
        call = self._mutate(Request("spawn", "POST", f"{self._world.path}/agents", None, key, body, self._wait()))
        self._add(call)

    def _move(self) -> None:
        verb = self._rng.choice(["pause", "resume"])
        body: dict[str, Any] = {"owner": "budget"} if self._rng.random() < 0.2 else {}
        if verb == "pause":
            ways: list[dict[str, Any]] = [{}, {"mode": "immediate"}, {"deadline": 1}, _for_a_while()]
            body |= self._rng.choices(ways, [7, 2, 1, 2])[0]
        self._order(verb, self._agent(), body, self._wait())

    def _update(self) -> None:
        agent = self._agent()
        body = self._rng.choice(
            [
                {"status": self._rng.choice(["working", "waiting", "idle"])},
                {"current_task": f"task {self._count}", "session_id": None},
                {"short_term_memory": {"seen": self._count}},
                {"status": "working", "current_task": f"task {self._count}", "name": f"flock-{self._count % FLOCKS}"},
            ]
        )
        known = self._world.versions.get(agent)
        condition = {"If-Match": f'"{known}"'} if known is not None and self._rng.random() < 0.3 else {}
        self._order("update", agent, body, self._wait() | condition)

    def _terminate(self) -> None:
        """One of the others than the hot ones; half of the time one that was ended before, which must be refused."""
        ended = self._world.ended
        alive = [agent for agent in self._world.agents[HOT:] if agent not in ended]
        others = [*ended] if self._rng.random() < 0.4 else alive
        if others:
            agent = self._rng.choice(others)
            self._order("terminate", agent, {}, self._wait())
            self._world.ended.add(agent)

    def _cancel(self) -> None:
        if self._command is not None:
            path = f"{self._world.path}/commands/{self._command}/cancel"
            self._mutate(Request("cancel", "POST", path, None, self._key()))

    def _bulk(self) -> None:
        key = self._key()
        items = [
            {"verb": self._rng.choice(["pause", "resume"]), "agent_id": self._agent(), "reason": f"{key}#{number}"}
            for number in range(self._rng.randint(10, 80))
        ]
        self._mutate(Request("bulk", "POST", f"{self._world.path}/commands", None, key, {"commands": items}))

    def _by_filter(self) -> None:
        """Often right behind a look at whom it names: so it is known which of them it must take."""
        key, status = self._key(), self._rng.choice(["paused", "idle"])
        where = {"status": status, "q": f"flock-{self._rng.randrange(FLOCKS)}"}
        if self._rng.random() < 0.7:
            self._caller.walk(Request("found", "GET", f"{self._world.path}/agents?limit=100&{urlencode(where)}"))
        body = {"verb": "resume" if status == "paused" else "pause", "filter": where, "reason": key}
        self._mutate(Request("by_filter", "POST", f"{self._world.path}/commands/by-filter", None, key, body))

    def _usage(self) -> None:
        key, agent = self._key(), self._agent()
        again = self._reports.again()
        agent, old = (again[0], [again[1]]) if again else (agent, [])
        entries = self._reports.new(agent, key, self._rng.randint(1, 6)) + old
        path = f"{self._world.path}/agents/{agent}/usage"
        self._mutate(Request("usage", "POST", path, agent, key, {"entries": entries}, self._wait()))

    def _beat(self) -> None:
        self._processes.live(self._key, self._agent(), self._stop)

    def _stop(self, agent: str) -> None:
        self._order("pause", agent, {"mode": "immediate"}, {})

    def _get(self) -> None:
        agent = self._agent()
        self._learn(self._caller.send(Request("get", "GET", f"{self._world.path}/agents/{agent}", agent)))

    def _metrics(self) -> None:
        self._caller.send(Request("metrics", "GET", f"{self._world.path}/agents/metrics"))

    def _agent_metrics(self) -> None:
        """Often enough, by several at once, to reach the limit that is on."""
        agent = self._agent()
        for _ in range(BURST):
            self._caller.send(Request("agent_metrics", "GET", f"{self._world.path}/agents/{agent}/metrics", agent))

    def _stranger_looks(self) -> None:
        agent = self._agent()
        self._stranger.send(Request("stranger", "GET", f"{self._world.path}/agents/{agent}", agent))

    def _ask_again(self) -> None:
        """For the same, with its key, though it was answered."""
        if self._asked:
            self._mutate(self._rng.choice(self._asked))

    def _use_a_key_again(self) -> None:
        """For another request than the one it was for: recorded without the key, as it must be refused."""
        if self._used is not None:
            agent = self._agent()
            body, key = {"name": "never", "reason": "reused"}, {"Idempotency-Key": self._used}
            self._caller.send(Request("reuse", "PATCH", f"{self._world.path}/agents/{agent}", agent, None, body, key))

    def _list(self) -> None:
        self._caller.walk(Request("list", "GET", f"{self._world.path}/agents?limit=10"))


def _for_a_while() -> dict[str, str]:
    """A hold that ends soon by itself, and that nobody else lifts; such an order may be refused when it comes late."""
    return {"owner": "shift", "until": (datetime.now(UTC) + timedelta(seconds=HOLD_SECONDS)).isoformat()}
