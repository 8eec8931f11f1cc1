"""The nine endpoints the project exists for."""

from contextlib import suppress
from typing import Annotated, Any

from flask import Response, g, request
from flask_openapi3 import APIBlueprint, Tag
from pydantic import StringConstraints, TypeAdapter, ValidationError
from sqlalchemy import Row

from orchestrator import accept, access, fleet
from orchestrator.db import autocommit, begin
from orchestrator.errors import Invalid, Violation
from orchestrator.fields import Reason
from orchestrator.lifecycle import Status
from orchestrator.orders import Order, Pause, Resume, Spawn, Terminate, Update
from web import answers, gate, headers, params, schemas
from web.docs import OPERATION_ID, responses

bp = APIBlueprint(
    "agents",
    __name__,
    url_prefix=f"{gate.PREFIX}/projects/<project_id>/agents",
    abp_tags=[Tag(name="agents", description="Spawn, watch, change and end agents.")],
    operation_id_callback=OPERATION_ID,
)

_REASON = TypeAdapter(Annotated[Reason, StringConstraints(pattern=r"^[^\x00]*$")])


@bp.post("", responses=responses({201: schemas.Agent, 202: schemas.Command}, 404, 409, 422))
def spawn_agent(path: params.ProjectPath, body: Spawn) -> Response:
    """Bring an agent to life."""
    once = headers.once(body.model_dump(mode="json"))
    with begin() as db:
        accepted = accept.spawn(db, g.caller, path.project_id, body, once=once)
    return answers.conclude(accepted, _show_born, 201)


@bp.get("", responses=responses({200: schemas.AgentPage}, 404, 422))
def list_project_agents(path: params.ProjectPath, query: params.AgentQuery) -> Response:
    """The project's agents, newest first."""
    if query.cursor is not None and "page" in query.model_fields_set:
        raise Invalid(Violation("give either page or cursor", "cursor"))
    wanted = fleet.Filter(query.status, query.type, query.q)
    with autocommit() as db:
        access.enter(db, g.caller, path.project_id)
        if query.cursor is None:
            page = fleet.page(db, path.project_id, wanted, query.page, query.limit)
        else:
            page = fleet.page_after(db, path.project_id, wanted, query.cursor, query.limit)
    return answers.reply(_page_shape(page))


@bp.get("/metrics", responses=responses({200: schemas.Metrics}, 404))
def get_project_agent_metrics(path: params.ProjectPath) -> Response:
    """Sums over all agents of the project, the terminated ones too."""
    with autocommit() as db:
        access.enter(db, g.caller, path.project_id)
        row = fleet.metrics(db, path.project_id)
    return answers.reply(_metrics(row, {status: getattr(row, status) for status in Status}))


@bp.get("/<agent_id>", responses=responses({200: schemas.Agent}, 404))
def get_agent(path: params.AgentPath) -> Response:
    """One agent."""
    with autocommit() as db:
        return _show(fleet.agent(db, g.caller, path.project_id, path.agent_id))


@bp.patch("/<agent_id>", responses=responses({200: schemas.Agent, 202: schemas.Command}, 404, 409, 412, 422))
def update_agent(path: params.AgentPath, query: params.StageQuery, body: Update) -> Response:
    """Change an agent's fields, its status among them."""
    return answers.conclude(_accept(path, body), _show, until=query.until)


@bp.post("/<agent_id>/pause", responses=responses({200: schemas.Agent, 202: schemas.Command}, 404, 409, 412, 422))
def pause_agent(path: params.AgentPath, query: params.StageQuery, body: Pause) -> Response:
    """Stop an agent until it is resumed."""
    return answers.conclude(_accept(path, body), _show, until=query.until)


@bp.post("/<agent_id>/resume", responses=responses({200: schemas.Agent, 202: schemas.Command}, 404, 409, 412, 422))
def resume_agent(path: params.AgentPath, body: Resume) -> Response:
    """Let a paused agent go on."""
    return answers.conclude(_accept(path, body), _show)


@bp.delete("/<agent_id>", responses=responses({200: schemas.Terminated, 202: schemas.Command}, 404, 409, 412, 422))
def terminate_agent(path: params.AgentPath, query: params.StageQuery, body: Terminate) -> Response:
    """End an agent for good."""
    reason = request.headers.get("X-Reason")
    if reason is not None and body.reason is None:
        body = Terminate(**body.model_dump(exclude_unset=True) | {"reason": _header_reason(reason)})
    return answers.conclude(_accept(path, body), _say_terminated, until=query.until)


@bp.get("/<agent_id>/metrics", responses=responses({200: schemas.Metrics}, 404))
def get_agent_metrics(path: params.AgentPath) -> Response:
    """The same sums for one agent."""
    with autocommit() as db:
        row = fleet.agent(db, g.caller, path.project_id, path.agent_id)
    return answers.reply(_metrics(row, {status: int(row.status == status) for status in Status}))


def _accept(path: params.AgentPath, order: Order) -> accept.Accepted:
    once = headers.once(order.model_dump(mode="json", exclude_unset=True))
    conditions = headers.conditions()
    with autocommit() as db:  # one statement, and its own commit
        return accept.accept(db, g.caller, path.project_id, path.agent_id, order, once=once, conditions=conditions)


def _show(agent: Any) -> Response:
    return answers.reply(schemas.Agent.model_validate(agent), ETag=f'"{agent.version}"')


def _show_born(agent: Any) -> Response:
    response = _show(agent)
    response.headers["Location"] = f"{gate.PREFIX}/projects/{agent.project_id}/agents/{agent.id}"
    return response


def _say_terminated(agent: Any) -> Response:
    return answers.reply(schemas.Terminated(success=True, message=f"Agent '{agent.name}' has been terminated"))


def _header_reason(value: str) -> str:
    with suppress(UnicodeError):
        value = value.encode("latin-1").decode()  # WSGI reads headers as Latin-1; people write UTF-8
    try:
        return _REASON.validate_python(value)
    except ValidationError:
        raise Invalid(Violation("must have at most 500 characters, none of them NUL", "X-Reason")) from None


def _metrics(row: Row[Any], by_status: dict[Status, int]) -> schemas.Metrics:
    return schemas.Metrics(
        total_instances=sum(by_status.values()),
        active_instances=by_status[Status.WORKING],
        idle_instances=by_status[Status.IDLE],
        total_tasks_completed=row.tasks_completed,
        total_tokens_used=int(row.tokens_used),
        total_cost_incurred=row.cost_incurred,
        by_status=by_status,
    )


def _page_shape(page: fleet.Page) -> schemas.AgentPage:
    by_number = {
        "total": page.total,
        "total_is_at_least": page.total_is_at_least,
        "page": page.page,
        "page_size": len(page.rows),
        "total_pages": page.total_pages,
        "has_next": page.more,
        "has_prev": page.page is None or page.page > 1,
        "next_cursor": page.next_cursor,
    }
    return schemas.AgentPage.model_validate({"data": page.rows, "pagination": by_number})
