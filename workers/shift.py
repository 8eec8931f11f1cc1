"""One run of the drain task: batch after batch until no mail is left or its time is up; carefully, where one fails."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from uuid import UUID

from billiard.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Connection

from orchestrator import announcements, claims, failpoints, logs
from orchestrator import drain as drains
from orchestrator.claims import FRONT, Claim, Marks
from orchestrator.db import DRAIN_SECONDS, Guard, begin
from orchestrator.decide import Outcome
from orchestrator.drain import Batch, Drainer
from orchestrator.errors import Unavailable
from orchestrator.failpoints import Point
from orchestrator.link import CLOSED_CHANNEL, tell
from workers import bell
from workers.low_water import low_water

CLAIM = 500
BUDGET_SECONDS = 2.0
ATTEMPTS = 5

NOBODY = Claim((), ())

log = logs.logger("worker")


class Shift:
    """Who drains, since when, and what has been done."""

    def __init__(self, drainer: Drainer) -> None:
        self._drainer = drainer
        self._began = time.monotonic()
        self.done: Counter[str] = Counter(applied=0, rejected=0, dead=0, folded=0, batches=0)

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return time.monotonic() - self._began

    def work(self) -> None:
        """Drain until a claim from the front of the queue is empty or the budget is used, and then ring for who goes
        on."""
        if self._look_after_the_dead():
            self._all_batches()
        else:
            bell.ring_now()
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
        claim, began = NOBODY, time.monotonic()
        try:
            with begin(Guard.DRAIN) as db:
                claim = _claim(db, marks)
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
            if not claim.agents or (isinstance(error, Unavailable) and not too_long):
                raise
            log.exception("batch_failed", agents=len(claim.agents))
            self._look_after_the_dead()
            return Batch(claim)
        failpoints.reach(Point.COMMITTED, batch.closed)
        self._report(batch)
        return batch

    def _look_after_the_dead(self) -> bool:
        """Drain carefully whom batches were at that failed, or whose processes died; whether no such batch is left, but
        for those that others look after."""
        while self.seconds <= BUDGET_SECONDS:
            if not announcements.any_batches():
                return True
            with begin(Guard.TOOL) as db:  # which may last as long as it takes: it holds nothing but the announcement
                dead = announcements.died(db)
                if dead is None:
                    return True
                if self._carefully(dead.agents):
                    announcements.withdraw(db, dead.batch)
        return False

    def _carefully(self, agents: Sequence[UUID]) -> bool:
        """Drain these agents one command per transaction, so that only the bad command fails; whether they are all done
        before the time is up."""
        for agent_id in agents:
            while self._one_command(agent_id):
                if self.seconds > BUDGET_SECONDS:
                    return False
        return True

    def _one_command(self, agent_id: UUID) -> bool:
        """Try the agent's oldest command alone; False when there is none, or another drain has the agent.

        The attempt is committed first, so that it counts even if this process dies of it.
        """
        with begin(Guard.DRAIN) as db:
            attempt = drains.count_attempt(db, agent_id)
        if attempt is None:
            return False
        command_id, attempts = attempt
        if attempts > ATTEMPTS:  # our processes have died of it
            self._after_failure(command_id, attempts)
            return True
        try:
            with begin(Guard.DRAIN) as db:
                claim = claims.claim_one(db, agent_id)
                batch = self._drainer.drain(db, claim, only=command_id)
        except (Unavailable, SoftTimeLimitExceeded):
            _give_back(command_id)
            raise
        except Exception:  # the same edge, one command wide
            log.exception("command_failed", command_id=str(command_id), attempt=attempts)
            self._after_failure(command_id, attempts)
            return True
        if batch.empty:
            _give_back(command_id)
        self._report(batch)
        return not batch.empty

    def _after_failure(self, command_id: UUID, attempts: int) -> None:
        if attempts < ATTEMPTS:
            return
        with begin(Guard.DRAIN) as db:
            buried = drains.bury(db, command_id, self._drainer.task_id)
        if buried:
            self.done["dead"] += 1
            log.error("command_closed", command_id=str(command_id), state="dead")
            tell(CLOSED_CHANNEL, [command_id])

    def _report(self, batch: Batch) -> None:
        if batch.empty:
            return
        tell(CLOSED_CHANNEL, [*batch.closed, *batch.claim.usage])
        self.done["batches"] += 1
        self.done["folded"] += batch.folded
        self.done.update(outcome.state.value for outcome in batch.outcomes)
        _log(batch.outcomes)


def _claim(db: Connection, marks: Marks) -> Claim:
    start = marks.beyond(low_water().begin(db))
    began = time.monotonic()
    try:
        return claims.claim(db, CLAIM, start)
    finally:
        low_water().walked(start, time.monotonic() - began)


def _log(outcomes: Iterable[Outcome]) -> None:
    """A line for each command, and one for all that came in bulk: a line takes as long as a third of a command."""
    in_bulk: dict[str, list[UUID]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.command.batch_id is None:
            log.info("command_closed", command_id=str(outcome.command.id), state=outcome.state.value)
        else:
            in_bulk[outcome.state.value].append(outcome.command.id)
    for state, ids in in_bulk.items():
        log.info("commands_closed", state=state, command_ids=[str(id_) for id_ in ids])


def _give_back(command_id: UUID) -> None:
    """An attempt that was not the command's fault; where the database cannot be told so now, it stays counted."""
    try:
        with begin(Guard.DRAIN) as db:
            drains.give_back(db, command_id)
    except Unavailable as error:
        log.warning("attempt_not_given_back", command_id=str(command_id), **logs.cause(error))
