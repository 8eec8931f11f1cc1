"""What every request passes before its view: an id, a caller, a limit, a superuser's right. In that order."""

import re
from http import HTTPStatus
from uuid import uuid4

import structlog
from flask import Flask, Response, g, request

from orchestrator import access, limits, logs
from orchestrator.db import autocommit
from orchestrator.errors import Forbidden, NotFound, Problem, RateLimited, Unauthenticated, no_agent
from orchestrator.keys import PREFIXES, Caller, KeyRing
from orchestrator.lifecycle import Status
from orchestrator.states import KeyKind
from web.headers import path_id

PREFIX = "/api/v1"

ACTIONS = {
    "agents.spawn_agent": "spawn",
    "agents.list_project_agents": "list",
    "agents.get_project_agent_metrics": "metrics",
    "agents.get_agent": "get",
    "agents.update_agent": "update",
    "agents.pause_agent": "pause",
    "agents.resume_agent": "resume",
    "agents.terminate_agent": "terminate",
    "agents.get_agent_metrics": "agent_metrics",
    "leases.lease_agent": "lease",
    "leases.release_lease": "lease",
    "leases.beat": "lease",
    "leases.beat_many": "lease",
    "leases.explain_agent": "get",
    "commands.get_command": "command",
    "commands.list_commands": "command",
    "commands.cancel_command": "command",
    "commands.send_commands": "bulk",
    "commands.send_matching": "bulk",
    "commands.get_batch": "command",
    "events.list_agent_events": "event",
    "events.list_project_events": "event",
    "events.list_events": "event",
    "usage.report_agent_usage": "usage",
    "usage.report_project_usage": "usage",
    "usage.get_usage": "admin",
    "people.get_me": "admin",
    "people.create_user": "admin",
    "people.list_users": "admin",
    "people.get_user": "admin",
    "people.change_user": "admin",
    "people.create_key": "admin",
    "people.list_keys": "admin",
    "people.revoke_key": "admin",
    "projects.create_project": "admin",
    "projects.list_projects": "admin",
    "projects.get_project": "admin",
    "projects.change_project": "admin",
    "projects.create_agent_type": "admin",
    "projects.list_agent_types": "admin",
    "projects.get_agent_type": "admin",
    "projects.change_agent_type": "admin",
    "projects.create_issue": "admin",
    "projects.list_issues": "admin",
    "projects.get_issue": "admin",
    "projects.change_issue": "admin",
    "ops.verify": "admin",
}
"""Which limit each endpoint spends. Every endpoint under PREFIX is here; a test sees to it."""

SUPERUSERS_ONLY = frozenset(
    {
        "people.create_user",
        "people.list_users",
        "people.get_user",
        "people.change_user",
        "projects.create_agent_type",
        "projects.change_agent_type",
        "ops.verify",
    }
)
"""Refused to others before path, query and body are read: they learn nothing about what is there."""

OPEN_TO_TOKENS = frozenset({"leases.beat", "leases.release_lease", "usage.report_agent_usage"})
"""What the token of a lease is good for, and for its own agent alone: an agent cannot resume itself."""

_AS_IF = {Status.PAUSED.value: "pause", Status.TERMINATED.value: "terminate"}
"""A PATCH to one of these statuses is that verb by another door, and spends its limit."""

_BEARER = re.compile(rf"Bearer +((?!{PREFIXES[KeyKind.SESSION]})[\x21-\x7e]{{1,200}})", re.IGNORECASE)
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,100}")

ring = KeyRing()

log = logs.logger("web")


def install(app: Flask) -> None:
    """Put the gate before every route of the app."""
    app.before_request(_name)
    app.before_request(_admit)
    app.after_request(_sign)


def _name() -> None:
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


def is_behind(path: str) -> bool:
    """Whether it is an address of the API's, be there something or not."""
    return path == PREFIX or path.startswith(PREFIX + "/")


def _admit() -> Response | None:
    if not is_behind(request.path):
        return None
    g.caller = _caller()
    _keep_to_its_agent(g.caller)
    action = _action()
    if action is not None:
        spend(action, str(g.caller.user_id))
    if request.endpoint in SUPERUSERS_ONLY:
        access.demand_superuser(g.caller)
    return None


def _caller() -> Caller:
    match = _BEARER.fullmatch(request.headers.get("Authorization", ""))
    if match is None:
        _count_failure()
        raise Unauthenticated
    known = ring.recall(match[1])
    if known is not None:
        return known
    try:
        with autocommit() as db:
            return ring.look_up(db, match[1])
    except (Unauthenticated, Forbidden):
        _count_failure()
        raise


def _keep_to_its_agent(caller: Caller) -> None:
    tenure = caller.tenure
    if tenure is None or request.endpoint is None:
        return
    if request.endpoint not in OPEN_TO_TOKENS:
        raise Forbidden("an agent's token is good only for its own beats, release and usage")
    place = request.view_args or {}
    if path_id(place["project_id"], "project") != tenure.project_id:
        raise NotFound(f"there is no project {place['project_id']}")
    if path_id(place["agent_id"], "agent") != tenure.agent_id:
        raise no_agent(path_id(place["agent_id"], "agent"))


def _count_failure() -> None:
    """Failed keys are limited by address; a valid key from there still passes."""
    spend("anonymous", request.remote_addr or "unknown")


def _action() -> str | None:
    action = ACTIONS.get(request.endpoint or "")
    if action == "update":
        return _AS_IF.get(_wanted_status(), action)
    return action


def _wanted_status() -> str:
    try:
        status = (request.get_json() or {}).get("status")
    except Problem:  # the view will say what is wrong with the body
        return ""
    return status if isinstance(status, str) else ""


def spend(action: str, who: str) -> None:
    """One request of `who`; raises RateLimited where there are none left."""
    g.spent = spent = limits.spend(action, who)
    if spent is not None and not spent.allowed:
        allowed = f"{spent.limit.quota} {spent.limit.action} requests per {spent.limit.window} s are allowed"
        raise RateLimited(f"{allowed}; try again in {spent.reset} s", retry_after=spent.reset)


def _sign(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.get("request_id", "")
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    if response.status_code == HTTPStatus.NO_CONTENT:
        del response.headers["Content-Type"]  # Flask's is HTML's
    spent = g.get("spent")
    if spent is not None:
        limit = spent.limit
        response.headers["RateLimit-Policy"] = f'"{limit.action}";q={limit.quota};w={limit.window}'
        response.headers["RateLimit"] = f'"{limit.action}";r={spent.remaining};t={spent.reset}'
    if request.method in ("GET", "HEAD") and "caller" in g and response.status_code < HTTPStatus.BAD_REQUEST:
        log.debug("read", endpoint=request.endpoint, status=response.status_code)
    structlog.contextvars.clear_contextvars()
    return response
