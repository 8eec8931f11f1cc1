"""What is new, as it happens: the same event streams as the API's, for whoever has a session."""

from flask import Response, g, request
from sqlalchemy import Connection

from orchestrator import feed, overview
from orchestrator.db import autocommit
from orchestrator.feed import Scope, Wanted
from web import streams
from web.console import place
from web.console.door import bp
from web.headers import path_id


@bp.get("/live")
def live() -> Response:
    """The events of an agent, of a project, or of all, from now on, or from where a stream was cut."""
    last = request.headers.get("Last-Event-ID") or request.args.get("after")
    with autocommit() as db:
        scope = _scope(db)
        at = feed.place(last, "Last-Event-ID") if last else feed.now(db)
    return streams.begin(scope, Wanted(), at)


def _scope(db: Connection) -> Scope:
    """Whose events the address names. Raises NotFound for an agent or a project that the caller cannot see."""
    if "agent" in request.args:
        row = overview.agent(db, g.caller, path_id(request.args["agent"], "agent"))
        return Scope((row.project_id,), None, row.id)
    chosen = place.here(db).chosen
    owner = None if chosen or g.caller.is_superuser else g.caller.user_id
    return Scope((chosen.id,) if chosen else None, owner)
