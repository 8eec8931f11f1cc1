"""What happened: one agent's history, and the feed without gap or repeat, by page or as it happens."""

from flask import Response, g, request
from flask_openapi3 import APIBlueprint, Tag
from sqlalchemy import Connection

from orchestrator import access, feed, fleet, queries
from orchestrator.db import autocommit
from orchestrator.feed import Position, Scope, Wanted
from web import answers, gate, params, schemas, streams
from web.docs import OPERATION_ID, responses

bp = APIBlueprint(
    "events",
    __name__,
    url_prefix=gate.PREFIX,
    abp_tags=[Tag(name="events", description="What happened.")],
    operation_id_callback=OPERATION_ID,
)

_FEED = responses({200: schemas.EventPage}, 404, 410, 422)
_FEED[200] = {
    "description": "A page; or, where `Accept: text/event-stream` asks for it, all that happens from now on, or from"
    " `Last-Event-ID` (or `after`) on, until one side hangs up.",
    "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/EventPage"}},
        streams.EVENT_STREAM: {"schema": {"type": "string"}},
    },
}


@bp.get("/projects/<project_id>/agents/<agent_id>/events", responses=responses({200: schemas.EventPage}, 404, 422))
def list_agent_events(path: params.AgentPath, query: params.AgentEventQuery) -> Response:
    """The agent's history, oldest first; go on with `after_version` = the last event's version."""
    with autocommit() as db:
        fleet.agent(db, g.caller, path.project_id, path.agent_id)
        rows, more = queries.agent_events(db, path.agent_id, query.after_version, query.limit)
    return answers.page(schemas.EventPage, map(answers.event, rows), str(rows[-1].version) if more else None)


@bp.get("/projects/<project_id>/events", responses=_FEED)
def list_project_events(path: params.ProjectPath, query: params.EventQuery) -> Response:
    """The project's events, oldest first; go on with `after` = the last event's cursor. As a stream where asked for."""
    with autocommit() as db:
        access.enter(db, g.caller, path.project_id)
        return _answer(db, Scope((path.project_id,), agent_id=query.agent_id), query)


@bp.get("/events", responses=_FEED)
def list_events(query: params.EventQuery) -> Response:
    """The events of all projects that the caller may see, oldest first. As a stream where asked for."""
    with autocommit() as db:
        owner = None if g.caller.is_superuser else g.caller.user_id
        return _answer(db, Scope(owner_id=owner, agent_id=query.agent_id), query)


def _answer(db: Connection, scope: Scope, query: params.EventQuery) -> Response:
    wanted = Wanted(query.verb, query.status)
    after = _after(query)
    if streams.is_asked_for():
        return streams.begin(scope, wanted, after or feed.now(db))
    rows, rest = feed.page(db, scope, after, query.limit, wanted)
    return answers.page(schemas.EventPage, map(answers.event, rows), rest and rest.cursor())


def _after(query: params.EventQuery) -> Position | None:
    """Where to go on: a stream that was cut says so in a header, and has the address it began with."""
    if streams.is_asked_for() and (last := request.headers.get("Last-Event-ID")):
        return feed.place(last, "Last-Event-ID")
    return None if query.after is None else feed.place(query.after, "after")
