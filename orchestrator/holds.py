"""Holds: why an agent is paused, and until when. Pure: lists of JSON objects in, new lists out.

A hold has `id` (the command that placed it), `owner`, `reason`, `until` or null, `placed_by` (type and id) and
`placed_at`; times as RFC 3339 in UTC. An owner has at most one hold on an agent, which is paused as long as it has any.
"""

from datetime import datetime
from typing import Any

from orchestrator.errors import Conflict, Held
from orchestrator.lifecycle import Status, refusal

MANUAL = "manual"
"""The owner of a hold whose owner nobody named."""

Holds = list[dict[str, Any]]


def place(holds: Holds, hold: dict[str, Any]) -> Holds:
    """With this hold as well; raises Refused where its owner has one already."""
    owner = hold["owner"]
    if any(each["owner"] == owner for each in holds):
        already = "" if owner == MANUAL else f" by {owner!r} already"
        raise refusal(Status.PAUSED, f"cannot pause an agent that is paused{already}")
    return [*holds, hold]


def lift(holds: Holds, owner: str) -> Holds:
    """Without this owner's hold; raises Held where it has none, but others have."""
    left = [each for each in holds if each["owner"] != owner]
    if len(left) == len(holds):
        owners = [each["owner"] for each in holds]
        raise Held(f"{owner!r} has no hold on the agent; held by {', '.join(map(repr, owners))}", held_by=owners)
    return left


def lift_due(holds: Holds, hold_id: str) -> Holds:
    """Without the hold with this id; raises Conflict where it has been lifted before its time was over."""
    left = [each for each in holds if each["id"] != hold_id]
    if len(left) == len(holds):
        raise Conflict(f"hold {hold_id} has been lifted already")
    return left


def earliest(holds: Holds) -> datetime | None:
    """When the first of them is over by itself; None if none ever is."""
    return min((datetime.fromisoformat(each["until"]) for each in holds if each["until"]), default=None)
