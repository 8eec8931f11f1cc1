"""Stops: how far a pause or a terminate has come. Pure: values in, new values out.

A stop that meets a live lease is under way: `{commands, mode, deadline, reason}`, the commands that wait for its end,
how soon the process must stand still, until when (RFC 3339, UTC; null: for as long as it takes), and why. It has ended,
quiesced, when the process has stopped or can no longer write.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID


class Mode(StrEnum):
    """How soon the process must stop, the softest first."""

    DRAIN = "drain"
    """After the task it is at."""
    CHECKPOINT = "checkpoint"
    """At its next `checkpoint()`."""
    IMMEDIATE = "immediate"
    """Now: fenced from the acceptance on."""


class Cause(StrEnum):
    """By what an agent is known to stand still."""

    ACK = "ack"
    """Its process said so."""
    RELEASE = "release"
    """Its process gave the lease back."""
    EXPIRY = "expiry"
    """The lease was lost, or the stop's deadline has passed."""
    NO_LEASE = "no_lease"
    """There was no process that could have gone on."""


class Lease(NamedTuple):
    """The last lease of an agent as the drain reads it: live until it is given back, lost or fenced; acked as long as
    its process says that it stands still."""

    epoch: int
    live: bool
    released_at: datetime | None
    """When it was given back: what was accepted under it before then still counts."""
    acked: bool

    def covers(self, epoch: int, accepted_at: datetime) -> bool:
        """Whether what was accepted then, in the name of this epoch, may change anything."""
        in_time = self.live or (self.released_at is not None and accepted_at <= self.released_at)
        return epoch == self.epoch and in_time


class Stage(NamedTuple):
    """How far the stop of an agent has come: none, under way, or quiesced."""

    stop: dict[str, Any] | None = None
    quiesced_at: datetime | None = None
    quiesced_by: Cause | None = None

    @property
    def waiting(self) -> list[UUID]:
        """The commands that wait for the end of the stop."""
        return [UUID(id_) for id_ in self.stop["commands"]] if self.stop else []


GOING = Stage()
"""No stop at all."""


class Stop(NamedTuple):
    """What one command asks for: who waits, how soon, until when, why."""

    command_id: UUID
    mode: Mode
    deadline: datetime | None
    reason: str | None


def ordered(command_id: UUID, payload: dict[str, Any], reason: str | None, accepted_at: datetime) -> Stop:
    """The stop that a command's payload describes; the seconds of its deadline run from its acceptance."""
    seconds = payload.get("deadline")
    deadline = None if seconds is None else accepted_at + timedelta(seconds=seconds)
    return Stop(command_id, Mode(payload.get("mode", Mode.CHECKPOINT)), deadline, reason)


def by_now(stop: Stop, now: datetime) -> Stop:
    """The same stop, which is an immediate one once its deadline has passed."""
    is_over = stop.deadline is not None and stop.deadline <= now
    return stop._replace(mode=Mode.IMMEDIATE) if is_over else stop


def begin(stage: Stage, new: Stop, lease: Lease | None, at: datetime) -> Stage:
    """Stop an agent, for one more reason where it is being stopped already: the hardest mode and the earliest deadline
    count. Quiesced at once where no process can go on, or where it stands still already."""
    if stage.quiesced_at is not None:
        return stage
    cause = _still(lease)
    if cause is not None:
        return quiesced(at, cause)
    given = stage.stop or {"commands": [], "mode": Mode.DRAIN, "deadline": None, "reason": None}
    stop = {
        "commands": [*given["commands"], str(new.command_id)],
        "mode": hardest(Mode(given["mode"]), new.mode),
        "deadline": _written(earliest(_read(given["deadline"]), new.deadline)),
        "reason": new.reason or given["reason"],
    }
    return Stage(stop)


def quiesced(at: datetime, cause: Cause) -> Stage:
    """The agent stands still."""
    return Stage(None, at, cause)


def hardest(*modes: Mode) -> Mode:
    """The mode that leaves the least time."""
    return max(modes, key=list(Mode).index)


def earliest(*deadlines: datetime | None) -> datetime | None:
    """The first of them; None where there is none."""
    return min((deadline for deadline in deadlines if deadline is not None), default=None)


def _still(lease: Lease | None) -> Cause | None:
    if lease is None or not lease.live:
        return Cause.NO_LEASE
    return Cause.ACK if lease.acked else None


def _read(deadline: str | None) -> datetime | None:
    return deadline and datetime.fromisoformat(deadline)  # type: ignore[return-value]


def _written(deadline: datetime | None) -> str | None:
    return deadline and deadline.isoformat().replace("+00:00", "Z")  # type: ignore[return-value]
