"""What all actors of the demo share: the API, its limits, the project, and whether the play goes on."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Any, TypeVar

from orchestrator.cli.client import Client
from orchestrator.cli.failures import Failure

T = TypeVar("T")

GLANCE_SECONDS, LIMITED_GLANCE_SECONDS = 0.25, 1.05
"""How long a look at all agents is good for; the second where there are limits, whose default is one look a second."""


class Stopped(Exception):
    """The demo is over before its end."""


@dataclass
class Stage:
    """What all actors share: the API, the project, its types, and whether the play goes on."""

    client: Client
    project: str = ""
    types: dict[str, str] = field(default_factory=dict)
    over: Event = field(default_factory=Event)
    _fleet: tuple[float, dict[str, dict[str, Any]]] = (-GLANCE_SECONDS, {})
    _looking: Lock = field(default_factory=Lock)
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

    def shows(self, agent_id: str, status: str, seconds: float) -> bool:
        """Whether the agent is seen in this status, at the latest after so many seconds."""
        deadline = time.monotonic() + seconds
        while self._look().get(agent_id, {}).get("status") != status:
            if time.monotonic() > deadline:
                return False
            self.rest(0.05)
        return True

    def _look(self) -> dict[str, dict[str, Any]]:
        """All agents as they were a second ago at most, by id."""
        with self._looking:
            good_for = LIMITED_GLANCE_SECONDS if self._limit else GLANCE_SECONDS
            if time.monotonic() - self._fleet[0] > good_for:
                at = time.monotonic()
                found = self.obey(lambda: list(self.client.pages(f"{self.project}/agents", None)))
                self._fleet = at, {agent["id"]: agent for agent in found}
            return self._fleet[1]
