"""How rows become answers: one way to render, and the two answers a mutation can have."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from flask import Response, after_this_request, g
from pydantic import BaseModel
from sqlalchemy import Row

from orchestrator import feed, logs, queries
from orchestrator.accept import Accepted
from orchestrator.db import autocommit
from orchestrator.errors import Conflict, Problem, no_agent, recall
from orchestrator.states import State
from web import gate, headers, schemas
from web.waiters import waiters
from workers import bell

log = logs.logger("web")

Render = Callable[[Any], Response]
"""From an agent's row to the answer."""


class Outcome(NamedTuple):
    """A command, and its agent where it can be seen, as they stand now: rows."""

    command: Any
    agent: Any | None


def reply(shape: BaseModel, status: int = 200, **more: str) -> Response:
    """An answer of this shape."""
    return Response(shape.model_dump_json(), status, headers=more, content_type="application/json")


def actor(row: Row[Any]) -> dict[str, Any]:
    """Who asked for this command or made this event."""
    return {"type": row.actor_type, "id": row.actor_id}


def event(row: Row[Any]) -> dict[str, Any]:
    """An event's row as its public shape has it."""
    return row._asdict() | {"actor": actor(row), "cursor": feed.position(row).cursor()}


def command_shape(row: Row[Any]) -> schemas.Command:
    """A command's row as its public shape."""
    return schemas.Command.model_validate(row._asdict() | {"actor": actor(row), "requested_at": row.created_at})


def conclude(accepted: Accepted, render: Render, status: int = 200, until: str = "applied") -> Response:
    """Ring, wait as long as the request prefers, and answer: with `render`'s agent, the refusal, or 202."""
    command = accepted.command
    bell.ring()
    if not accepted.replayed:
        log.info("command_accepted", command_id=str(command.id), agent_id=str(command.agent_id), verb=command.verb)
    after_this_request(lambda response: mark_wait(replayable(response, accepted.replayed)))  # a refusal's, too
    seconds = headers.wait()
    latest = await_stage(command, seconds, until)
    return _settled(latest, render, status) if seconds and _reached(latest, until) else pending(latest.command)


def replayable(response: Response, replayed: bool) -> Response:
    """Say so where an earlier request with the same Idempotency-Key made what is answered."""
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return response


def mark_wait(response: Response) -> Response:
    """Echo the wait this request preferred."""
    preferred = headers.preferred_wait()
    if preferred is not None:
        response.headers["Preference-Applied"] = f"wait={preferred:g}"
    return response


def await_stage(command: Row[Any], seconds: float, until: str) -> Outcome:
    """The command and its agent as soon as it is closed and, where `until` is "quiesced", no stop of it is under way;
    or as they are after so many seconds, as far as is known."""
    latest = [Outcome(command, None)]

    def done() -> bool:
        latest[0] = _outcome(command)
        return _reached(latest[0], until)

    if seconds and not (command.state != State.QUEUED and done()):
        waiters().wait(command.id, seconds, done)
    return latest[0]


def _reached(outcome: Outcome, until: str) -> bool:
    if outcome.command.state == State.QUEUED:
        return False
    stop = outcome.agent and outcome.agent.stop
    return until == "applied" or not stop or str(outcome.command.id) not in stop["commands"]


def page(shape: type[BaseModel], rows: Iterable[Any], next_cursor: str | None) -> Response:
    """A page by cursor; `shape` is the page's model."""
    items = [row if isinstance(row, dict | BaseModel) else row._asdict() for row in rows]
    return reply(shape.model_validate({"data": items, "pagination": {"next_cursor": next_cursor}}))


def _outcome(command: Row[Any]) -> Outcome:
    with autocommit() as db:
        return Outcome(*queries.outcome(db, g.caller, command))


def _settled(closed: Outcome, render: Render, status: int) -> Response:
    if closed.command.state != State.APPLIED:
        raise _failure(closed.command)
    if closed.agent is None:
        raise no_agent(closed.command.agent_id)
    response = render(closed.agent)
    response.status_code = status
    return response


def _failure(command: Row[Any]) -> Problem:
    if command.state == State.CANCELLED:
        return Conflict(f"command {command.id} was cancelled", command_id=str(command.id))
    return recall(command.error, command_id=str(command.id))


def pending(command: Row[Any]) -> Response:
    """202: the command as it stands, and where to follow it."""
    location = f"{gate.PREFIX}/projects/{command.project_id}/commands/{command.id}"
    return reply(command_shape(command), 202, Location=location)
