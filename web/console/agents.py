"""The agents of a project: which there are, one of them and its story, and what is asked before all are sent a verb."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from flask import Response, g, make_response, redirect, render_template, request, url_for
from pydantic import ValidationError
from sqlalchemy import Connection, select
from werkzeug.wrappers import Response as AnyResponse

from orchestrator import fleet, matching, overview, queries
from orchestrator.db import autocommit
from orchestrator.errors import Invalid, Problem, Violation
from orchestrator.explain import explain
from orchestrator.fields import violations
from orchestrator.fleet import Filter
from orchestrator.lifecycle import Verb
from orchestrator.matching import Which
from orchestrator.models import agent_types
from orchestrator.states import State
from web.console import lines, pictures, place
from web.console.door import bp
from web.console.told import Told, told
from web.headers import path_id

ROWS, TOLD = 50, 200
"""Agents of a page; events of a story."""

STRIPS = {"1h": 1, "24h": 24, "7d": 168}
"""Hours that an agent's strip of states shows."""

BULK = ("pause", "resume", "terminate")
FILTERS = ("status", "type", "q", "batch")

NOBODY = fleet.Page([], None, ROWS, 0, total_is_at_least=False, more=False)


@bp.get("/p/<project>/agents")
def agents(project: str) -> Response:
    """The table."""
    return table(project)


def table(project: str, problem: Problem | None = None) -> Response:
    """The same, and what was wrong with what was sent."""
    with autocommit() as db:
        at = place.here(db, project)
        filters = given(request.args)
        page, wrong = place.tried(lambda: _page(db, at.ids[0], _wanted(filters)), NOBODY)
        shown = {"shown": page, "filters": filters, "types": _types(db), "batch": _batch(db, at.ids[0])}
        done, problem = told(db, at.ids), problem or wrong
    html = render_template(
        "console/agents.html", at=at, problem=problem, form=request.form, bulk=BULK, done=done, wrong=wrong,
        is_mine=pictures.is_mine, **shown, **place.stillness(wrong),
    )  # fmt: skip
    return make_response(html, problem.status if problem else 200)


@bp.get("/p/<project>/agents/bulk")
def ask(project: str) -> AnyResponse:
    """How many would be sent what; the reason, and the number, are asked for. The address of a form that was refused,
    asked for anew, has no verb."""
    if "verb" not in request.args:
        return redirect(url_for("console.agents", project=project), 303)
    return confirm(project)


def confirm(project: str, problem: Problem | None = None) -> Response:
    """The same, and what was wrong with the answer."""
    with autocommit() as db:
        at = place.here(db, project)
        asked = request.form or request.args
        if asked.get("verb") not in BULK:
            raise Invalid(Violation(f"can be {', '.join(BULK)}", "verb"))
        filters = given(asked)
        count = matching.count(db, at.ids[0], _wanted(filters))
    html = render_template(
        "console/bulk.html", at=at, problem=problem, verb=asked["verb"], count=count, filters=filters, form=request.form
    )
    return make_response(html, problem.status if problem else 200)


@bp.get("/a/<agent_id>")
def agent(agent_id: str) -> Response:
    """One agent and its story."""
    return show(path_id(agent_id, "agent"))


def show(agent_id: UUID, problem: Problem | None = None, verb: str = "") -> Response:
    """The same, and what was wrong with what was sent with that verb."""
    with autocommit() as db:
        row = overview.agent(db, g.caller, agent_id)
        at = place.here(db, str(row.project_id))
        story = overview.story(db, agent_id, TOLD)
        why = explain(db, row)
        done = told(db, [row.project_id])
    shown = {"agent": row, "story": story, "why": why, "done": done, **_pictures(row, story.events)}
    shown |= {"line": lines.change(row), "history": lines.history(row)}
    sent, form = (verb, request.form) if problem else _refused(done, row)
    html = render_template("console/agent.html", at=at, problem=problem, sent=sent, form=form, **shown)
    return make_response(html, problem.status if problem else 200)


def _refused(done: Told | None, agent: Any) -> tuple[str, Mapping[str, Any]]:
    """The verb of the command that was just sent, and its form as it was filled in, where a worker has refused an edit:
    nobody is to type that again."""
    if done is None or (done.command.verb, done.command.state) != (Verb.UPDATE, State.REJECTED):
        return "", {}
    now = {"name": agent.name, "current_task": agent.current_task or ""}
    typed = {name: done.command.payload.get(name, value) or "" for name, value in now.items()}
    return Verb.UPDATE, typed | {f"was_{name}": value for name, value in now.items()}


def _pictures(row: Any, events: Sequence[Any]) -> dict[str, Any]:
    name = request.args.get("strip", "24h")
    if name not in STRIPS:
        raise Invalid(Violation(f"can be {', '.join(STRIPS)}", "strip"))
    now = datetime.now(UTC)
    is_cut = len(events) == TOLD and events[-1].at > now - timedelta(hours=STRIPS[name])
    first = events[-1].at if events else row.created_at  # it is accepted before it is born, and in no status then
    since = max(now - timedelta(hours=STRIPS[name]), first)
    moved = (event.at for event in events if event.before != event.after)
    segments = pictures.strip(events, since, now, row.status)
    return {
        "since": next(moved, row.created_at),
        "is_cut": is_cut,
        "drawn_since": since if since == first else None,
        "looked_at": overview.LOOKED_AT,
        "strip": segments,
        "strips": STRIPS,
        "strip_name": name,
        "shares": pictures.shares(segments),
        "edges": pictures.diagram(row.status),
        "places": pictures.PLACES,
        "verbs": pictures.possible(row.status, row.holds),
    }


def given(values: Any) -> dict[str, str]:
    """The filters that an address or a form names, as they were typed."""
    return place.given(FILTERS, values)


def _wanted(filters: dict[str, str]) -> Filter:
    """Which agents these filters mean. Raises Invalid, as the API does, for what cannot be."""
    try:
        return Which.model_validate(filters).wanted()
    except ValidationError as error:
        raise Invalid(*violations(error)) from None


def _page(db: Connection, project_id: UUID, wanted: Filter) -> fleet.Page:
    rows, cursor = place.limit(ROWS), request.args.get("cursor")
    if cursor:
        return fleet.page_after(db, project_id, wanted, cursor, rows)
    return fleet.page(db, project_id, wanted, 1, rows)


def _types(db: Connection) -> Sequence[Any]:
    active = select(agent_types).where(agent_types.c.is_active).order_by(agent_types.c.name).limit(500)
    return db.execute(active).all()


def _batch(db: Connection, project_id: UUID) -> Any | None:
    """The batch that was just sent, and how far it has come."""
    try:
        return queries.batch(db, project_id, UUID(request.args.get("sent", "")))
    except ValueError:
        return None
