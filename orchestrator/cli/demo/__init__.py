"""`orch demo`: a fleet of real processes through SDK and public API, and whether the books agree afterwards."""

import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn
from uuid import uuid4

import click

from orchestrator.cli import outlet, render
from orchestrator.cli.client import Client
from orchestrator.cli.demo.actor import Actor
from orchestrator.cli.demo.audit import mismatches, project_metrics
from orchestrator.cli.demo.books import Book, metrics, written
from orchestrator.cli.demo.careers import KINDS, cast
from orchestrator.cli.demo.own import own_stack
from orchestrator.cli.demo.screen import comparison, screen, summary
from orchestrator.cli.demo.stage import Stage
from orchestrator.cli.demo.troupe import Troupe, troupe
from orchestrator.cli.extras import needed
from orchestrator.cli.failures import Exit, Failure
from orchestrator.cli.session import Session, command

READY_SECONDS = 30.0
SIGNALLED = 128


@click.command()
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed, the same play.")
@command
def demo(session: Session, seed: int) -> None:
    """Let 24 agents play, and compare the books.

    They are of three types, in a new project, each a process of its own that works through the SDK, while its operator
    pauses, resumes and terminates it through the API. Some are killed, some ignore a pause until they are fenced.
    Afterwards the server's metrics, agents, ledger and events must be what was sent, to the last digit.
    Runs against the server that answers at --url; where none does, against one it starts and stops itself.
    Fails if anything differs, or if an invariant is violated. The result is a table unless -o json is given.
    """
    signal.signal(signal.SIGTERM, _end)
    began = time.monotonic()
    with _somewhere(session) as client:
        stage = _set(client)
        with _enter(stage) as players:
            books = _play(stage, players, seed, live=session.output != "json")
            wrong = mismatches(stage, books) + _violations(stage)
            counted = project_metrics(stage)
    _conclude(session, books, counted, wrong)
    if wrong:
        raise Failure(f"the books disagree in {len(wrong)} points.")
    outlet.say(f"The books agree to the last digit: {summary(books)}; {time.monotonic() - began:.0f} s.")


def _end(signum: int, _: Any) -> NoReturn:
    """Let SIGTERM unwind the stack, so that nothing is left behind."""
    raise SystemExit(SIGNALLED + signum)


@contextmanager
def _somewhere(session: Session) -> Iterator[Client]:
    """The server that is there, or one of our own."""
    if session.named_url or _answers(session.url):
        _wait_until_ready(session.client)
        yield session.client
        return
    with needed("a server of the demo's own", "server", "embedded"):
        import orchestrator.stack  # noqa: F401, PLC0415  # what `orch up` is about to need
    outlet.say(f"No server answers at {session.url}: starting one for the demo.")
    with own_stack() as client:
        yield client


def _answers(url: str) -> bool:
    try:
        with Client(url) as client:
            return bool(client.request("GET", "/healthz", repeatable=False).is_success)
    except Failure:
        return False


def _wait_until_ready(client: Client) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not (answer := client.request("GET", "/readyz", repeatable=False)).is_success:
        if time.monotonic() > deadline:
            raise Failure(f"{client.url} is not ready: {answer.text.strip()[:200]}; see `orch doctor`.")
        time.sleep(0.5)


def _set(client: Client) -> Stage:
    """The three types of agents, made where they are missing, and a new project."""
    stage = Stage(client)
    stage.types = {kind: _type_id(stage, kind) for kind in KINDS}
    name = uuid4().hex[:8]
    made = stage.obey(lambda: client.post("/projects", {"name": f"Demo {name}", "slug": f"demo-{name}"}))
    stage.project = f"/projects/{made['id']}"
    outlet.say(f"The demo plays in project demo-{name} at {client.url}.")
    return stage


@contextmanager
def _enter(stage: Stage) -> Iterator[Troupe]:
    """The processes of the agents, with what they must remember in a folder that is gone afterwards."""
    with TemporaryDirectory(prefix="orch-demo-") as folder:
        project_id = stage.project.removeprefix("/projects/")
        with troupe(stage.client.url, stage.client.key or "", project_id, Path(folder)) as players:
            yield players


def _type_id(stage: Stage, kind: str) -> str:
    try:
        return str(stage.obey(lambda: stage.client.post("/agent-types", {"name": kind.title(), "slug": kind}))["id"])
    except Failure as failure:
        if failure.code != Exit.REFUSED:
            raise
        return stage.obey(lambda: stage.client.id_of("/agent-types", "type", "slug", kind))


def _play(stage: Stage, players: Troupe, seed: int, live: bool) -> list[Book]:
    """All roles from beginning to end, in a thread each; everybody's book."""
    roles = cast(seed)
    books = [Book(role.name, role.kind) for role in roles]
    with ThreadPoolExecutor(len(roles)) as threads, screen(books, stage, live) as show:
        try:
            lives = [threads.submit(Actor(stage, players, *part).live) for part in zip(roles, books, strict=True)]
            while _goes_on(lives):
                show()
        except BaseException:  # whatever it is, the other threads must end before it goes on its way
            stage.over.set()
            players.close()
            raise
    return books


def _goes_on(lives: Sequence[Future[None]]) -> bool:
    """Whether anybody is still alive, after a moment; raises what one of them met with."""
    done, pending = wait(lives, timeout=0.2, return_when=FIRST_EXCEPTION)
    for life in done:
        life.result()
    return bool(pending)


def _violations(stage: Stage) -> list[str]:
    verdict = stage.obey(lambda: stage.client.get("/verify", patience=600))
    return [
        f"invariant {found['name']} ({found['sentence']}) is violated {found['violations']} times"
        for found in verdict["invariants"]
        if found["violations"]
    ]


def _conclude(session: Session, books: list[Book], counted: dict[str, Any], wrong: list[str]) -> None:
    sent = metrics(books)
    if session.output == "json":
        with outlet.printing():
            print(render.dump({"sent": _plain(sent), "counted": _plain(counted), "mismatches": wrong}))
        return
    with outlet.printing():
        comparison(sent, counted)
        print("verify: every invariant holds" if not any("invariant" in line for line in wrong) else "verify: violated")
    for line in wrong:
        outlet.say(f"mismatch: {render.visible(line)}")


def _plain(figures: dict[str, Any]) -> dict[str, Any]:
    return figures | {"total_cost_incurred": written(figures["total_cost_incurred"])}
