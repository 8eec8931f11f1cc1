"""The Celery tasks: each opens a transaction, calls one function, and decides about retry."""

import time
from collections import Counter
from typing import Any

from kombu.exceptions import OperationalError
from sqlalchemy import Connection

from orchestrator import failpoints, inspection, logs, queries, rollups, timers, upkeep
from orchestrator.claims import Marks
from orchestrator.db import Guard, begin
from orchestrator.drain import Drainer
from orchestrator.errors import Unavailable
from orchestrator.failpoints import Point
from orchestrator.link import CLOSED_CHANNEL, tell
from workers import bell
from workers.app import app, slot
from workers.low_water import low_water
from workers.shift import Shift

SLICES = 20
"""Slices that one run of prune deletes at most, a transaction each: far within the task's time limit. What is left
waits for the next run."""

ROLL_SECONDS = 5.0
"""For so long a roll-up goes on where much has come together; the next one goes on with the rest."""

log = logs.logger("worker")


@app.task(name="orchestrator.drain", bind=True)
def drain(self: Any, **_: Any) -> dict[str, int]:
    """Empty mailboxes, as long as there are any and time. The small result is for Flower."""
    bell.answer()
    shift = Shift(Drainer(slot(), self.request.id))
    shift.work()
    failpoints.reach(Point.DRAINED)
    return dict(shift.done) | {"ms": round(shift.seconds * 1000)}


@app.task(name="orchestrator.sweep")
def sweep(**_: Any) -> dict[str, bool]:
    """Ring for whatever has waited more than a second: heals every lost bell."""
    return {"rang": ring_for_overdue()}


@app.task(name="orchestrator.canary")
def canary(**_: Any) -> dict[str, bool]:
    """Prove that messages are consumed: tells the web processes that a worker lives."""
    tell(CLOSED_CHANNEL, ())
    return {"sang": True}


@app.task(name="orchestrator.prune")
def prune(**_: Any) -> dict[str, int]:
    """Delete closed commands after 30 days, idempotency keys after two, the tokens of former leases after one; and of
    the roll-ups what is older than their pictures. Sum up what they no longer show by the minute."""
    deleted: Counter[str] = Counter()
    for _slice in range(SLICES):
        with begin(Guard.DRAIN) as db:
            gone = upkeep.prune(db) | rollups.prune(db) | rollups.sum_up(db)
        deleted.update(gone)
        if not any(gone.values()):
            break
    return dict(deleted)


@app.task(name="orchestrator.inspect")
def inspect(**_: Any) -> dict[str, int]:
    """Look whether the invariants hold where something has changed; an error in the log for each that does not."""
    violated = {name: count for name, count in inspection.inspect().items() if count}
    if violated:
        log.error("invariants_violated", **violated)
    return violated


@app.task(name="orchestrator.roll")
def roll(**_: Any) -> dict[str, int]:
    """Roll up what has happened since the last time."""
    events, ends = 0, time.monotonic() + ROLL_SECONDS
    more = True
    while more and time.monotonic() < ends:
        with begin(Guard.WATCH) as db:
            number, more = rollups.roll(db)
        events += number
    return {"events": events}


def ring_for_overdue() -> bool:
    """Send what has become due by itself, and publish a drain, without a look at the bell's flag, for that or for
    anything that has waited too long; whether it did."""
    try:
        start = low_water().begin()
        with begin(Guard.DRAIN) as db:
            overdue = bool(timers.send_due(db)) or _overdue(db, start)
        if overdue:
            failpoints.reach(Point.SWEPT)
            bell.publish(expires=bell.SWEPT_SECONDS)
    except (Unavailable, OperationalError, OSError) as error:
        log.warning("sweep_failed", **logs.cause(error))
        return False
    return overdue


def _overdue(db: Connection, start: Marks) -> bool:
    with low_water().walk(start):
        return queries.overdue(db, start)
