"""One run of the drain task: batch after batch until no mail is left or its time is up; then a while for suspects."""

import time
from collections import Counter

from billiard.exceptions import SoftTimeLimitExceeded

from orchestrator import announcements, claims, failpoints, logs
from orchestrator.claims import FRONT, Claim, Marks
from orchestrator.db import DRAIN_SECONDS, Guard, begin, refused
from orchestrator.drain import Batch, Drainer
from orchestrator.errors import Unavailable
from orchestrator.failpoints import Point
from orchestrator.link import CLOSED_CHANNEL, tell
from workers import bell
from workers.careful import Careful
from workers.lookout import lookout
from workers.low_water import low_water
from workers.report import Report

CLAIM = 500
BUDGET_SECONDS = 2.0

NOBODY = Claim((), ())

log = logs.logger("worker")


class Shift:
    """Who drains, since when, and what has been done."""

    def __init__(self, drainer: Drainer) -> None:
        self._drainer = drainer
        self._began = time.monotonic()
        self._report = Report()

    @property
    def done(self) -> Counter[str]:
        """How many commands, agents with usage and batches it has dealt with, by what became of them."""
        return self._report.done

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return time.monotonic() - self._began

    def work(self) -> None:
        """Drain until a claim from the front of the queue is empty or the budget is used, and then ring for who goes
        on."""
        lookout().look()
        self._all_batches()
        if lookout().suspects:
            Careful(self._drainer, self._report).work()
        tell(CLOSED_CHANNEL, ())  # somebody drains, even where there was nothing to do

    def _all_batches(self) -> None:
        marks = FRONT
        while not (batch := self._one_batch(marks)).empty or marks != FRONT:
            marks = batch.claim.marks
            if batch.claim.full:
                bell.ring_now()  # an idle worker joins
            if self.seconds > BUDGET_SECONDS:
                bell.ring_now()
                break

    def _one_batch(self, marks: Marks) -> Batch:
        start, claim, began = marks.beyond(low_water().begin()), NOBODY, time.monotonic()
        try:
            with begin(Guard.DRAIN) as db:
                with low_water().walk(start):
                    claim = claims.claim(db, CLAIM, start)
                if claim.batch is not None and claim.agents:
                    announcements.announce(claim.batch, claim.agents)
                    failpoints.reach(Point.CLAIMED, claim.agents)
                batch = self._drainer.drain(db, claim)
                failpoints.reach(Point.WRITTEN, batch.closed)
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:  # one bad command must not stop the others, whatever it makes go wrong
            # The database says only that the connection is lost; what was ended for its length may do in pieces.
            too_long = time.monotonic() - began >= DRAIN_SECONDS
            if claim.batch is not None and refused(error):
                announcements.withdraw(claim.batch)
                raise
            if not claim.agents or (isinstance(error, Unavailable) and not too_long):
                raise
            log.exception("batch_failed", agents=len(claim.agents))
            lookout().look(at_once=True)
            return Batch(claim)
        failpoints.reach(Point.COMMITTED, batch.closed)
        self._report.committed(batch)
        return batch
