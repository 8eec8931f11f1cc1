"""Usage in, and sums of it out."""

from collections.abc import Sequence
from uuid import UUID

from flask import Response, g
from flask_openapi3 import APIBlueprint, Tag

from orchestrator import access, idempotency, ledger, queries
from orchestrator import usage as sums
from orchestrator.db import autocommit, begin
from orchestrator.errors import no_agent
from orchestrator.idempotency import Once
from orchestrator.ledger import AgentEntry, AgentReport, ProjectReport, Taken
from web import answers, gate, headers, params, schemas
from web.docs import OPERATION_ID, responses
from web.waiters import waiters
from workers import bell

bp = APIBlueprint(
    "usage",
    __name__,
    url_prefix=f"{gate.PREFIX}/projects/<project_id>",
    abp_tags=[Tag(name="usage", description="What agents used, counted once.")],
    operation_id_callback=OPERATION_ID,
)

_RESPONSES = responses({200: schemas.UsageTaken, 202: schemas.UsageTaken}, 404, 422)


@bp.post("/agents/<agent_id>/usage", responses=_RESPONSES)
def report_agent_usage(path: params.AgentPath, body: AgentReport) -> Response:
    """Up to 1,000 entries of one agent, one per model call."""
    entries = [AgentEntry(agent_id=path.agent_id, **dict(entry)) for entry in body.entries]
    once = headers.once(body.model_dump(mode="json", exclude_none=True))
    return _take(path.project_id, entries, once, of=path.agent_id)


@bp.post("/usage", responses=_RESPONSES)
def report_project_usage(path: params.ProjectPath, body: ProjectReport) -> Response:
    """Up to 1,000 entries of any agents of the project."""
    return _take(path.project_id, body.entries, headers.once(body.model_dump(mode="json", exclude_none=True)))


@bp.get("/usage", responses=responses({200: schemas.UsageReport}, 404, 422))
def get_usage(path: params.ProjectPath, query: params.UsageQuery) -> Response:
    """Counted usage, summed by model, agent, type, hour or day."""
    with autocommit() as db:
        access.enter(db, g.caller, path.project_id)
        rows = sums.by(db, path.project_id, query.group_by, query.since, query.until)
    return answers.reply(schemas.UsageReport.model_validate({"data": rows}))


def _take(project_id: UUID, entries: Sequence[AgentEntry], once: Once | None, of: UUID | None = None) -> Response:
    def take() -> Taken:
        if of is not None and ledger.strangers(db, project_id, [of]):
            raise no_agent(of)
        return ledger.take(db, project_id, entries)

    with begin() as db:
        access.admit(db, g.caller, project_id)
        taken, replayed = idempotency.remember(db, g.caller, once, take)
    bell.ring()
    status = 200 if _counted(entries) else 202
    answer = answers.reply(schemas.UsageTaken.model_validate(Taken(**taken)), status)
    return answers.mark_wait(answers.replayable(answer, replayed))


def _counted(entries: Sequence[AgentEntry]) -> bool:
    """Wait, where the request prefers to, until all entries are in the counters; whether they are."""
    seconds = headers.wait()
    if not seconds:
        return False
    reports = [(entry.agent_id, entry.report_id) for entry in entries]

    def done() -> bool:
        with autocommit() as db:
            return queries.counted(db, reports)

    return waiters().wait(reports[0][0], seconds, done)
