"""The yardstick: the way most people would build it. The same door and the same tables, then one Celery message and one
transaction per command: lock, check, update, event, commit. No batches, no bell.

`gunicorn "bench.plain:create_app()"` and `celery -A bench.plain worker -Q plain`.
"""

from typing import Any

from celery import Celery, signals
from flask_openapi3 import OpenAPI
from kombu import Queue
from sqlalchemy import Connection, text

from orchestrator.accept import Accepted
from orchestrator.db import Guard, begin, forget_connections
from orchestrator.errors import Refused
from orchestrator.lifecycle import Status, Verb, move
from orchestrator.rows import jsonb
from web import answers
from web import create_app as our_app

QUEUE = "plain"

app = Celery("plain", config_source="celeryconfig")
app.conf.task_queues = (Queue(QUEUE, routing_key=QUEUE),)
app.conf.task_default_queue = QUEUE
app.conf.task_routes = {}

_COMMAND = text("SELECT * FROM commands WHERE id = :id")
_AGENT = text("SELECT * FROM agents WHERE id = :id FOR UPDATE")
_MOVE = text("""
    UPDATE agents SET status = :status, version = version + 1, last_activity_at = now(), updated_at = now(),
        holds = :holds, quiesced_at = CASE WHEN :paused THEN now() END,
        quiesced_by = CASE WHEN :paused THEN 'no_lease' END
    WHERE id = :id
""")
_EVENT = text("""
    INSERT INTO events (agent_id, version, project_id, command_id, verb, before, after, changes, actor_type, actor_id,
        reason, at)
    VALUES (:agent, :version, :project, :command, :verb, :before, :after, :changes, 'user', :actor, :reason, now())
""")
_CLOSE = text("""
    UPDATE commands SET state = 'applied', version = :version, closed_at = clock_timestamp(), task_id = :task
    WHERE id = :id
""")
_REJECT = text("""
    UPDATE commands SET state = 'rejected', error = :error, closed_at = clock_timestamp(), task_id = :task
    WHERE id = :id
""")


@signals.worker_process_init.connect
def _after_fork(**_: Any) -> None:
    forget_connections()


@app.task(name="plain.apply", bind=True)
def apply(self: Any, command_id: str) -> None:
    """Apply one command."""
    with begin(Guard.DOOR) as db:
        _apply(db, command_id, self.request.id)


def create_app() -> OpenAPI:
    """Our door, which sends one message per command instead of ringing the bell."""
    answers.conclude = _conclude
    return our_app()


def _conclude(accepted: Accepted, *_: Any, **__: Any) -> Any:
    apply.apply_async(args=[str(accepted.command.id)], queue=QUEUE, retry=False)
    answers.log.info("command_accepted", command_id=str(accepted.command.id), verb=accepted.command.verb)
    return answers.pending(accepted.command)


def _apply(db: Connection, command_id: str, task_id: str) -> None:
    command = db.execute(_COMMAND, {"id": command_id}).one()
    agent = db.execute(_AGENT, {"id": command.agent_id}).one()
    if command.state != "queued":
        return
    try:
        after = move(Status(agent.status), Verb(command.verb))
    except Refused as refusal:  # two of one agent's messages may be worked on in any order
        db.execute(_REJECT, {"id": command_id, "error": jsonb(refusal.as_record()), "task": task_id})
        return
    paused = after is Status.PAUSED
    holds = [{"id": command_id, "owner": "manual", "until": None, "reason": command.reason}] if paused else []
    db.execute(_MOVE, {"id": agent.id, "status": after.value, "holds": jsonb(holds), "paused": paused})
    version = agent.version + 1
    event = {"agent": agent.id, "version": version, "project": agent.project_id, "command": command_id}
    event |= {"verb": command.verb, "before": agent.status, "after": after.value, "changes": jsonb({"holds": holds})}
    db.execute(_EVENT, event | {"actor": command.actor_id, "reason": command.reason})
    db.execute(_CLOSE, {"id": command_id, "version": version, "task": task_id})
