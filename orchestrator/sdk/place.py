"""Where a process stands towards the server: which agent it acts as, and what it says and asks for as that agent."""

from dataclasses import replace
from typing import Any, TypeVar

from orchestrator.sdk import fleet, tenancy
from orchestrator.sdk.calls import Call
from orchestrator.sdk.connection import Connection
from orchestrator.sdk.errors import Conflict, Terminated
from orchestrator.sdk.shapes import Lease, Told

T = TypeVar("T")


class Place:
    """Which agent, at which server, under which name this process asks for its lease."""

    def __init__(self, connection: Connection, project_id: str, agent_id: str, holder: str, ttl: int) -> None:
        self.connection, self.project_id, self.agent_id = connection, project_id, agent_id
        self.holder, self.ttl = holder, ttl

    def of(self, agent_id: str) -> "Place":
        """The same for another agent of the project."""
        return Place(self.connection, self.project_id, agent_id, self.holder, self.ttl)

    def lease(self) -> Lease:
        """Ask for it; raises Held, LeaseHeld, Terminated, Conflict (archived)."""
        try:
            return self._send(tenancy.lease(self.project_id, self.agent_id, holder=self.holder, ttl=self.ttl))
        except Conflict as error:
            if "reason" not in error.problem:  # only a stop has one, be it null
                raise
            raise Terminated(str(error)) from None

    def release(self, lease: Lease, patience: float) -> None:
        """Give it back."""
        self._send(tenancy.release(self.project_id, self.agent_id, epoch=lease.epoch), patience, lease.token)

    def beat(self, lease: Lease, patience: float, **says: Any) -> Told:
        """Say that it lives, and what it does."""
        beat = tenancy.beat(self.project_id, self.agent_id, epoch=lease.epoch, **says)
        return self._send(beat, patience, lease.token)

    def report(self, entries: list[dict[str, Any]], patience: float) -> None:
        """Send usage."""
        self._send(fleet.report(self.project_id, [entry | {"agent_id": self.agent_id} for entry in entries]), patience)

    def _send(self, call: Call[T], patience: float | None = None, token: str | None = None) -> T:
        """Once, with so many seconds for the answer."""
        return self.connection.send(replace(call, patience=patience), token=token, retries=0)
