"""One renderer for every error: problem+json (RFC 9457), whatever raised it."""

import json
from typing import Any

from flask import Flask, Response, g, request
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as WrongMethod

from orchestrator import access, idempotency, logs
from orchestrator.db import autocommit
from orchestrator.errors import (
    Invalid,
    KeyReused,
    MalformedJson,
    MethodNotAllowed,
    NotFound,
    Problem,
    TooLarge,
    Unauthenticated,
    UnsupportedMediaType,
    Violation,
)
from orchestrator.fields import violations
from web import headers

log = logs.logger("web")

_ABOUT_THE_REQUEST = (Invalid, MalformedJson, TooLarge, UnsupportedMediaType)


def install(app: Flask) -> None:
    """Let the app answer every error through here."""
    app.register_error_handler(Problem, answer)
    app.register_error_handler(HTTPException, _answer_http)
    app.register_error_handler(Exception, _answer_surprise)


def invalid(error: ValidationError) -> Response:
    """The framework's callback for a path, query or body that does not validate; raises what it means."""
    in_path = request.view_args or {}
    for e in error.errors():  # a body may have a field of the same name; the path is read first
        name = str(e["loc"][0]) if e["loc"] else ""
        if name in in_path and e["input"] == in_path[name]:
            raise _no_such(name, e["input"])
    raise Invalid(*violations(error))


def render(problem: Problem) -> Response:
    """The answer that says this problem."""
    document = {
        "type": "about:blank",
        "title": problem.title,
        "status": problem.status,
        **({} if problem.status == Problem.status else {"detail": problem.detail}),
        "instance": request.path,
        "request_id": g.get("request_id", ""),
        "success": False,
        "errors": [{"code": problem.code, "message": v.message, "field": v.field} for v in problem.violations],
    }
    extra = {name: value for name, value in problem.extra.items() if name not in ("retry_after", "allow")}
    response = Response(json.dumps(document | extra), problem.status, content_type="application/problem+json")
    add_headers(response, problem)
    return response


def meant(error: HTTPException) -> Problem:
    """The problem that one of the framework's own errors stands for."""
    if isinstance(error, WrongMethod):
        allow = sorted({*(error.valid_methods or ()), "OPTIONS"})  # which is answered everywhere
        return MethodNotAllowed(f"{request.method} is not possible here, but {', '.join(allow)}", allow=allow)
    if error.code == NotFound.status:
        return NotFound(f"there is nothing at {request.path}")
    if error.code == TooLarge.status:
        return TooLarge()
    return Invalid(Violation("the request cannot be understood"))


def add_headers(response: Response, problem: Problem) -> None:
    """What HTTP says of it beside its status."""
    if "retry_after" in problem.extra:
        response.headers["Retry-After"] = str(problem.extra["retry_after"])
    if "allow" in problem.extra:
        response.headers["Allow"] = ", ".join(problem.extra["allow"])
    if isinstance(problem, Unauthenticated):
        response.headers["WWW-Authenticate"] = "Bearer"


def answer(problem: Problem) -> Response:
    """Say it, in the logs as well; or, of a wrong body, what is wrong before it is even looked at."""
    problem = _foremost(problem)
    why = logs.cause(problem) if problem.status >= Problem.status else {}
    log.warning(
        "refused", status=problem.status, code=problem.code, method=request.method, endpoint=request.endpoint, **why
    )
    return render(problem)


def _foremost(problem: Problem) -> Problem:
    """A body is read before the database is asked; yet a hidden project, or a used key, is what must be answered."""
    if not isinstance(problem, _ABOUT_THE_REQUEST) or "caller" not in g:
        return problem
    try:
        _look_before_the_body()
    except Problem as earlier:
        return earlier
    return problem


def _look_before_the_body() -> None:
    project_id = (request.view_args or {}).get("project_id")
    with autocommit() as db:
        if project_id is not None:
            access.enter(db, g.caller, headers.path_id(project_id, "project_id"))
        if request.method in headers.KEYED and idempotency.used(db, g.caller, headers.idempotency_key()):
            raise KeyReused


def _answer_http(error: HTTPException) -> Response:
    return answer(meant(error))


def _answer_surprise(error: Exception) -> Response:
    log.error("surprise", exc_info=error, method=request.method, endpoint=request.endpoint, **logs.cause(error))
    return render(Problem("something went wrong on our side; the request id finds it in the logs"))


def _no_such(name: str, value: Any) -> NotFound:
    noun = {"type_id": "agent type"}.get(name, name.removesuffix("_id"))
    where = " in this project" if noun in ("agent", "command", "batch", "issue") else ""
    return NotFound(f"there is no {noun} {value}{where}")
