"""Signing in, with a link that is good for once or with an API key, and signing out."""

import re

from flask import Response, g, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from orchestrator import sessions
from orchestrator.db import autocommit, begin
from orchestrator.errors import Forbidden, Unauthenticated
from orchestrator.sessions import Session
from web import gate
from web.console.door import COOKIE, LetOut, bp

LONGEST_KEY = 200

NO_KEY = "there is no such key, or it has been revoked; `orch key create` makes one"

_OURS = re.compile(r"/(?![/\\])[\x21-\x7e]*")


@bp.get("/login")
def sign_in() -> AnyResponse:
    """The page that asks for a key; or, with a link's token, for a click. Whoever only looks at a link, or is led here
    by another site, uses nothing up and is signed in as nobody."""
    return _ask()


@bp.post("/login")
def begin_session() -> AnyResponse:
    """A session for whoever has an API key, or the token of a link."""
    token, key = (request.form.get(name, "").strip()[:LONGEST_KEY] for name in ("t", "key"))
    try:
        with begin() as db:
            return _let_in(sessions.redeem(db, token) if token else sessions.sign_in(db, key))
    except Forbidden:
        return _refuse(LetOut().detail)
    except Unauthenticated as problem:
        return _refuse(problem.detail if token else NO_KEY)


@bp.post("/logout")
def sign_out() -> AnyResponse:
    """The end of this session, within a second everywhere."""
    with autocommit() as db:
        sessions.end(db, g.caller)
    response = redirect(url_for("console.sign_in"), 303)
    response.delete_cookie(COOKIE)
    return response


def _refuse(why: str) -> Response:
    gate.spend("anonymous", request.remote_addr or "unknown")  # whoever tries keys does so no faster here
    return _ask(why)


def _ask(problem: str | None = None) -> Response:
    token = None if problem else request.args.get("t")
    page = render_template("console/login.html", problem=problem, next=_next(), token=token)
    return make_response(page, 401 if problem else 200)


def _let_in(session: Session) -> AnyResponse:
    response = redirect(_next(), 303)
    response.set_cookie(
        COOKIE, session.secret, max_age=session.seconds, httponly=True, samesite="Lax", secure=request.is_secure
    )
    return response


def _next() -> str:
    """The page that was asked for; only ever one of ours."""
    wanted = request.values.get("next", "/")
    return wanted if _OURS.fullmatch(wanted) else "/"
