"""The operations of an agent's own process; the first argument of each is the project's id."""

from collections.abc import Sequence
from typing import Any

from orchestrator.sdk import shapes
from orchestrator.sdk.calls import Call
from orchestrator.sdk.documents import nothing, send


def lease(project_id: str, /, agent_id: str, *, holder: str, ttl: int | None = None) -> Call[shapes.Lease]:
    """The right to act as the agent; the same holder may ask again, and then starts anew."""
    made = send("POST", f"/projects/{project_id}/agents/{agent_id}/lease", shapes.Lease, holder=holder, ttl=ttl)
    return Call(made.method, made.path, made.read, made.body, keyed=False)


def beat(project_id: str, /, agent_id: str, *, epoch: int, **says: Any) -> Call[shapes.Told]:
    """Say that the process lives; `says` are status, current_task, entries and ack."""
    path = f"/projects/{project_id}/agents/{agent_id}/beat"
    return Call("POST", path, lambda document: shapes.Told(**document), {"epoch": epoch, **says}, keyed=False)


def beat_many(project_id: str, /, beats: Sequence[dict[str, Any]]) -> Call[list[dict[str, Any]]]:
    """The same for up to 500 agents: what each is told, or its error, in order."""
    body = {"beats": list(beats)}
    return Call("POST", f"/projects/{project_id}/beats", lambda found: list(found["data"]), body, keyed=False)


def release(project_id: str, /, agent_id: str, *, epoch: int) -> Call[None]:
    """Give the lease back."""
    return Call("DELETE", f"/projects/{project_id}/agents/{agent_id}/lease", nothing, {"epoch": epoch})
