"""The console: the fleet as pages, for people. Made here and sent as HTML; what is alive on them comes over the same
event streams as the API's. It works without scripts, too."""

from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

from flask import Flask, g, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from orchestrator import __version__
from orchestrator.db import autocommit
from orchestrator.lifecycle import Status
from web.console import (  # noqa: F401  # their routes
    agents,
    assets,
    audit,
    charts,
    costs,
    crew,
    fleet,
    ledger,
    live,
    orders,
    place,
    settings,
    signing,
    tasks,
    words,
)
from web.console.door import bp

PAGES = {"fleet": "console.fleet", "commands": "console.commands", "costs": "console.costs", "audit": "console.audit"}
"""Those that can be about one project, or about all."""


@bp.get("/go")
def go() -> AnyResponse:
    """The same page of another project: where the list of projects leads without scripts, and a slug that was typed."""
    typed, page = request.args.get("slug", "").strip(), request.args.get("page", "")
    project = typed or request.args.get("project", "") or (_newest() if page == "agents" else "")
    if page == "agents" and project:
        return redirect(url_for("console.agents", project=project), 303)
    return redirect(url_for(PAGES.get(page, "console.fleet"), project=project or None), 303)


def _newest() -> str:
    """The slug of the newest project; empty where there is none."""
    with autocommit() as db:
        return next((project.slug for project in place.here(db).projects), "")


@bp.app_context_processor
def _known() -> dict[str, Any]:
    """What every page may use."""
    return {
        "address": assets.address,
        "caller": g.get("caller"),
        "mark": lambda: uuid4().hex,
        "query": _query,
        "statuses": list(Status),
        "version": __version__,
        "flower": tasks.address,
    }


def install(app: Flask) -> None:
    """Put the console's pages beside the API."""
    app.jinja_env.filters.update(words.FILTERS)
    app.register_blueprint(bp)


def _query(given: Any, **changes: str | None) -> str:
    """An address's query with some of it changed, and no cursor that belonged to the old one."""
    kept = {name: value for name, value in given.items() if value and name not in ("cursor", "done", "sent")}
    changed = {name: str(value) for name, value in (kept | changes).items() if value is not None}
    return urlencode(changed)
