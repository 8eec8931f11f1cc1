"""`orch command`: what was asked of agents, and what became of it."""

import time
from typing import Any

import click

from orchestrator.cli.client import named
from orchestrator.cli.failures import BY_CODE, Exit, Failure
from orchestrator.cli.session import Session, in_project, of_stage
from orchestrator.cli.session import command as one_command
from orchestrator.cli.words import Seconds

COLUMNS = ("id", "verb", "state", "error", "agent_id", "reason", "requested_at")
STATES = ("queued", "applied", "rejected", "cancelled", "dead")
VERBS = ("spawn", "pause", "resume", "terminate", "update", "settle")


@click.group()
def command() -> None:
    """Follow what was asked of agents."""


@command.command()
@in_project
@click.option("--agent", "agent_id", help="Only those for this agent, by id.")
@click.option("--batch", "batch_id", help="Only those sent together in this batch, by id.")
@click.option("--state", type=click.Choice(STATES), help="Only those in this state.")
@click.option("--verb", type=click.Choice(VERBS), help="Only those with this verb.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many.")
@one_command
def ls(session: Session, project: str, limit: int, **wanted: Any) -> None:
    """List what was asked of a project's agents, newest first."""
    found = list(session.client.pages(f"{session.project(project)}/commands", limit, **wanted))
    session.show_all(found, COLUMNS)


@command.command()
@click.argument("command_id", metavar="COMMAND")
@in_project
@one_command
def get(session: Session, command_id: str, project: str) -> None:
    """Show a command as it stands."""
    command_id = named("command", command_id)
    session.show(session.client.get(f"{session.project(project)}/commands/{command_id}"))


@command.command()
@click.argument("command_id", metavar="COMMAND")
@click.option("--timeout", type=Seconds(), default=30.0, show_default=True, help="Seconds to wait.")
@of_stage
@in_project
@one_command
def wait(session: Session, command_id: str, timeout: float, stage: str, project: str) -> None:
    """Wait until a command is closed; the exit code says how it ended."""
    deadline = time.monotonic() + timeout
    command_id = named("command", command_id)
    found = session.client.get(f"{session.project(project)}/commands/{command_id}")
    found, reached = session.client.await_stage(found, deadline, stage)
    session.show(found)
    if not reached:
        raise Failure(_why_not(found, timeout), Exit.TOO_LONG)
    if found["state"] == "cancelled":
        raise Failure("the command was cancelled.", Exit.REFUSED)
    if found["error"] is not None:
        raise Failure(found["error"]["message"], BY_CODE.get(found["error"]["code"], Exit.FAILED))


def _why_not(command: dict[str, Any], timeout: float) -> str:
    if command["state"] == "queued":
        return f"still queued after {timeout:g} s; ask again, or see `orch doctor`."
    explain = f"orch agent explain {command['agent_id']} --project {command['project_id']}"
    return f"applied, but its process has not stopped after {timeout:g} s; ask again, or see `{explain}`."
