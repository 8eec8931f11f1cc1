"""`orch agent`: spawn, watch, change and end agents."""

from dataclasses import replace
from typing import Any

import click

from orchestrator.cli import bulk, explanation, outlet
from orchestrator.cli.client import APPLIED, QUIESCED, Manner, named
from orchestrator.cli.failures import Exit, Failure
from orchestrator.cli.fields import carried
from orchestrator.cli.session import Session, command, in_project, mutation, of_stage

COLUMNS = ("id", "name", "status", "agent_type_slug", "current_task", "tasks_completed", "tokens_used", "cost_incurred")
HISTORY = ("version", "at", "verb", "before", "after", "reason", "changes")
CLEARABLE = {
    "task": "current_task",
    "memory": "short_term_memory",
    "memory-ref": "long_term_memory_ref",
    "session": "session_id",
}
"""What `update --clear` calls the fields that may be empty."""

STATUSES = ("idle", "working", "waiting", "paused", "terminated")
MODES = ("drain", "checkpoint", "immediate")


@click.group()
def agent() -> None:
    """Spawn, watch, change and end agents."""


def _stop_fields(function: Any) -> Any:
    """The options for how an agent is stopped, and until which stage that is waited for."""
    for option in (
        of_stage,
        click.option(
            "--deadline", type=click.IntRange(1), metavar="SECONDS", help="After so long the stop becomes immediate."
        ),
        click.option("--mode", type=click.Choice(MODES), help="When its process stops; else at its next checkpoint."),
    ):
        function = option(function)
    return function


@agent.command()
@in_project
@click.option("--status", type=click.Choice(STATUSES), help="Only those in this status.")
@click.option("--type", "kind", help="Only those of this type, by slug or id.")
@click.option("-q", "prefix", help="Only those whose name begins so.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many.")
@command
def ls(session: Session, project: str, status: str | None, kind: str | None, prefix: str | None, limit: int) -> None:
    """List a project's agents, newest first."""
    path = f"{session.project(project)}/agents"
    found = list(session.client.pages(path, limit + 1, status=status, type=kind, q=prefix))
    session.show_all(found[:limit], COLUMNS)
    if len(found) > limit:
        outlet.say(f"orch: there are more than {limit}; ask for them with --limit.")


@agent.command()
@click.argument("agent_id", metavar="AGENT")
@in_project
@command
def get(session: Session, agent_id: str, project: str) -> None:
    """Show one agent."""
    session.show(session.client.get(_path(session, project, agent_id)))


@agent.command()
@click.argument("agent_id", metavar="AGENT")
@in_project
@command
def explain(session: Session, agent_id: str, project: str) -> None:
    """Say why an agent is not working right now, and what would change it."""
    found = session.client.get(f"{_path(session, project, agent_id)}/explain")
    session.show(found, explanation.tell)


@agent.command()
@click.argument("name")
@click.option("--type", "kind", required=True, help="Its type, by slug or id.")
@click.option("--unique-name", is_flag=True, help="Refuse where a live agent of the project has the name.")
@carried
@in_project
@mutation
@command
def spawn(
    session: Session, name: str, kind: str, unique_name: bool, project: str, manner: Manner, **fields: Any
) -> None:
    """Bring an agent to life."""
    path = f"{session.project(project)}/agents"
    body = {"name": name, "agent_type_id": session.type_id(kind), **_given(fields)}
    _send(session, "POST", path, body | ({"unique_name": True} if unique_name else {}), manner)


@agent.command()
@click.argument("agent_id", metavar="[AGENT]", required=False)
@click.option("--owner", help="Whose hold it is; manual where nobody is named.")
@click.option("--until", help="When it is lifted by itself, such as 2026-01-31T12:00:00Z.")
@_stop_fields
@in_project
@bulk.where
@mutation
@command
def pause(
    session: Session, agent_id: str | None, project: str, which: tuple[str, ...], yes: bool, stage: str,
    manner: Manner, **order: Any,
) -> None:  # fmt: skip
    """Stop an agent, or many: put a hold on each, until that is lifted."""
    if bulk.is_for_many(agent_id, which, yes, stage):
        bulk.send(session, project, {"verb": "pause"} | _given(order), which, yes, manner)
    else:
        path = f"{_path(session, project, agent_id or '')}/pause"
        _send(session, "POST", path, _given(order), _until(stage, manner))


