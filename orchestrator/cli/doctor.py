"""`orch doctor`: what is wrong here, and what to do about it."""

import os
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from orchestrator.cli import documents, outlet, render
from orchestrator.cli.client import Client
from orchestrator.cli.extras import needed
from orchestrator.cli.failures import Exit, Failure
from orchestrator.cli.finding import Finding, fail, ok, warn
from orchestrator.cli.session import Session, command
from orchestrator.settings import Settings, SettingsError, address, settings

OURS = frozenset({"ORCH_URL", "ORCH_API_KEY", "ORCH_PROJECT"})
"""What the command line reads from the environment beside the settings."""

OLDEST_PYTHON = (3, 11)


@click.command()
@click.pass_context
@command
def doctor(session: Session, ctx: click.Context) -> None:
    """Check what this machine and the server need. Fails if something must be done."""
    found = []
    for finding in _examine(session):
        found.append(finding)
        if not session.as_json:
            _say(finding)
    if session.as_json:
        with outlet.printing():
            print(render.dump([finding._asdict() for finding in found]))
    ctx.exit(Exit.FAILED if any(finding.state == "fail" for finding in found) else Exit.OK)


def _say(finding: Finding) -> None:
    line = render.cell("state", finding.state)
    line.append(f"{'':{6 - len(finding.state)}}{finding.what:<14}", style="bold")
    line.append(render.visible(finding.says), style="default")
    if finding.advice:
        line.append(f"\n{'':20}→ {render.visible(finding.advice)}", style="default")
    with outlet.printing():
        render.console().print(line)


def _examine(session: Session) -> Iterator[Finding]:
    """Every finding, as it is made."""
    with needed("`orch doctor`", "server"):
        from orchestrator import limits  # noqa: PLC0415  # these two bring the database's and Redis's drivers along
        from orchestrator.cli import servers  # noqa: PLC0415

    yield _python()
    try:
        here = settings()
        limits.limits()
    except SettingsError as error:
        yield fail("settings", str(error).replace("\n", "; "), "Correct the environment; nothing else can be checked.")
        return
    yield _environment()
    yield _home(here.home)
    yield _port("port", here.host, here.port, "/healthz", "ORCH_PORT")
    if here.flower_port:
        yield _port("Flower's port", "127.0.0.1", here.flower_port, "/flower/healthcheck", "ORCH_FLOWER_PORT")
    yield from servers.postgres(here)
    yield from servers.redis(here)
    yield from _server(session.url)
    yield _key(session)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST_PYTHON:
        return fail("Python", version, "Use Python 3.11 or newer.")
    return ok("Python", version)


def _environment() -> Finding:
    known = OURS | {f"ORCH_{name.upper()}" for name in Settings.model_fields}
    unknown = sorted(name for name in os.environ if name.startswith("ORCH_") and name not in known)
    if unknown:
        return warn("settings", f"{', '.join(unknown)} is no setting", "See whether it is misspelt.")
    return ok("settings", "valid")


def _home(folder: Path) -> Finding:
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        return fail("home", f"cannot write to {nearest}: {error.strerror}", "Set ORCH_HOME to a folder of yours.")
    key = folder / "admin.key"
    if key.exists() and key.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return warn("home", f"others can read {key}", f"chmod 600 {key}")
    return ok("home", f"{folder}" if nearest == folder else f"{folder}, to be made")


def _port(what: str, host: str, port: int, path: str, setting: str) -> Finding:
    nearest = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # of all addresses
    host = nearest.get(host, host)
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return ok(what, f"{port} is free")
    try:
        with Client(f"http://{address(host, port)}") as client:
            answer = client.request("GET", path, repeatable=False)
        if answer.is_success and answer.content.strip() in (b"OK", b'{"status":"ok"}'):
            return ok(what, f"{port} is ours")
    except Failure:
        pass
    return fail(what, f"{port} is taken by another program", f"End that, or set {setting} to a free one.")


def _server(url: str) -> Iterator[Finding]:
    try:
        with Client(url) as client:
            answer = client.request("GET", "/readyz", repeatable=False)
    except Failure as failure:
        yield fail("server", failure.sentence)
        return
    condition = documents.read(answer, url)
    degraded, reason = condition.get("degraded", []), condition.get("reason", "")
    if (
        condition.get("status") not in ("ready", "not ready")
        or not isinstance(degraded, list)
        or not isinstance(reason, str)
    ):
        yield fail("server", f"what answers at {url} is no orchestrator", "Set ORCH_URL to the server's address.")
        return
    deaf = "worker" in reason
    if reason and not deaf:
        yield fail("server", f"{url} is not ready: {reason}", "See PostgreSQL and the migration above.")
        return
    if "redis" in degraded:
        yield warn("server", f"{url} is ready, without Redis", "See Redis above; commands wait for the sweep.")
    else:
        yield ok("server", f"{url} answers")
    yield _worker(deaf, degraded)


def _worker(deaf: bool, degraded: list[str]) -> Finding:
    if deaf:
        return fail("worker", "none has been heard since the server started", "Start one; its log says what is wrong.")
    if "queue_age" in degraded:
        return warn("worker", "the oldest command has waited for more than 10 s", "Start more workers.")
    return ok("worker", "heard")


def _key(session: Session) -> Finding:
    try:
        me = session.client.get("/me")
        whose = f"{me['key']['name']} of {me['user']['email']}{', superuser' * me['user']['is_superuser']}"
    except Failure as failure:
        return fail("key", failure.sentence)
    return ok("key", whose)
