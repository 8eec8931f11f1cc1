"""What a page does, as lines for a terminal: made of what there is and what may be done, so that each can be run."""

import json
from collections.abc import Sequence
from itertools import count
from shlex import join, quote
from typing import Any, NamedTuple

from flask import g, request
from sqlalchemy import Connection, Table, select

from orchestrator.lifecycle import Status
from orchestrator.models import agent_types, projects
from orchestrator.states import ProjectStatus
from web.console.pictures import is_mine
from web.console.place import Place
from web.gate import PREFIX

AGENT, PROJECT, TYPE = "scout-01", "Demo", "Researcher"
"""What the first of each is called."""


class Change(NamedTuple):
    """A pause or a resume of an agent: with the command line, and with curl."""

    orch: str
    curl: str


def change(agent: Any) -> Change | None:
    """What stops an agent, or lets it go on; None where it has ended."""
    if agent.status == Status.TERMINATED:
        return None
    verb = "resume" if agent.status == Status.PAUSED else "pause"
    owner = {} if verb == "pause" or is_mine(agent.holds) else {"owner": agent.holds[0]["owner"]}
    named = [f"--{name}={value}" for name, value in owner.items()]
    line = join(["orch", "agent", verb, str(agent.id), "-p", agent.project_slug, *named, "--reason", ""])
    address = f"{request.host_url.rstrip('/')}{PREFIX}/projects/{agent.project_id}/agents/{agent.id}/{verb}"
    body = quote(json.dumps({"reason": ""} | owner))
    key = '-H "Authorization: Bearer $ORCH_API_KEY"'
    return Change(line, f"curl {key} -H 'Content-Type: application/json' {quote(address)} -d {body}")


def history(agent: Any) -> str:
    """What shows all that has happened to an agent: as many events as it has versions."""
    return join(["orch", "agent", "history", str(agent.id), "-p", agent.project_slug, "--limit", str(agent.version)])


class Steps(NamedTuple):
    """The lines that lead to a first agent; `needs_type` where another one has to make an agent type before."""

    lines: Sequence[str]
    needs_type: bool


def first_steps(db: Connection, at: Place) -> Steps:
    """From what there is to a first agent, in the chosen project or one of the caller's; what there is not is made."""
    lines = [f"export ORCH_URL={quote(request.host_url.rstrip('/'))} ORCH_API_KEY=…"]
    project, kind = _project(at), _type(db)
    if kind is None and g.caller.is_superuser:
        kind = _free(db, agent_types, TYPE)
        lines.append(join(["orch", "type", "create", TYPE, "--slug", kind]))
    if project is None:
        project = _free(db, projects, PROJECT)
        lines.append(join(["orch", "project", "create", PROJECT, "--slug", project]))
    if kind is not None:
        lines.append(join(["orch", "agent", "spawn", AGENT, "-p", project, "--type", kind]))
    return Steps(lines, needs_type=kind is None)


def _project(at: Place) -> str | None:
    """The slug of one that takes new agents: the chosen one before any other."""
    candidates = [at.chosen, *at.projects] if at.chosen else at.projects
    return next((each.slug for each in candidates if each.status == ProjectStatus.ACTIVE), None)


def _type(db: Connection) -> str | None:
    newest = select(agent_types.c.slug).where(agent_types.c.is_active).order_by(agent_types.c.id.desc()).limit(1)
    return db.execute(newest).scalar_one_or_none()


def _free(db: Connection, table: Table, name: str) -> str:
    """A slug that nobody has, made of a name: another user's are not to be seen, and taken all the same."""
    slug = name.lower()
    taken = set(db.execute(select(table.c.slug).where(table.c.slug.startswith(slug))).scalars())
    return next(each for n in count(1) if (each := f"{slug}-{n}" if n > 1 else slug) not in taken)
