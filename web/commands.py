"""What became of a command, and taking one back."""

from flask import Response, g
from flask_openapi3 import APIBlueprint, Tag

from orchestrator import accept, access, logs, queries
from orchestrator.db import autocommit, begin
from orchestrator.link import CANCELLED_CHANNEL, tell
from web import answers, gate, headers, params, schemas
from web.docs import OPERATION_ID, responses

log = logs.logger("web")

bp = APIBlueprint(
    "commands",
    __name__,
    url_prefix=f"{gate.PREFIX}/projects/<project_id>",
    abp_tags=[Tag(name="commands", description="What was asked, and what became of it.")],
    operation_id_callback=OPERATION_ID,
)


@bp.get("/commands", responses=responses({200: schemas.CommandPage}, 404, 422))
def list_commands(path: params.ProjectPath, query: params.CommandQuery) -> Response:
    """The project's commands, newest first."""
    wanted = query.model_dump(mode="json", include={"state", "verb"}, exclude_none=True)
    ids = {"agent_id": query.agent_id, "batch_id": query.batch_id}
    wanted |= {name: id_ for name, id_ in ids.items() if id_ is not None}
    with autocommit() as db:
        access.enter(db, g.caller, path.project_id)
        rows, cursor = queries.commands(db, path.project_id, wanted, query.cursor, query.limit)
    return answers.page(schemas.CommandPage, map(answers.command_shape, rows), cursor)


@bp.get("/commands/<command_id>", responses=responses({200: schemas.Command}, 404, 422))
def get_command(path: params.CommandPath, query: params.StageQuery) -> Response:
    """One command; with `Prefer: wait=N` the answer is held until it is closed, or quiesced."""
    with autocommit() as db:
        command = access.command(db, g.caller, path.project_id, path.command_id)
    latest = answers.await_stage(command, headers.preferred_wait() or 0, query.until)
    return answers.mark_wait(answers.reply(answers.command_shape(latest.command)))


@bp.post("/commands/<command_id>/cancel", responses=responses({200: schemas.Command}, 404, 409))
def cancel_command(path: params.CommandPath) -> Response:
    """Take a command back, as long as it is queued."""
    once = headers.once({})
    with begin() as db:
        command, replayed = accept.cancel(db, g.caller, path.project_id, path.command_id, once)
    if not replayed:
        log.info("command_closed", command_id=str(command.id), state=command.state)
    tell(CANCELLED_CHANNEL, [command.id])
    return answers.replayable(answers.reply(answers.command_shape(command)), replayed)
