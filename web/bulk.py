"""Commands in bulk: as a list, for all agents that match a filter, and how far they have come."""

from typing import Any

from flask import Response, g, request

from orchestrator import access, bulk, idempotency, logs, matching, queries
from orchestrator.db import autocommit, begin
from orchestrator.errors import NotFound
from orchestrator.letters import Bulk
from orchestrator.matching import ByFilter
from orchestrator.states import State
from web import answers, bulk_schemas, commands, headers, params
from web.docs import responses
from workers import bell

log = logs.logger("web")

bp = commands.bp  # the document has one entry for an address: two blueprints would overwrite each other's


@bp.post("/commands", responses=responses({202: bulk_schemas.BulkAccepted}, 404, 422))
def send_commands(path: params.ProjectPath, body: Bulk) -> Response:
    """Up to 1,000 commands; one that is wrong is refused alone."""
    once = headers.once(request.get_json())
    with begin() as db:
        access.enter(db, g.caller, path.project_id)
        receipt, replayed = idempotency.remember(
            db, g.caller, once, lambda: bulk.accept_list(db, g.caller, path.project_id, body.commands)
        )
    _conclude(receipt["batch_id"], receipt["accepted"], replayed)
    return answers.replayable(answers.reply(bulk_schemas.BulkAccepted(**receipt), 202), replayed)


@bp.post(
    "/commands/by-filter",
    responses=responses({200: bulk_schemas.Counted, 202: bulk_schemas.BatchSent}, 404, 409, 422),
)
def send_matching(path: params.ProjectPath, body: ByFilter) -> Response:
    """One command for each living agent that matches; with `dry_run`, how many that are."""
    # Who repeats the request may have counted anew, and found that fewer match since it was heard.
    once = headers.once({name: value for name, value in request.get_json().items() if name != "expect_count"})
    body.order()  # what is wrong with it is wrong in a dry run, too
    with begin() as db:
        access.enter(db, g.caller, path.project_id)
        if body.dry_run:
            number = matching.count(db, path.project_id, body.filter.wanted())
            return answers.reply(bulk_schemas.Counted(count=number))
        sent, replayed = matching.accept_matching(db, g.caller, path.project_id, body, once)
    _conclude(str(sent.batch_id), sent.count, replayed)
    return answers.replayable(answers.reply(bulk_schemas.BatchSent.model_validate(sent), 202), replayed)


@bp.get("/batches/<batch_id>", responses=responses({200: bulk_schemas.BatchProgress}, 404))
def get_batch(path: params.BatchPath) -> Response:
    """How far a batch has come."""
    with autocommit() as db:
        access.enter(db, g.caller, path.project_id)
        row = queries.batch(db, path.project_id, path.batch_id)
    if row is None:
        raise NotFound(f"there is no batch {path.batch_id} in this project")
    return answers.reply(_progress(row))


def _progress(row: Any) -> bulk_schemas.BatchProgress:
    left = {state: getattr(row, state, 0) for state in State}
    states = left | {State.APPLIED: row.total - sum(left.values())}
    return bulk_schemas.BatchProgress(id=row.id, total=row.total, states=states, done=not row.queued)


def _conclude(batch_id: str, accepted: int, replayed: bool) -> None:
    bell.ring()
    if not replayed:
        log.info("batch_accepted", batch_id=batch_id, commands=accepted)
