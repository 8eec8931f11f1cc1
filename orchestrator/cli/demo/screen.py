"""What the audience sees: a live table on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.live import Live
from rich.table import Table

from orchestrator.cli import outlet, render
from orchestrator.cli.demo.books import STATUSES, Book, written
from orchestrator.cli.demo.stage import Stage

LINE_SECONDS = 1.0
"""Between two lines of progress where there is no terminal."""

COLUMNS = ("agent", "agent_type_slug", "status", "current_task", "version", "tasks_completed", "tokens_used")


@contextmanager
def screen(books: Sequence[Book], stage: Stage, live: bool) -> Iterator[Callable[[], None]]:
    """A function to be called again and again while the play goes on."""
    if not (live and outlet.is_terminal(sys.stdout)):
        yield _lines(books, stage)
        return
    with Live(_table(books, ""), console=render.console(), auto_refresh=False) as display:
        yield lambda: display.update(_table(books, stage.held_up), refresh=True)
        display.update(_table(books, ""), refresh=True)


def summary(books: Sequence[Book]) -> str:
    """Where everybody is, in a line."""
    statuses = [(status, sum(book.status == status for book in books)) for status in STATUSES]
    events, entries = sum(len(book.events) for book in books), sum(book.entries for book in books)
    return (
        f"{', '.join(f'{n} {s}' for s, n in statuses if n) or 'nobody yet'}; {events} events, {entries} usage entries"
    )


def comparison(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """The project's metrics: what was sent, what the server has."""
    table = render.heading(("metric", "sent", "counted"))
    for name, sent, counted in zip(_flat(ours), _flat(ours).values(), _flat(theirs).values(), strict=True):
        table.add_row(name.replace("_", " "), written(sent), written(counted), style="" if sent == counted else "red")
    render.console().print(table)


def _flat(metrics: dict[str, Any]) -> dict[str, Any]:
    return {**{name: value for name, value in metrics.items() if name != "by_status"}, **metrics["by_status"]}


def _lines(books: Sequence[Book], stage: Stage) -> Callable[[], None]:
    """Says what is new, once a second at most."""
    said_at, said = 0.0, ""

    def progress() -> None:
        nonlocal said_at, said
        line = f"{summary(books)} {stage.held_up}".strip()
        if time.monotonic() - said_at >= LINE_SECONDS and line != said:
            said_at, said = time.monotonic(), line
            outlet.say(line)

    return progress


def _table(books: Sequence[Book], note: str) -> Table:
    table = render.table([{"agent": book.name, **book.shown} for book in books], COLUMNS)
    table.caption = note or summary(books)
    return table
