"""The Celery tasks: each opens a transaction, calls one function, and decides about retry."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from kombu.exceptions import OperationalError

from orchestrator import drain as drains
from orchestrator import logs, queries, upkeep
from orchestrator.db import Guard, begin
from orchestrator.drain import Batch, Drainer
from orchestrator.errors import Unavailable
from orchestrator.link import CLOSED_CHANNEL, link
from workers import bell
from workers.app import app, slot

CLAIM = 500
BUDGET_SECONDS = 2.0
ATTEMPTS = 5

log = logs.logger("worker")


@app.task(name="orchestrator.drain", bind=True)
def drain(self: Any, **_: Any) -> dict[str, int]:
    """Empty mailboxes until a claim from the front is empty or the budget is used. The small result is for Flower."""
    bell.answer()
    began = time.monotonic()
    done: Counter[str] = Counter(applied=0, rejected=0, dead=0, folded=0, batches=0)
    drainer = Drainer(slot(), self.request.id)
    start = drains.FRONT
    while not (batch := _one_batch(drainer, start, done)).empty or start != drains.FRONT:
        start = batch.claim.resume_at
        if batch.claim.full:
            bell.ring_now()  # an idle worker joins
        if time.monotonic() - began > BUDGET_SECONDS:
            bell.ring_now()
            break
    _wake(())
    return dict(done) | {"ms": round((time.monotonic() - began) * 1000)}


@app.task(name="orchestrator.sweep")
def sweep(**_: Any) -> dict[str, bool]:
    """Ring for whatever has waited more than a second: heals every lost bell."""
    return {"rang": ring_for_overdue()}


@app.task(name="orchestrator.canary")
def canary(**_: Any) -> dict[str, bool]:
    """Prove that messages are consumed: tells the web processes that a worker lives."""
    _wake(())
    return {"sang": True}


@app.task(name="orchestrator.prune")
def prune(**_: Any) -> dict[str, int]:
    """Delete closed commands after 30 days and idempotency keys after two."""
    with begin(Guard.TOOL) as db:
        return upkeep.prune(db)


def ring_for_overdue() -> bool:
    """Publish a drain, without a look at the bell's flag, if anything has waited too long; whether it did."""
    try:
        with begin(Guard.DRAIN) as db:
            overdue = queries.overdue(db)
        if overdue:
            bell.publish(expires=bell.SWEPT_SECONDS)
    except (Unavailable, OperationalError, OSError) as error:
        log.warning("sweep_failed", error=type(error).__name__)
        return False
    return overdue


def _one_batch(drainer: Drainer, start: drains.Place, done: Counter[str]) -> Batch:
    claim = drains.Claim((), ())
    try:
        with begin(Guard.DRAIN) as db:
            claim = drains.claim(db, CLAIM, start)
            batch = drainer.drain(db, claim) if claim.agents else Batch(claim)
    except Unavailable:
        raise
    except Exception:  # one bad command must not stop the others, whatever it makes go wrong
        if not claim.agents:
            raise
        log.exception("batch_failed", agents=len(claim.agents))
        batch = _carefully(drainer, claim.agents, done)
    _report(batch, done)
    return batch


def _carefully(drainer: Drainer, agents: Sequence[UUID], done: Counter[str]) -> Batch:
    """Drain these agents one command per transaction, so that only the bad command fails."""
    outcomes = []
    for agent_id in agents:
        while (batch := _one_command(drainer, agent_id, done)) is not None:
            outcomes += batch.outcomes
    return Batch(drains.Claim(agents, ()), outcomes)


def _one_command(drainer: Drainer, agent_id: UUID, done: Counter[str]) -> Batch | None:
    """Try the agent's oldest command once; None when there is none, or another drain has the agent.

    The attempt is committed first, so that it counts even if this process dies of it.
    """
    attempt = _count_attempt(agent_id, 1)
    if attempt is None:
        return None
    try:
        with begin(Guard.DRAIN) as db:
            claim = drains.claim_one(db, agent_id)
            batch = drainer.drain(db, claim, mailbox=1) if claim.agents else None
    except Unavailable:
        _count_attempt(agent_id, -1)
        raise
    except Exception:  # the same edge, one command wide
        log.exception("command_failed", command_id=str(attempt[0]), attempt=attempt[1])
        return _after_failure(drainer, *attempt, done)
    if batch is None:
        _count_attempt(agent_id, -1)
    return batch


def _count_attempt(agent_id: UUID, more: int) -> tuple[UUID, int] | None:
    with begin(Guard.DRAIN) as db:
        return drains.count_attempt(db, agent_id, more)


def _after_failure(drainer: Drainer, command_id: UUID, attempts: int, done: Counter[str]) -> Batch:
    if attempts >= ATTEMPTS:
        with begin(Guard.DRAIN) as db:
            drains.bury(db, command_id, drainer.task_id)
        done["dead"] += 1
        _wake([command_id])
    return Batch(drains.Claim((), ()))


def _report(batch: Batch, done: Counter[str]) -> None:
    if batch.empty:
        return
    _wake([*batch.closed, *batch.claim.usage])
    done["batches"] += 1
    done["folded"] += batch.folded
    for outcome in batch.outcomes:
        done[outcome.state.value] += 1
        log.info("command_closed", command_id=str(outcome.command.id), state=outcome.state.value)


def _wake(ids: Sequence[UUID]) -> None:
    message = json.dumps([str(id_) for id_ in ids])
    link().attempt(lambda client: client.publish(CLOSED_CHANNEL, message), otherwise=0)
