"""`orch agent pause --where …`, resume and terminate: one command for each agent that matches, and a bar."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import httpx2
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from orchestrator.cli import outlet
from orchestrator.cli.client import QUIESCED, Manner
from orchestrator.cli.commands import STATES
from orchestrator.cli.failures import Exit, Failure
from orchestrator.cli.session import Session
from orchestrator.sdk.bulk import MANY_SECONDS

LOOK_SECONDS = 0.5
"""Between two looks at a batch: the server counts its commands for each."""

FILTERS = ("status", "type", "q", "batch")
EVERYBODY = "all"


def where(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that choose many agents."""
    for option in (
        click.option("--yes", is_flag=True, help="Do not ask whether so many are meant."),
        click.option(
            "--where",
            "which",
            multiple=True,
            metavar="FIELD=VALUE",
            help="Instead of one AGENT: all living ones with this status, type, beginning of the name (q) or batch"
            f" that was applied to them; may be repeated. `--where {EVERYBODY}` means every one.",
        ),
    ):
        function = option(function)
    return function


def is_for_many(agent_id: str | None, which: tuple[str, ...], yes: bool, stage: str) -> bool:
    """Whether a filter was given instead of one agent; a usage error where it is neither or both."""
    if bool(agent_id) == bool(which):
        raise click.UsageError("name one AGENT, or choose many with --where")
    if agent_id and yes:
        raise click.UsageError("--yes goes with --where")
    if which and stage == QUIESCED:
        raise click.UsageError("--quiesced waits for one AGENT; leave it out")
    return bool(which)


def send(
    session: Session, project: str, order: dict[str, Any], which: tuple[str, ...], yes: bool, manner: Manner
) -> None:
    """Send an order, `verb` included, to all that match, as many as the user has agreed to; and follow it."""
    body = order | {"filter": _filter(which)} | ({} if manner.reason is None else {"reason": manner.reason})
    path = session.project(project)
    count = session.client.post(f"{path}/commands/by-filter", body | {"dry_run": True})["count"]
    if not yes:
        _ask(order["verb"], count)
    body |= {"expect_count": count}
    sent = session.client.post(f"{path}/commands/by-filter", body, key=manner.key, patience=MANY_SECONDS)
    if not manner.wait:
        session.show(sent)
        return
    progress = _follow(session, f"{path}/batches/{sent['batch_id']}", sent, manner.wait)
    session.show(progress)
    _conclude(progress, project, manner.wait)


def _filter(which: tuple[str, ...]) -> dict[str, str]:
    if which == (EVERYBODY,):
        return {}
    found: dict[str, str] = {}
    for term in which:
        field, _, value = term.partition("=")
        if field not in FILTERS or not value:
            raise click.UsageError(f"--where {term}: write status=…, type=…, q=… or batch=…, or {EVERYBODY} alone")
        if field in found:
            raise click.UsageError(f"--where {field} may be given only once")
        found[field] = value
    return found


def _ask(verb: str, count: int) -> None:
    if not outlet.is_terminal(sys.stdin):
        raise click.UsageError(f"{count} agents match; add --yes to {verb} them without being asked")
    click.confirm(f"{verb} {count} agents?", abort=True, err=True)


def _follow(session: Session, path: str, sent: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The batch as soon as it is done, or as it was last seen within so many seconds."""
    deadline = time.monotonic() + seconds
    found = _at_first(sent)
    with _bar() as show:
        while True:
            found = _look(session, path) or found
            show(found["total"] - found["states"]["queued"], found["total"])
            if found["done"] or time.monotonic() >= deadline:
                return found
            time.sleep(min(LOOK_SECONDS, max(0.0, deadline - time.monotonic())))


def _at_first(sent: dict[str, Any]) -> dict[str, Any]:
    states = dict.fromkeys(STATES, 0) | {"queued": sent["count"]}
    return {"id": sent["batch_id"], "total": sent["count"], "states": states, "done": False}


def _look(session: Session, path: str) -> dict[str, Any] | None:
    """How far a batch has come; None where the caller may not ask just now: its commands are applied all the same."""
    try:
        found: dict[str, Any] = session.client.get(path)
    except Failure as failure:
        if failure.status != httpx2.codes.TOO_MANY_REQUESTS:
            raise
        return None
    return found


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """What shows how many of how many are closed: a bar, on a terminal."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("closed"), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("")
        yield lambda closed, total: bar.update(task, completed=closed, total=total)


def _conclude(batch: dict[str, Any], project: str, seconds: float) -> None:
    states = batch["states"]
    if not batch["done"]:
        raise Failure(f"{states['queued']} are still queued after {seconds:g} s; they will be applied.", Exit.TOO_LONG)
    for state, code in (("dead", Exit.FAILED), ("rejected", Exit.REFUSED), ("cancelled", Exit.REFUSED)):
        if states[state]:
            listed = f"orch command ls --project {project} --batch {batch['id']} --state {state}"
            raise Failure(f"{states[state]} of {batch['total']} are {state}; `{listed}` says why.", code)
