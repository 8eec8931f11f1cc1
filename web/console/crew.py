"""The workers: which there are, what they are at, and what waits for them."""

from typing import Any, NamedTuple

from flask import render_template
from kombu.exceptions import OperationalError
from redis import ResponseError

from orchestrator import queries
from orchestrator.db import autocommit
from orchestrator.link import link
from orchestrator.pulse import QUEUES
from web.console import place
from web.console.door import bp
from web.glance import glance
from workers.app import app

ANSWER_SECONDS = 0.5
"""For so long the answers of workers are waited for, where one that listens does not give any."""


class Worker(NamedTuple):
    """One that has answered: its name, its processes, how many tasks it has done since its start, by name, and what it
    is at."""

    name: str
    processes: int
    done: dict[str, int]
    active: list[str]


@bp.get("/workers")
def workers() -> str:
    """The page."""
    with autocommit() as db:
        at = place.here(db)
        queue = queries.queue(db)
    return render_template("console/workers.html", at=at, queue=queue, workers=_crew(), bells=_bells())


@glance
def _crew() -> list[Worker] | None:
    """None where nobody can be asked, since Redis is away."""
    listening = link().attempt(_listening, otherwise=None)
    if listening is None:
        return None
    try:
        stats = app.control.inspect(timeout=ANSWER_SECONDS, limit=listening or None).stats() or {}
        active = app.control.inspect(timeout=ANSWER_SECONDS, limit=len(stats)).active() or {} if stats else {}
    except (OperationalError, OSError):
        return None
    return [_worker(name, told, active.get(name, [])) for name, told in sorted(stats.items())]


def _listening(client: Any) -> int:
    """How many workers hear a question: once so many have answered, nobody waits for one more. Zero where Redis
    does not tell who is there."""
    name = app.conf.broker_transport_options["client_name"]
    try:
        return sum(each["name"] == name for each in client.client_list(_type="pubsub"))
    except ResponseError:
        return 0


def _worker(name: str, told: dict[str, Any], active: list[dict[str, Any]]) -> Worker:
    processes = told.get("pool", {}).get("processes") or []
    return Worker(name, len(processes), told.get("total", {}), [task["name"] for task in active])


def _bells() -> dict[str, int] | None:
    """How many messages lie in each queue; None where Redis is away."""
    found: dict[str, int] | None = link().attempt(
        lambda client: {queue: int(client.llen(queue)) for queue in QUEUES}, otherwise=None
    )
    return found
