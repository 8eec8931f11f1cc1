"""What became of the command that was just sent: what the page behind it says of that, and how it can be undone."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from flask import request
from sqlalchemy import Connection

from orchestrator import overview
from orchestrator.holds import MANUAL
from orchestrator.lifecycle import Verb
from orchestrator.states import State

BACK = {Verb.PAUSE: Verb.RESUME, Verb.RESUME: Verb.PAUSE}
"""What undoes each verb that can be undone."""


class Told(NamedTuple):
    """A command's row; the verb that undoes it, while nothing else has happened to its agent; whose hold it was about;
    and whose holds it has left, which still keep the agent."""

    command: Any
    undo: Verb | None
    owner: str
    left: list[str]


def told(db: Connection, projects: Sequence[UUID]) -> Told | None:
    """The command that the address names as `done`; None for what the caller cannot see."""
    try:
        wanted = UUID(request.args.get("done", ""))
    except ValueError:
        return None
    rows, _ = overview.commands(db, projects, {"id": wanted}, None, 1)
    return _told(rows[0]) if rows else None


def _told(command: Any) -> Told:
    is_latest = command.state == State.APPLIED and command.version == command.agent_version
    undo = BACK.get(command.verb) if is_latest else None
    return Told(command, undo, command.payload.get("owner", MANUAL), _left(command))


def _left(command: Any) -> list[str]:
    if command.verb != Verb.RESUME:
        return []
    left = {hold["id"] for hold in command.holds_left or ()}
    return [hold["owner"] for hold in command.agent_holds or () if hold["id"] in left]
