"""The clients as agents' processes: they get leases, beat alone or for many at once, report what they use, stand still
when they are told to, and now and then fall silent."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.apart import told_apart
from tests.chaos.client import Caller, Request
from tests.chaos.history import Call

MOST = 5
"""Leases that one client holds at a time."""

SILENCE_SECONDS = 7.5
"""A lease of five seconds is lost when it has not been heard for four thirds of that."""


@dataclass
class Tenure:
    """One lease: what its process is told, what it has not got rid of, and until when it is silent."""

    agent: str
    epoch: int
    token: str
    stopped: bool = False
    entries: list[dict[str, Any]] = field(default_factory=list)
    wakes: float = 0.0


class Reports:
    """Entries of usage, of which some are told again."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._told: list[tuple[str, dict[str, Any]]] = []

    def new(self, agent: str, key: str, number: int) -> list[dict[str, Any]]:
        """So many, and one of them remembered."""
        entries = [self._entry(f"{key}.{n}") for n in range(number)]
        self._told = [*self._told[-50:], (agent, entries[0])]
        return entries

    def again(self) -> tuple[str, dict[str, Any]] | None:
        """One that was told, now and then, and of which agent."""
        return self._rng.choice(self._told) if self._told and self._rng.random() < 0.2 else None

    def _entry(self, report: str) -> dict[str, Any]:
        return {
            "report_id": report,
            "model": self._rng.choice(["small", "large"]),
            "input_tokens": self._rng.randrange(10_000),
            "output_tokens": self._rng.randrange(1_000),
            "cost": f"0.{self._rng.randrange(10**6):06}",
            "tasks_completed": self._rng.randrange(2),
        }


class Processes:
    """Those of one client."""

    def __init__(self, caller: Caller, path: str, rng: random.Random, reports: Reports) -> None:
        self._caller, self._path, self._rng, self._reports = caller, path, rng, reports
        self._held: list[Tenure] = []
        self._count = 0

    def live(self, key: Callable[[], str], agent: str, stop: Callable[[str], None]) -> None:
        """For a moment: get one more lease, that of `agent`; beat for one or for all, sometimes right behind a `stop`;
        give a lease back, or fall silent."""
        awake = [tenure for tenure in self._held if tenure.wakes < time.monotonic()]
        if not awake or (len(self._held) < MOST and self._rng.random() < 0.3):
            self._take(agent, key())
            return
        tenure, chance = self._rng.choice(awake), self._rng.random()
        if chance < 0.04:
            self._give_back(tenure)
        elif chance < 0.07:
            tenure.wakes = time.monotonic() + SILENCE_SECONDS
        elif chance < 0.35:
            self._beat_for(awake, key())
        else:
            # A beat right behind a stop finds it accepted, and often not applied yet.
            if self._rng.random() < 0.1:
                stop(tenure.agent)
            self._beat(tenure, key())

    def _take(self, agent: str, key: str) -> None:
        path = f"{self._path}/agents/{agent}/lease"
        call = self._caller.send(Request("lease", "POST", path, agent, None, {"holder": key, "ttl": 5}))
        if call.outcome == "ok":
            self._held = [one for one in self._held if one.agent != agent]
            self._held.append(Tenure(agent, call.answer["epoch"], call.answer["token"]))

    def _give_back(self, tenure: Tenure) -> None:
        path, body = f"{self._path}/agents/{tenure.agent}/lease", {"epoch": tenure.epoch}
        self._caller.send(Request("release", "DELETE", path, tenure.agent, None, body), tenure.token)
        self._held.remove(tenure)

    def _beat(self, tenure: Tenure, key: str) -> None:
        path = f"{self._path}/agents/{tenure.agent}/beat"
        beat = Request("beat", "POST", path, tenure.agent, None, self._says(tenure, key))
        self._hear(tenure, self._caller.send(beat, tenure.token))

    def _beat_for(self, held: list[Tenure], key: str) -> None:
        beats = [{"agent_id": one.agent} | self._says(one, f"{key}.{n}") for n, one in enumerate(held)]
        call = self._caller.send(Request("beats", "POST", f"{self._path}/beats", body={"beats": beats}))
        for tenure, alone in zip(held, told_apart([call]), strict=False):  # the call itself comes last
            self._hear(tenure, alone)

    def _says(self, tenure: Tenure, key: str) -> dict[str, Any]:
        """What it has become; what it has used since it was heard last; and, where it was stopped, that it stands
        still."""
        self._count += 1
        says = self._rng.choice([{}, {}, {"status": "working", "current_task": f"{self._count}"}, {"status": "idle"}])
        if self._rng.random() < 0.4:
            tenure.entries += self._reports.new(tenure.agent, key, self._rng.randint(1, 3))
        used: dict[str, Any] = {"entries": [*tenure.entries]} if tenure.entries else {}
        return {"epoch": tenure.epoch} | says | used | ({"ack": True} if tenure.stopped else {})

    def _hear(self, tenure: Tenure, call: Call) -> None:
        """What was not heard is told again."""
        if call.outcome == "refused" or (call.outcome == "ok" and call.answer["directive"] == "terminate"):
            self._held.remove(tenure)
        elif call.outcome == "ok":
            tenure.entries, tenure.stopped = [], call.answer["directive"] == "pause"
