"""Running processes: their leases, their beats, and what they are told."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from flask import Response, g
from flask_openapi3 import APIBlueprint, Tag

from orchestrator import access, beats, explain, failpoints, fleet, idempotency, leases, ledger, logs
from orchestrator.beats import AgentBeat, Beat, Beats
from orchestrator.db import autocommit, begin
from orchestrator.directives import Told
from orchestrator.errors import Fenced, KeyReused, Problem
from orchestrator.failpoints import Point
from orchestrator.leases import LeaseOrder, Release
from web import answers, gate, headers, lease_schemas, params
from web.docs import OPERATION_ID, responses
from workers import bell

log = logs.logger("web")

bp = APIBlueprint(
    "leases",
    __name__,
    url_prefix=f"{gate.PREFIX}/projects/<project_id>",
    abp_tags=[Tag(name="leases", description="Which process acts as an agent, and what it is told.")],
    operation_id_callback=OPERATION_ID,
)


@bp.post("/agents/<agent_id>/lease", responses=responses({201: lease_schemas.Lease}, 404, 409, 422))
def lease_agent(path: params.AgentPath, body: LeaseOrder) -> Response:
    """Become the process that acts as the agent.

    The token is shown this once. The same holder may ask again, under one Idempotency-Key too, and then starts anew.
    """
    _heed_key(path.project_id)
    with begin() as db:
        granted = leases.grant(db, g.caller, path.project_id, path.agent_id, body)
    failpoints.reach(Point.GRANTED, [path.agent_id])
    with begin() as db:
        told = leases.confirm(db, granted)
    bell.ring()
    told = leases.admit(path.agent_id, told)
    log.info("lease_granted", agent_id=str(path.agent_id), epoch=granted.epoch, holder=body.holder)
    shape = lease_schemas.Lease(
        lease_id=granted.lease_id,
        epoch=granted.epoch,
        ttl=granted.ttl,
        token=granted.token,
        directive=told.directive,
        reason=told.reason,
    )
    return answers.reply(shape, 201)


@bp.delete("/agents/<agent_id>/lease", responses=responses({204: None}, 404, 409, 422))
def release_lease(path: params.AgentPath, body: Release) -> Response:
    """Give the lease back: the process ends, or does something else."""
    _keep_to_its_epoch(body.epoch)
    once = headers.once(body.model_dump(mode="json"))
    with begin() as db:
        access.admit(db, g.caller, path.project_id)
        replayed = idempotency.claim(db, g.caller, once, subject_id=path.agent_id) is not None
        if not replayed:
            leases.release(db, path.project_id, path.agent_id, body)
    bell.ring()
    log.info("lease_released", agent_id=str(path.agent_id), epoch=body.epoch)
    return answers.replayable(Response(status=204), replayed)


@bp.post("/agents/<agent_id>/beat", responses=responses({200: lease_schemas.Told}, 404, 409, 422))
def beat(path: params.AgentPath, body: Beat) -> Response:
    """Say that the process lives, what it does and what it used; it is told whether to go on."""
    _keep_to_its_epoch(body.epoch)
    [answer] = _take(path.project_id, [AgentBeat.of(path.agent_id, body)])
    if isinstance(answer, Problem):
        raise answer
    return answers.reply(lease_schemas.Told.model_validate(answer))


@bp.post("/beats", responses=responses({200: lease_schemas.ManyTold}, 404, 422))
def beat_many(path: params.ProjectPath, body: Beats) -> Response:
    """The same for up to 500 agents; what is wrong with one does not stop the others."""
    answered = zip(body.beats, _take(path.project_id, body.beats), strict=True)
    data = [_item(beat.agent_id, answer) for beat, answer in answered]
    return answers.reply(lease_schemas.ManyTold.model_validate({"data": data}))


@bp.get("/agents/<agent_id>/explain", responses=responses({200: lease_schemas.Explanation}, 404))
def explain_agent(path: params.AgentPath) -> Response:
    """Why the agent is not working right now, and what would change it."""
    with autocommit() as db:
        agent = fleet.agent(db, g.caller, path.project_id, path.agent_id)
        found = explain.explain(db, agent)
    return answers.reply(lease_schemas.Explanation.model_validate(found))


def _keep_to_its_epoch(epoch: int) -> None:
    tenure = g.caller.tenure
    if tenure is not None and tenure.epoch != epoch:
        raise Fenced(f"this token is that of epoch {tenure.epoch}, not of {epoch}")


def _heed_key(project_id: UUID) -> None:
    """What is sent again is done again here, whatever its key, so keys are not kept: a row for every beat would be too
    dear, and a token cannot be shown twice. Raises Invalid for what is no key, KeyReused for another request's."""
    key = headers.idempotency_key()
    if key is None:
        return
    with autocommit() as db:
        access.admit(db, g.caller, project_id)
        if idempotency.used(db, g.caller, key):
            raise KeyReused


def _take(project_id: UUID, given: Sequence[AgentBeat]) -> list[Told | Problem]:
    """Usage first: it is counted even where the lease is over."""
    _heed_key(project_id)
    used = beats.entries(given)
    if used:
        with begin() as db:
            access.admit(db, g.caller, project_id)
            strangers = ledger.strangers(db, project_id, {entry.agent_id for entry in used})
            known = [entry for entry in used if entry.agent_id not in strangers]
            if known:
                ledger.take(db, project_id, known)
    with autocommit() as db:
        access.admit(db, g.caller, project_id)
        beaten = beats.take(db, project_id, given)
    if used or beaten.mail:
        bell.ring()
    return beaten.answers


def _item(agent_id: UUID, answer: Told | Problem) -> dict[str, Any]:
    if isinstance(answer, Problem):
        return {"agent_id": agent_id, "error": answer.as_record()}
    return {"agent_id": agent_id, "told": lease_schemas.Told.model_validate(answer)}
