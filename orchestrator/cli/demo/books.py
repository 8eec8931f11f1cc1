"""The demo's own bookkeeping: what it sent, and so what the server must say."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

STATUSES = ("idle", "working", "waiting", "paused", "terminated")

Happening = tuple[str, str | None, str]
"""verb, before, after."""


@dataclass
class Book:
    """What one agent was sent, and the answers that were not what they should have been."""

    name: str
    kind: str
    id: str = ""
    status: str | None = None
    current_task: str | None = None
    tasks: int = 0
    tokens: int = 0
    cost: Decimal = Decimal(0)
    entries: int = 0
    repeats: int = 0
    refusals: int = 0
    events: list[Happening] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)

    def move(self, verb: str, status: str) -> None:
        """It was moved."""
        self.events.append((verb, self.status, status))
        self.status = status

    @property
    def before_pause(self) -> str | None:
        """Its status when it was paused."""
        return next((before for verb, before, _ in reversed(self.events) if verb == "pause"), None)

    def finish(self) -> None:
        """A task is done: that is an entry of its own."""
        self.entries += 1
        self.tasks += 1
        self.current_task = None

    def count(self, entry: dict[str, Any]) -> None:
        """It used something, reported for the first time."""
        self.entries += 1
        self.tasks += entry["tasks_completed"]
        self.tokens += entry["input_tokens"] + entry["output_tokens"]
        self.cost += Decimal(entry["cost"])

    def expect(self, what: str, wanted: Any, found: Any) -> None:
        """Note an answer that is not the wanted one."""
        if wanted != found:
            self.surprises.append(f"{self.name}: {what} should be {wanted!r}, is {found!r}")

    @property
    def shown(self) -> dict[str, Any]:
        """The agent as the API must show it; the cost as a number, to be compared exactly."""
        return {
            "name": self.name,
            "agent_type_slug": self.kind,
            "status": self.status,
            "current_task": self.current_task,
            "tasks_completed": self.tasks,
            "tokens_used": self.tokens,
            "cost_incurred": self.cost,
            "version": len(self.events),
        }


def metrics(books: Sequence[Book]) -> dict[str, Any]:
    """The project's metrics as the API must show them; the cost as a number."""
    statuses = Counter(book.status for book in books)
    cost = sum((book.cost for book in books), Decimal(0))
    return {
        "total_instances": len(books),
        "active_instances": statuses["working"],
        "idle_instances": statuses["idle"],
        "total_tasks_completed": sum(book.tasks for book in books),
        "total_tokens_used": sum(book.tokens for book in books),
        "total_cost_incurred": cost,
        "by_status": {status: statuses[status] for status in STATUSES},
    }


def written(value: Any) -> str:
    """A figure as the API writes it: a decimal without exponent and without zeros at its end."""
    return f"{value.normalize():f}" if isinstance(value, Decimal) else str(value)
