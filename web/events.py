"""What happened: one agent's history, and a project's feed without gap or repeat."""

from typing import Any

from flask import Response, g
from flask_openapi3 import APIBlueprint, Tag
from sqlalchemy import Row

from orchestrator import access, fleet, queries
from orchestrator.db import autocommit
from web import answers, gate, params, schemas
from web.docs import OPERATION_ID, responses

bp = APIBlueprint(
    "events",
    __name__,
    url_prefix=f"{gate.PREFIX}/projects/<project_id>",
    abp_tags=[Tag(name="events", description="What happened.")],
    operation_id_callback=OPERATION_ID,
)


@bp.get("/agents/<agent_id>/events", responses=responses({200: schemas.EventPage}, 404, 422))
def list_agent_events(path: params.AgentPath, query: params.AgentEventQuery) -> Response:
    """The agent's history, oldest first; go on with `after_version` = the last event's version."""
    with autocommit() as db:
        fleet.agent(db, g.caller, path.project_id, path.agent_id)
        rows, more = queries.agent_events(db, path.agent_id, query.after_version, query.limit)
    return answers.page(schemas.EventPage, map(_event, rows), str(rows[-1].version) if more else None)


@bp.get("/events", responses=responses({200: schemas.EventPage}, 404, 422))
def list_project_events(path: params.ProjectPath, query: params.EventQuery) -> Response:
    """The project's events, oldest first; go on with `after` = the last event's cursor."""
    with autocommit() as db:
        access.enter(db, g.caller, path.project_id)
        rows, more = queries.feed(db, path.project_id, query.after, query.limit)
    return answers.page(schemas.EventPage, map(_event, rows), queries.feed_cursor(rows[-1]) if more else None)


def _event(row: Row[Any]) -> dict[str, Any]:
    return row._asdict() | {"actor": answers.actor(row), "cursor": queries.feed_cursor(row)}
