"""The console's own gate: a session instead of a key, a same-origin check before anything changes, headers that let the
page load nothing from elsewhere, and errors as pages."""

import gzip
from contextlib import suppress

from flask import Blueprint, Response, g, make_response, redirect, render_template, request, url_for
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from orchestrator import logs
from orchestrator.db import autocommit
from orchestrator.errors import (
    Forbidden,
    Invalid,
    MethodNotAllowed,
    NotFound,
    Problem,
    TooLarge,
    Unauthenticated,
    UnsupportedMediaType,
    Violation,
)
from orchestrator.keys import PREFIXES, Caller
from orchestrator.states import KeyKind
from web import gate, problems
from web.console import way
from web.console.place import NOWHERE

COOKIE = "orch_session"

OPEN = frozenset({"console.sign_in", "console.begin_session", "console.asset"})
"""What needs no session."""

SAFE = ("GET", "HEAD", "OPTIONS")

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)

GZIP_FROM, GZIP_LEVEL = 1_000, 5

FORM, LARGEST = "application/x-www-form-urlencoded", 1 << 16
"""What a form is sent as, and how large it may be: several times the longest texts that are taken."""

TITLES = {
    401: "Signed out",
    403: "Not allowed",
    405: "Not possible there",
    422: "That cannot be",
    429: "Too much at once",
    500: "Something went wrong",
}
"""What a page is called that says what went wrong, where the API's title says less to people."""

HTML = "text/html"
_FORMS = ("application/problem+json", "application/json", HTML)
"""What an address that leads nowhere may be answered with: the first, where any will do."""


class LetOut(Forbidden):
    """Your user has been deactivated, and its sessions are over; a superuser can let you in again."""

    title = "Signed out"


bp = Blueprint("console", __name__, template_folder="templates")

log = logs.logger("web")


@bp.before_request
def _admit() -> AnyResponse | None:
    request.max_content_length = LARGEST
    if request.method not in SAFE:
        _demand_same_origin()
        _demand_a_form()
    _demand_text()
    if request.endpoint in OPEN:
        return None
    caller = _caller()
    if caller is None:
        return _to_the_door()
    g.caller = caller
    if request.method in SAFE:  # what is sent spends the limit of its verb
        gate.spend("console", str(caller.user_id))
    return None


@bp.after_request
def _close(response: Response) -> Response:
    response.headers.setdefault("Content-Security-Policy", CSP)
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["X-Frame-Options"] = "DENY"
    return _compressed(response)


@bp.errorhandler(Problem)
def _explain(problem: Problem) -> Response:
    log.warning("refused", status=problem.status, code=problem.code, method=request.method, endpoint=request.endpoint)
    return error_page(problem)


@bp.errorhandler(HTTPException)
def _explain_http(error: HTTPException) -> Response:
    if error.code == TooLarge.status:
        return error_page(TooLarge(f"a form may have {LARGEST} bytes"))
    return error_page(Invalid(Violation("the request cannot be understood")))


@bp.app_errorhandler(NotFound.status)
@bp.app_errorhandler(MethodNotAllowed.status)
def _explain_nowhere(error: HTTPException) -> Response:
    """A page for a browser that has gone astray; the API's answer for everybody else."""
    problem = problems.meant(error)
    if gate.is_behind(request.path) or request.accept_mimetypes.best_match(_FORMS) != HTML:
        return problems.answer(problem)
    return _close(_explain(problem))


@bp.errorhandler(Exception)
def _explain_surprise(error: Exception) -> Response:
    log.error("surprise", exc_info=error, method=request.method, endpoint=request.endpoint, **logs.cause(error))
    return error_page(Problem("something went wrong on our side; the request id finds it in the logs"))


def error_page(problem: Problem) -> Response:
    """A page that says what went wrong: with the way to all others for those who are signed in, and the way back to it
    for those who are not let in."""
    title = problem.title if isinstance(problem, LetOut) else TITLES.get(problem.status, problem.title)
    template = "wrong" if _is_known(problem) else "problem"
    page = render_template(
        f"console/{template}.html", at=NOWHERE, problem=problem, title=title, way=way.back(),
        is_out=isinstance(problem, LetOut | Unauthenticated), request_id=g.get("request_id", ""),
    )  # fmt: skip
    response = make_response(page, problem.status)
    problems.add_headers(response, problem)
    return response


def _is_known(problem: Problem) -> bool:
    """Whether whoever asks is signed in, where it is not known yet; nothing more is asked of a server in trouble."""
    if "caller" not in g and problem.status < Problem.status:
        with suppress(Problem):
            if caller := _caller():
                g.caller = caller
    return "caller" in g


def _demand_same_origin() -> None:
    """Raises Forbidden for what another site's page sends. Browsers say where a request comes from; those that do not
    send Sec-Fetch-Site (over plain HTTP, to another host than localhost) send an Origin with every POST."""
    site = request.headers.get("Sec-Fetch-Site")
    origin = f"{request.scheme}://{request.host}"
    if request.headers.get("Origin") != origin if site is None else site != "same-origin":
        raise Forbidden("this was sent by a page of another site; open the console itself, and do it there")


def _demand_a_form() -> None:
    if request.mimetype not in (FORM, ""):
        raise UnsupportedMediaType(f"a form must be sent as {FORM}")


def _demand_text() -> None:
    """Raises Invalid for what no field can hold, wherever it is: in the path, behind it, or in a form."""
    path = (request.view_args or {}).items()
    for name, value in (*path, *request.args.items(multi=True), *request.form.items(multi=True)):
        if "\0" in name + value:
            raise Invalid(Violation("must not contain NUL characters", name.replace("\0", "")))


def _caller() -> Caller | None:
    secret = request.cookies.get(COOKIE, "")
    if not secret.startswith(PREFIXES[KeyKind.SESSION]):
        return None
    known = gate.ring.recall(secret)
    if known is not None:
        return known
    try:
        with autocommit() as db:
            return gate.ring.look_up(db, secret)
    except Unauthenticated:
        return None
    except Forbidden:
        raise LetOut from None


def _to_the_door() -> AnyResponse:
    """A page is asked for again after the sign-in; what was sent is not, and what no page is says so."""
    if request.method not in SAFE or request.endpoint == "console.live":
        raise Unauthenticated("the session is over, and nothing was done; sign in, and you are back at the page")
    return redirect(url_for("console.sign_in", next=request.full_path.rstrip("?")), 303)


def _compressed(response: Response) -> Response:
    small = response.direct_passthrough or response.is_streamed or "Content-Encoding" in response.headers
    if small or not request.accept_encodings["gzip"] or (response.content_length or 0) < GZIP_FROM:
        return response
    response.set_data(gzip.compress(response.get_data(), GZIP_LEVEL))
    response.headers["Content-Encoding"] = "gzip"
    response.vary.add("Accept-Encoding")
    return response
