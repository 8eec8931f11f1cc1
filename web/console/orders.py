"""What people do here: commands for one agent, for all that match, and births. The same orders as the API's, and the
same functions that accept them."""

from typing import Any, TypeVar

from flask import g, redirect, request, url_for
from pydantic import ValidationError
from sqlalchemy import Row
from werkzeug.wrappers import Response as AnyResponse

from orchestrator import accept, cursors, logs, overview
from orchestrator.accept import Conditions
from orchestrator.db import autocommit, begin
from orchestrator.errors import Invalid, NotFound, Problem, Violation
from orchestrator.fields import violations
from orchestrator.idempotency import Once
from orchestrator.lifecycle import Verb
from orchestrator.matching import ByFilter, accept_matching
from orchestrator.orders import ORDERS, Order, Spawn, Update
from web import answers, gate
from web.console import agents, marks, place
from web.console.door import bp
from web.console.words import is_said, visible
from web.headers import path_id
from workers import bell

WAIT_SECONDS = 1.0
"""For so long the next page waits for what was asked; it shows what has become of it, or that it waits."""

FIELDS = {
    Verb.PAUSE: ("reason", "owner"),
    Verb.RESUME: ("reason", "owner"),
    Verb.TERMINATE: ("reason",),
    Verb.UPDATE: (),
}
"""What each verb's form has."""

EDITED = ("name", "current_task")
NO_VALUE: dict[str, Any] = {"name": "", "current_task": None}
"""What an agent's form changes; and what an emptied field means: a name cannot be, which the order says."""

Kind = TypeVar("Kind", bound=Order)

log = logs.logger("web")


@bp.post("/a/<agent_id>/<verb>")
def send(agent_id: str, verb: str) -> AnyResponse:
    """One command for one agent; the page that follows shows what has become of it."""
    if verb not in map(str, FIELDS):
        raise NotFound(f"there is nothing at {request.path}")
    with autocommit() as db:
        agent = overview.agent(db, g.caller, path_id(agent_id, "agent"))
    try:
        gate.spend(verb, str(g.caller.user_id))
        order, only_if = _order(Verb(verb), agent), Conditions(_version())
        with autocommit() as db:
            accepted = accept.accept(
                db, g.caller, agent.project_id, agent.id, order, once=_once(order), conditions=only_if
            )
    except Problem as problem:
        return agents.show(agent.id, marks.plain(problem), verb)
    return _then(accepted, "console.agent", agent_id=agent.id)


@bp.post("/p/<project>/agents")
def spawn(project: str) -> AnyResponse:
    """A birth."""
    with autocommit() as db:
        chosen = place.here(db, project).chosen
    assert chosen is not None  # noqa: S101  # the address names one
    try:
        gate.spend("spawn", str(g.caller.user_id))
        order = _read(Spawn, _filled(("agent_type_id", "name", "current_task", "reason")))
        with begin() as db:
            accepted = accept.spawn(db, g.caller, chosen.id, order, once=_once(order))
    except Problem as problem:
        return agents.table(project, marks.plain(problem))
    return _then(accepted, "console.agents", project=chosen.slug, **agents.given(request.args))


@bp.post("/p/<project>/agents/bulk")
def send_matching(project: str) -> AnyResponse:
    """One command for each agent that matches, if there are as many as was read."""
    with autocommit() as db:
        chosen = place.here(db, project).chosen
    assert chosen is not None  # noqa: S101  # the address names one
    try:
        gate.spend("bulk", str(g.caller.user_id))
        body = _bulk()
        with begin() as db:
            sent, _ = accept_matching(db, g.caller, chosen.id, body, _once(body))
    except Problem as problem:
        return agents.confirm(project, marks.plain(problem))
    bell.ring()
    log.info("batch_accepted", batch_id=str(sent.batch_id), commands=sent.count)
    shown: dict[str, Any] = {"project": chosen.slug, "sent": sent.batch_id, **agents.given(request.form)}
    shown.pop("status", None)  # which is another one now
    return redirect(url_for("console.agents", **shown), 303)


def _order(verb: Verb, agent: Row[Any]) -> Order:
    if verb is Verb.TERMINATE and not is_said(request.form.get("confirm", ""), agent.name):
        raise Invalid(Violation(f"type the agent's name, {visible(agent.name)}, to end it for good", "confirm"))
    if verb is Verb.UPDATE:
        return _read(Update, _changed())
    return _read(ORDERS[verb], _filled(FIELDS[verb]))


def _version() -> int | None:
    """The only version of the agent that this is meant for; None for any. Raises Invalid for what is none."""
    given = request.form.get("version", "")
    try:
        return cursors.natural(given) if given else None
    except ValueError:
        raise Invalid(Violation("must be a version of the agent", "version")) from None


def _filled(names: tuple[str, ...]) -> dict[str, Any]:
    """The fields of the form that are not left empty."""
    return {name: _typed(name) for name in names if _typed(name).strip()}


def _changed() -> dict[str, Any]:
    """The fields that are not as the page had them: what the agent itself has changed meanwhile stays. Raises Invalid
    where there are none."""
    sent = {name: _typed(name).strip() for name in request.form}
    given = {name: sent.get(name, "") for name in EDITED}
    changed = {name: value for name, value in given.items() if value != sent.get(f"was_{name}", "")}
    if not changed:
        raise Invalid(Violation("nothing was changed"))
    return {name: value or NO_VALUE[name] for name, value in changed.items()}


def _typed(name: str) -> str:
    """A field of the form. Browsers send the ends of lines as CR LF, whatever they were."""
    return request.form.get(name, "").replace("\r\n", "\n")


def _read(kind: type[Kind], given: dict[str, Any]) -> Kind:
    """The order that these fields make. Raises Invalid."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise Invalid(*violations(error)) from None


def _bulk() -> ByFilter:
    count = request.form.get("count", "").strip().replace(",", "")
    if not (count.isascii() and count.isdigit() and len(count) < 19):  # noqa: PLR2004  # what a bigint holds
        raise Invalid(Violation("type how many agents there are", "count"))
    which = {name: request.form[name] for name in agents.FILTERS if request.form.get(name)}
    given: dict[str, Any] = {"verb": request.form.get("verb", ""), "filter": which, "expect_count": int(count)}
    if reason := request.form.get("reason", "").strip():
        given["reason"] = reason
    try:
        return ByFilter.model_validate(given)
    except ValidationError as error:
        raise Invalid(*violations(error)) from None


def _once(order: Any) -> Once | None:
    return marks.once(order.model_dump_json(exclude_unset=True), request.form.get("version", ""))


def _then(accepted: accept.Accepted, page: str, **which: Any) -> AnyResponse:
    """The page that tells what has become of it: its endpoint, and what its address says."""
    command = accepted.command
    bell.ring()
    if not accepted.replayed:
        log.info("command_accepted", command_id=str(command.id), agent_id=str(command.agent_id), verb=command.verb)
    answers.await_stage(command, WAIT_SECONDS, "applied")
    return redirect(url_for(page, **which, done=command.id), 303)
