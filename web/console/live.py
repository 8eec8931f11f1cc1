"""What is new, as it happens: the same event streams as the API's, for whoever has a session."""

from flask import Response, g, request

from orchestrator import feed
from orchestrator.db import autocommit
from orchestrator.feed import Scope, Wanted
from web import streams
from web.console import place
from web.console.door import bp


@bp.get("/live")
def live() -> Response:
    """The events of a project, or of all, from now on, or from where a stream was cut."""
    last = request.headers.get("Last-Event-ID") or request.args.get("after")
    with autocommit() as db:
        chosen = place.here(db).chosen
        owner = None if chosen or g.caller.is_superuser else g.caller.user_id
        scope = Scope((chosen.id,) if chosen else None, owner)
        at = feed.place(last, "Last-Event-ID") if last else feed.now(db)
    return streams.begin(scope, Wanted(), at)
