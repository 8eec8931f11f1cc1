"""For those who run it: health, readiness, metrics, the invariants."""

from flask import Blueprint, Response, jsonify
from flask_openapi3 import APIBlueprint, Tag
from prometheus_client import CONTENT_TYPE_LATEST

from orchestrator import logs, queries, revisions
from orchestrator import verify as invariants
from orchestrator.db import Guard, autocommit, begin
from orchestrator.errors import Unavailable
from orchestrator.link import link
from web import gate, measures, schemas
from web.answers import reply
from web.docs import OPERATION_ID, responses
from web.glance import glance
from web.waiters import waiters

log = logs.logger("web")

LATE_SECONDS = 10
"""A queue whose oldest command is older is called degraded."""

plain = Blueprint("health", __name__)

bp = APIBlueprint(
    "ops",
    __name__,
    url_prefix=gate.PREFIX,
    abp_tags=[Tag(name="operations", description="For those who run it.")],
    operation_id_callback=OPERATION_ID,
)


@plain.get("/healthz")
def healthz() -> Response:
    """This process is up."""
    return jsonify(status="ok")


@plain.get("/readyz")
def readyz() -> tuple[Response, int]:
    """Whether this process can do its work; what it can do without is `degraded`."""
    reason, degraded = _condition()
    if reason is not None:
        return jsonify(status="not ready", reason=reason), 503
    return jsonify(status="ready", degraded=degraded), 200


@plain.get("/metrics")
def metrics() -> Response:
    """Prometheus metrics of all processes of this host's web server, and of the queue."""
    return Response(measures.exposition(), content_type=CONTENT_TYPE_LATEST)


@bp.get("/verify", responses=responses({200: schemas.Verdict}))
def verify() -> Response:
    """Check every invariant; a superuser's business."""
    with begin(Guard.TOOL) as db:
        found = invariants.check(db)
    measures.note_verdict(found)
    verdict = {"ok": not any(i.violations for i in found), "invariants": found}
    return reply(schemas.Verdict.model_validate(verdict))


def _condition() -> tuple[str | None, list[str]]:
    seen = _look()
    if seen is None:
        return "the database cannot be reached", []
    migrated, age = seen
    if not migrated:
        return "the database's schema is not at the head of the migrations", []
    if not waiters().heard.is_set():
        return "no worker has been heard since this process started", []
    redis = link().attempt(lambda client: bool(client.ping()), otherwise=False)
    troubles = {"redis": not redis, "queue_age": age > LATE_SECONDS}
    return None, [name for name, trouble in troubles.items() if trouble]


@glance
def _look() -> tuple[bool, float] | None:
    """Whether the schema is migrated, and the age of the oldest queued command; None while the database is away."""
    try:
        with autocommit() as db:
            return revisions.current(db) == revisions.head(), queries.queue(db).age
    except Unavailable as error:
        log.warning("not_ready", **logs.cause(error))
        return None