@agent.command()
@click.argument("agent_id", metavar="[AGENT]", required=False)
@click.option("--owner", help="Whose hold to lift; the manual one where nobody is named.")
@in_project
@bulk.where
@mutation
@command
def resume(
    session: Session, agent_id: str | None, project: str, which: tuple[str, ...], yes: bool, manner: Manner, **hold: Any
) -> None:
    """Lift a hold, of one agent or of many; after the last one an agent goes on, as idle."""
    if bulk.is_for_many(agent_id, which, yes, APPLIED):
        bulk.send(session, project, {"verb": "resume"} | _given(hold), which, yes, manner)
    else:
        _send(session, "POST", f"{_path(session, project, agent_id or '')}/resume", _given(hold), manner)


@agent.command()
@click.argument("agent_id", metavar="[AGENT]", required=False)
@_stop_fields
@in_project
@bulk.where
@mutation
@command
def terminate(
    session: Session, agent_id: str | None, project: str, which: tuple[str, ...], yes: bool, stage: str,
    manner: Manner, **order: Any,
) -> None:  # fmt: skip
    """End an agent for good, or many."""
    if bulk.is_for_many(agent_id, which, yes, stage):
        bulk.send(session, project, {"verb": "terminate"} | _given(order), which, yes, manner)
    else:
        _send(session, "DELETE", _path(session, project, agent_id or ""), _given(order), _until(stage, manner))


@agent.command()
@click.argument("agent_id", metavar="AGENT")
@click.option("--status", type=click.Choice(STATUSES), help="Where to move it.")
@click.option("--name", help="Its new name.")
@click.option("--clear", type=click.Choice(list(CLEARABLE)), multiple=True, help="Empty a field; may be repeated.")
@click.option("--if-version", type=click.IntRange(1), help="Only if it still has this version.")
@carried
@in_project
@mutation
@command
def update(
    session: Session,
    agent_id: str,
    project: str,
    clear: tuple[str, ...],
    if_version: int | None,
    manner: Manner,
    **fields: Any,
) -> None:
    """Change an agent's fields, its status among them; what is not named stays."""
    body = _given(fields) | {CLEARABLE[name]: None for name in clear}
    if not body:
        raise click.UsageError("say what to change, such as --status working")
    headers = {"If-Match": f'"{if_version}"'} if if_version else {}
    _send(session, "PATCH", _path(session, project, agent_id), body, manner, **headers)


@agent.command()
@click.argument("agent_id", metavar="AGENT")
@click.option("--after-version", type=click.IntRange(0), default=0, help="Only what came after this version.")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="At most so many.")
@in_project
@command
def history(session: Session, agent_id: str, after_version: int, limit: int, project: str) -> None:
    """Show what happened to an agent, oldest first."""
    path = f"{_path(session, project, agent_id)}/events"
    events: list[dict[str, Any]] = []
    while len(events) < limit:
        items, more = session.client.page(path, after_version=after_version, limit=min(100, limit - len(events)))
        events += items
        if more is None or not items:
            break
        after_version = events[-1]["version"]
    session.show_all(events, HISTORY)


def _path(session: Session, project: str, agent_id: str) -> str:
    agent_id = named("agent", agent_id)
    return f"{session.project(project)}/agents/{agent_id}"


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _send(session: Session, method: str, path: str, body: dict[str, Any], manner: Manner, **headers: str) -> None:
    """Send a mutation and show what came of it."""
    document, settled = session.client.command(method, path, body, manner, **headers)
    session.show(document)
    if manner.wait and not settled:
        raise Failure(_why_not(document, manner), Exit.TOO_LONG)


def _until(stage: str, manner: Manner) -> Manner:
    if stage == QUIESCED and not manner.wait:
        raise click.UsageError("--quiesced is about waiting: leave out --no-wait")
    return replace(manner, stage=stage)


def _why_not(command: dict[str, Any], manner: Manner) -> str:
    """What is not there yet of a command that was waited for, and how to wait on."""
    again = f"orch command wait {command['id']} --project {command['project_id']}"
    if command["state"] == "queued":
        return f"not applied within {manner.wait:g} s; it will be: `{again}` waits on."
    return f"applied, but its process has not stopped within {manner.wait:g} s; `{again} --quiesced` waits on."
