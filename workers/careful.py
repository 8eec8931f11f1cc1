"""Careful work: suspects, drained one command at a time, so that only the bad command fails."""

import time
from uuid import UUID

from billiard.exceptions import SoftTimeLimitExceeded

from orchestrator import claims, logs, revisions, suspects
from orchestrator import drain as drains
from orchestrator.db import DRAIN_SECONDS, Guard, autocommit, begin, blameless
from orchestrator.drain import MAILBOX, NO_COMMAND, Drainer
from orchestrator.errors import Unavailable
from orchestrator.suspects import Suspect
from workers import bell
from workers.report import Report

SHARE_SECONDS = 0.5
"""Of each shift: for so long everybody else may wait."""

ATTEMPTS = 5

log = logs.logger("worker")


class Careful:
    """Drains suspects, and reports what became of their commands."""

    def __init__(self, drainer: Drainer, report: Report) -> None:
        self._drainer, self._report = drainer, report
        self._ends = time.monotonic() + SHARE_SECONDS

    def work(self) -> None:
        """Drain suspects for a while, and ring for who goes on where there are more."""
        if not _knows_the_schema():
            return
        while self._one_agent():
            if self._late:
                bell.ring_now()
                return

    @property
    def _late(self) -> bool:
        return time.monotonic() >= self._ends

    def _one_agent(self) -> bool:
        """Drain one suspect; False when there is none that could be drained now."""
        with begin(Guard.DRAIN) as db:  # at once: if we die of it, others come first
            suspect = suspects.take(db)
        if suspect is None:
            return False
        try:
            self._watched(suspect)
        except SoftTimeLimitExceeded:
            raise
        except Unavailable as error:
            log.warning("suspect_put_off", agent_id=str(suspect.agent_id), **logs.cause(error))
            _keep(suspect.agent_id)
        except Exception:  # whatever it is, the others are to be drained
            log.exception("suspect_put_off", agent_id=str(suspect.agent_id))
            _keep(suspect.agent_id)
        return True

    def _watched(self, suspect: Suspect) -> None:
        with begin(Guard.WATCH) as db:  # nobody else tries, or counts, its commands meanwhile
            if not suspects.watch(db, suspect.agent_id):
                return
            if self._drained(suspect):
                suspects.clear(db, suspect.agent_id)
            else:
                suspects.wait_no_longer(db, suspect.agent_id)

    def _drained(self, suspect: Suspect) -> bool:
        """Whether all is done that may be the bad one, before the time is up. Raises Unavailable where it cannot be
        done now."""
        while (attempt := self._begin(suspect)) is not None:
            self._try(suspect.agent_id, *attempt)
            if self._late:
                return False
        self._count_usage(suspect.agent_id)
        return True

    def _begin(self, suspect: Suspect) -> tuple[UUID, int] | None:
        """Count an attempt at its oldest command: the command, and its attempts so far; None where none is left.

        Committed before the attempt is made, so that it counts even if this process dies of it.
        """
        with begin(Guard.DRAIN) as db:
            _locked(claims.claim_one(db, suspect.agent_id))
            return drains.count_attempt(db, suspect.agent_id, suspect.last_seq)

    def _try(self, agent_id: UUID, command_id: UUID, attempts: int) -> None:
        if attempts > ATTEMPTS:  # our processes have died of it
            self._give_up(command_id)
            return
        began = time.monotonic()
        try:
            with begin(Guard.DRAIN) as db:
                batch = self._drainer.drain(db, _locked(claims.claim_one(db, agent_id)), only=command_id)
        except SoftTimeLimitExceeded:
            _give_back(command_id)
            raise
        except Exception as error:  # whatever a bad command makes go wrong
            busy = isinstance(error, Unavailable) and time.monotonic() - began < DRAIN_SECONDS
            if busy or blameless(error):
                _give_back(command_id)
                raise
            log.exception("command_failed", command_id=str(command_id), attempt=attempts)
            if attempts == ATTEMPTS:
                self._give_up(command_id)
            return
        if command_id not in batch.closed:  # its mail was left for the next time, to keep the feed's order
            _give_back(command_id)
        self._report.committed(batch)

    def _count_usage(self, agent_id: UUID) -> None:
        with begin(Guard.DRAIN) as db:
            batch = self._drainer.drain(db, _locked(claims.claim_usage(db, agent_id)), only=NO_COMMAND)
        self._report.committed(batch)

    def _give_up(self, command_id: UUID) -> None:
        with begin(Guard.DRAIN) as db:
            buried = drains.bury(db, command_id, self._drainer.task_id)
        if buried:
            self._report.buried(command_id)


def _locked(claim: claims.Claim) -> claims.Claim:
    """The same; raises Unavailable where another drain, or a cancel, has the agent."""
    if not claim.agents:
        raise Unavailable
    return claim


def _knows_the_schema() -> bool:
    """Whether the database is of our revision: for a worker of another one, good commands may fail."""
    with autocommit(Guard.DRAIN) as db:
        there = revisions.current(db)
    if there != revisions.head():
        log.error("another_revision", database=there, worker=revisions.head())
    return there == revisions.head()


def _keep(agent_id: UUID) -> None:
    """A suspect that could not be drained, for what it has got meanwhile as well: it may be long before it is none any
    more, and nobody else drains that."""
    with begin(Guard.DRAIN) as db:
        suspects.name(db, [agent_id], MAILBOX)


def _give_back(command_id: UUID) -> None:
    """An attempt that was not the command's fault; where the database cannot be told so now, it stays counted."""
    try:
        with begin(Guard.DRAIN) as db:
            drains.give_back(db, command_id)
    except Unavailable as error:
        log.warning("attempt_not_given_back", command_id=str(command_id), **logs.cause(error))
