"""The lifecycle as a plain model: what an order does to an agent. Its own table, nothing of the product's code.

The state machine in test_model drives the product by it, and the campaign's checks replay histories by it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

TABLE: dict[str | None, dict[str, str]] = {
    None: {"idle": "spawn"},
    "idle": {"working": "work", "paused": "pause", "terminated": "terminate"},
    "working": {"idle": "rest", "waiting": "wait", "paused": "pause", "terminated": "terminate"},
    "waiting": {"idle": "rest", "working": "work", "paused": "pause", "terminated": "terminate"},
    "paused": {"idle": "resume", "terminated": "terminate"},
    "terminated": {},
}
"""The contract's table: from each status, what can be reached, and what the event is called."""

TARGETS = {"spawn": "idle", "pause": "paused", "resume": "idle", "terminate": "terminated"}
"""Where a verb leads. `update` leads where its body says."""

STATUSES = [status for status in TABLE if status]

ASIDE = frozenset({"reason", "mode", "deadline", "until", "project_id", "unique_name"}) | {
    "verb", "agent_id", "filter", "dry_run", "expect_count",
}  # fmt: skip
"""What an order may say that is no field of the agent; one in a list, or by a filter, says also whom it is for."""


class Order(NamedTuple):
    """What is asked of an agent: the verb, the fields of its body, and the version it is meant for."""

    verb: str
    wanted: Mapping[str, Any]
    if_match: int | None = None


class Change(NamedTuple):
    """An event: `changes` are new values by field, `holds` among them as the list of their owners."""

    verb: str
    before: str | None
    after: str
    changes: dict[str, Any]


class Life(NamedTuple):
    """An agent at one version. `fields` are those that orders change; its holds are a list of owners."""

    status: str | None
    version: int
    fields: dict[str, Any]

    def demands(self, order: Order) -> Change | str | None:
        """What must come of an order now: its event, the code of its error, or None where it changes nothing."""
        if self.status is None and order.verb != "spawn":
            return "not_found"
        if order.if_match not in (None, self.version):
            return "precondition_failed"
        wanted = {name: value for name, value in order.wanted.items() if name not in ASIDE}
        owner = wanted.pop("owner", "manual")
        target = TARGETS.get(order.verb) or wanted.pop("status", self.status)
        happened = self._happens(order.verb, target, owner)
        if happened is None or order.verb not in ("update", happened):
            return "invalid_transition"
        if happened == "resume" and owner not in self.fields["holds"]:
            return "held"
        wanted |= self._held(happened, owner)
        if target == "terminated":
            wanted |= {"current_task": None, "session_id": None}
        if happened == "resume" and wanted["holds"]:
            target = "paused"
        changes = self._differing(wanted)
        return Change(happened, self.status, target, changes) if changes or happened != "update" else None

    def after(self, change: Change) -> "Life":
        """The agent one version later."""
        return Life(change.after, self.version + 1, self.fields | change.changes)

    def _happens(self, verb: str, target: str, owner: str) -> str | None:
        """What the event is called; None where there is no such move."""
        if verb == "update" and target == self.status != "terminated":
            return "update"
        if verb == "pause" and self.status == "paused" and owner not in self.fields["holds"]:
            return "pause"
        return TABLE[self.status].get(target)

    def _held(self, happened: str, owner: str) -> dict[str, list[str]]:
        """Whose holds there are afterwards, where they change."""
        others = [each for each in self.fields["holds"] if each != owner]
        after = {"pause": [*others, owner], "resume": others, "terminate": []}
        return {"holds": after[happened]} if happened in after else {}

    def _differing(self, wanted: dict[str, Any]) -> dict[str, Any]:
        if "short_term_memory" in wanted:
            wanted["short_term_memory"] = wanted["short_term_memory"] or {}
        if self.status is None:  # whatever it is born with is new
            return {name: value for name, value in wanted.items() if value is not None}
        return {name: value for name, value in wanted.items() if self.fields.get(name) != value}


UNBORN = Life(None, 0, {"holds": [], "short_term_memory": {}})
"""Every agent, before its spawn."""


def owners(holds: list[dict[str, Any]]) -> list[str]:
    """Whose holds these are, in their order, as the API shows them."""
    return [hold["owner"] for hold in holds]


def change(event: Mapping[str, Any]) -> Change:
    """An event as the API shows it."""
    changes = event["changes"]
    if "holds" in changes:
        changes = changes | {"holds": owners(changes["holds"])}
    return Change(event["verb"], event["before"], event["after"], changes)
