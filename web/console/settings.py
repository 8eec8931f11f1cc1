"""What agents live among: keys, agent types, projects and, for superusers, users."""

import json
from collections.abc import Callable
from typing import Any

from flask import Response, g, make_response, redirect, render_template, request, url_for
from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection, select
from werkzeug.wrappers import Response as AnyResponse

from orchestrator import access, directory, idempotency
from orchestrator.db import autocommit, begin
from orchestrator.errors import Invalid, NotFound, Problem
from orchestrator.fields import violations
from orchestrator.idempotency import Once
from orchestrator.models import agent_types, api_keys, users
from orchestrator.rows import jsonb
from web import gate
from web.console import marks, place
from web.console.door import bp
from web.headers import path_id
from web.people import KeyRequest, NewUser
from web.projects import NewAgentType, NewProject

SHOWN = 100

Change = Callable[[Connection, Any, Once | None], None]
"""Of the thing with this id, once for each mark."""


@bp.get("/settings")
def settings() -> Response:
    """The page."""
    return _show()


@bp.post("/settings/<kind>")
def create(kind: str) -> AnyResponse:
    """A new key, type, project or user. A key's secret is shown on this page alone."""
    if kind not in _MAKERS:
        raise NotFound(f"there is nothing at {request.path}")
    shape, make = _MAKERS[kind]
    try:
        gate.spend("admin", str(g.caller.user_id))
        values = _read(shape)
        with begin() as db:
            made = make(db, values, marks.once(json.dumps(values, default=str)))
    except Problem as problem:
        return _show(marks.plain(problem), sent=kind)
    if kind == "keys":
        return _show(secret=made, was_shown=made is None)
    return redirect(url_for("console.settings", _anchor=kind), 303)


@bp.post("/settings/<kind>/<id_>/<verb>")
def change(kind: str, id_: str, verb: str) -> AnyResponse:
    """Revoke a key, archive a project, put a type or a user out of use, or back."""
    if (kind, verb) not in _CHANGES:
        raise NotFound(f"there is nothing at {request.path}")
    try:
        gate.spend("admin", str(g.caller.user_id))
        with begin() as db:
            _CHANGES[kind, verb](db, path_id(id_, kind.removesuffix("s")), marks.once())
    except Problem as problem:
        return _show(marks.plain(problem))
    return redirect(url_for("console.settings", _anchor=kind), 303)


def _show(
    problem: Problem | None = None, sent: str = "", secret: str | None = None, was_shown: bool = False
) -> Response:
    with autocommit() as db:
        at = place.here(db)
        keys, _ = directory.listed(db, api_keys, directory.own_keys(g.caller, None), None, SHOWN)
        types, _ = directory.listed(db, agent_types, True, None, SHOWN)
        own = db.execute(select(api_keys.c.parent_id).where(api_keys.c.id == g.caller.key_id)).scalar_one_or_none()
        people = directory.listed(db, users, True, None, SHOWN)[0] if g.caller.is_superuser else None
    html = render_template(
        "console/settings.html", at=at, keys=keys, types=types, users=people, problem=problem, sent=sent, secret=secret,
        was_shown=was_shown, own=own, form=request.form,
    )  # fmt: skip
    return make_response(html, problem.status if problem else 200)


def _read(shape: type[BaseModel]) -> dict[str, Any]:
    given: dict[str, Any] = {name: value for name, value in request.form.items() if value.strip() and name != "once"}
    if "is_superuser" in given:
        given["is_superuser"] = given["is_superuser"] == "on"
    try:
        return shape.model_validate(given).model_dump(exclude_none=True)
    except ValidationError as error:
        raise Invalid(*violations(error)) from None


def _make_key(db: Connection, values: dict[str, Any], once: Once | None) -> str | None:
    """Its secret; None where this form has made it before, for a secret is kept nowhere."""
    if idempotency.claim(db, g.caller, once, answer=jsonb({})):
        return None
    return directory.create_key(db, g.caller, values)[1]


def _make_user(db: Connection, values: dict[str, Any], once: Once | None) -> Any:
    access.demand_superuser(g.caller)
    return directory.create_user(db, g.caller, once, values)


def _make_type(db: Connection, values: dict[str, Any], once: Once | None) -> Any:
    access.demand_superuser(g.caller)
    return directory.create_type(db, g.caller, once, values)


def _make_project(db: Connection, values: dict[str, Any], once: Once | None) -> Any:
    return directory.create_project(db, g.caller, once, values)


def _revoke(db: Connection, key_id: Any, once: Once | None) -> None:
    directory.revoke_key(db, g.caller, once, key_id)


def _project(status: str) -> Change:
    def become(db: Connection, project_id: Any, once: Once | None) -> None:
        directory.change_project(db, g.caller, once, project_id, {"status": status})

    return become


def _put(function: Callable[..., Any], is_active: bool) -> Change:
    def become(db: Connection, id_: Any, once: Once | None) -> None:
        access.demand_superuser(g.caller)
        function(db, g.caller, once, id_, {"is_active": is_active})

    return become


_MAKERS: dict[str, tuple[type[BaseModel], Callable[[Connection, dict[str, Any], Once | None], Any]]] = {
    "keys": (KeyRequest, _make_key),
    "types": (NewAgentType, _make_type),
    "projects": (NewProject, _make_project),
    "users": (NewUser, _make_user),
}

_CHANGES: dict[tuple[str, str], Change] = {
    ("keys", "revoke"): _revoke,
    ("projects", "archive"): _project("archived"),
    ("projects", "activate"): _project("active"),
    ("types", "deactivate"): _put(directory.change_type, False),
    ("types", "activate"): _put(directory.change_type, True),
    ("users", "deactivate"): _put(directory.change_user, False),
    ("users", "activate"): _put(directory.change_user, True),
}
