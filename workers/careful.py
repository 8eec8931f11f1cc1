"""Careful work: suspects, drained one command at a time, so that only the bad command fails."""

import time
from uuid import UUID

from billiard.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Connection

from orchestrator import claims, logs, suspects
from orchestrator import drain as drains
from orchestrator.db import DRAIN_SECONDS, Guard, begin, refused
from orchestrator.drain import MAILBOX, NO_COMMAND, Drainer
from orchestrator.errors import Unavailable
from orchestrator.suspects import REST_SECONDS, Suspect
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
        while self._one_agent():
            if self._late:
                bell.ring_now()
                return

    @property
    def _late(self) -> bool:
        return time.monotonic() >= self._ends

    def _one_agent(self) -> bool:
        """Drain one suspect; False when there is none that could be drained now."""
        with begin(Guard.WATCH) as db:  # nobody else tries, or counts, its commands meanwhile
            suspect = suspects.take(db)
            if suspect is None:
                return False
            try:
                if self._drained(suspect):
                    suspects.clear(db, suspect.agent_id)
                else:
                    suspects.put_off(db, suspect.agent_id)
            except SoftTimeLimitExceeded:
                raise
            except Unavailable as error:
                log.warning("suspect_put_off", agent_id=str(suspect.agent_id), **logs.cause(error))
                _let_be(db, suspect.agent_id)
            except Exception:  # whatever it is, others come first when somebody looks again
                log.exception("suspect_put_off", agent_id=str(suspect.agent_id))
                _let_be(db, suspect.agent_id)
        return True

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
            if busy or refused(error):
                _give_back(command_id)
                raise
            log.exception("command_failed", command_id=str(command_id), attempt=attempts)
            if attempts == ATTEMPTS:
                self._give_up(command_id)
            return
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


def _let_be(db: Connection, agent_id: UUID) -> None:
    """For a while. It may be long before it is no suspect any more, and nobody else drains what it has got meanwhile:
    that counts to it."""
    suspects.put_off(db, agent_id, REST_SECONDS)
    suspects.name(db, [agent_id], MAILBOX)


def _give_back(command_id: UUID) -> None:
    """An attempt that was not the command's fault; where the database cannot be told so now, it stays counted."""
    try:
        with begin(Guard.DRAIN) as db:
            drains.give_back(db, command_id)
    except Unavailable as error:
        log.warning("attempt_not_given_back", command_id=str(command_id), **logs.cause(error))
