"""The server's books against the demo's own, to the last digit."""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from orchestrator.cli.client import PAGE
from orchestrator.cli.demo.books import Book, metrics, written
from orchestrator.cli.demo.stage import Stage
from orchestrator.cli.documents import LIST

SETTLE_SECONDS = 3.0
"""How long usage that was taken may wait to be counted before its absence is a mismatch."""

LEDGER = {"entries": "entries", "tokens_used": "tokens", "cost_incurred": "cost", "tasks_completed": "tasks"}
"""What a group of the ledger says, and what a book calls it."""


def mismatches(stage: Stage, books: Sequence[Book]) -> list[str]:
    """Every difference, in a sentence each; none is as it should be. Looks again while there are some, for a while."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while (found := list(_differences(stage, books))) and time.monotonic() < deadline:
        stage.rest(1)
    return [surprise for book in books for surprise in book.surprises] + found


def project_metrics(stage: Stage) -> dict[str, Any]:
    """The project's metrics as the server has them, the cost as a number."""
    found = stage.obey(lambda: stage.client.get(f"{stage.project}/agents/metrics"))
    return {**found, "total_cost_incurred": Decimal(found["total_cost_incurred"])}


def _differences(stage: Stage, books: Sequence[Book]) -> Iterator[str]:
    yield from _compare("the project", metrics(books), project_metrics(stage))
    agents, ledger, events = _agents(stage), _ledger(stage), _events(stage)
    for book in books:
        yield from _compare(book.name, book.shown, agents.pop(book.id, {}))
        wanted = {name: getattr(book, attribute) for name, attribute in LEDGER.items() if book.entries}
        yield from _compare(f"{book.name}, in the ledger", wanted, ledger.pop(book.id, {}))
        happened = [(n, *event) for n, event in enumerate(book.events, 1)]
        yield from _compare(f"{book.name}, in its history", dict(enumerate(happened)), dict(enumerate(events[book.id])))
    for stranger in agents:
        yield f"agent {stranger} is in the project, and nobody spawned it"


def _compare(whose: str, wanted: dict[Any, Any], found: dict[Any, Any]) -> Iterator[str]:
    """The differences in what is wanted; for an event, which is absent on one side, also those that are too many."""
    names = [*wanted, *(name for name in found if isinstance(name, int) and name not in wanted)]
    for name in names:
        if wanted.get(name) != found.get(name):
            yield f"{whose}: {name} should be {_say(wanted.get(name))}, is {_say(found.get(name))}"


def _say(value: Any) -> str:
    return "absent" if value is None else written(value)


def _agents(stage: Stage) -> dict[str, dict[str, Any]]:
    found = stage.obey(lambda: list(stage.client.pages(f"{stage.project}/agents", None)))
    return {agent["id"]: agent | {"cost_incurred": Decimal(agent["cost_incurred"])} for agent in found}


def _ledger(stage: Stage) -> dict[str, dict[str, Any]]:
    found = stage.obey(lambda: stage.client.get(f"{stage.project}/usage", marks=LIST, group_by="agent"))
    return {group["group"]: group | {"cost_incurred": Decimal(group["cost_incurred"])} for group in found["data"]}


def _events(stage: Stage) -> dict[str, list[tuple[int, str, str | None, str]]]:
    """The project's feed from its beginning, by agent."""
    found = defaultdict(list)
    after = None
    while True:
        page = stage.obey(lambda: stage.client.get(f"{stage.project}/events", marks=LIST, after=after, limit=PAGE))  # noqa: B023
        for event in page["data"]:
            found[event["agent_id"]].append((event["version"], event["verb"], event["before"], event["after"]))
        after = page["pagination"]["next_cursor"]
        if after is None:
            return found
