"""Leases: the right of one process to act as an agent. One at a time, by epochs, and lost where nobody beats."""

import secrets
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, StringConstraints
from sqlalchemy import Connection, Row, text
from uuid_utils.compat import uuid7

from orchestrator import access, directives, errands, fleet, timers
from orchestrator.directives import Directive, Told
from orchestrator.errors import Conflict, Fenced, Held, LeaseHeld, no_agent
from orchestrator.fields import Body, Id
from orchestrator.keys import TOKEN_PREFIX, Caller, digest
from orchestrator.lease_tables import LIVE, LOST_AT
from orchestrator.states import ProjectStatus
from orchestrator.stops import Cause

Holder = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Epoch = Annotated[int, Field(ge=1, lt=2**63)]


class LeaseOrder(Body):
    """Who wants to act as the agent, and for how many seconds it may be silent."""

    holder: Holder
    ttl: Annotated[int, Field(ge=5, le=300)] = 30


class Release(Body):
    """The epoch that is given back."""

    epoch: Epoch
    lease_id: Id | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """A lease as it was granted; the token is nowhere else from now on."""

    agent_id: UUID
    project_id: UUID
    lease_id: UUID
    epoch: int
    ttl: int
    token: str


# Raises the epoch's lock, although it changes nothing: whoever grants or fences waits for this transaction's end.
_SEAT = text(f"""
    INSERT INTO leases AS l (agent_id, project_id, ended_at, ended_by)
    VALUES (:agent, :project, now(), 'release')
    ON CONFLICT (agent_id) DO UPDATE SET epoch = l.epoch
    RETURNING *, {LIVE} AS live, CASE WHEN ended_at IS NULL THEN {LOST_AT} ELSE ended_at END AS over_at
""")
_GRANT = text("""
    UPDATE leases SET epoch = epoch + 1, id = :id, holder = :holder, ttl = :ttl, granted_at = now(), beat_at = now(),
        acked_at = NULL, ended_at = NULL, ended_by = NULL
    WHERE agent_id = :agent RETURNING epoch
""")
_END_TOKENS = text("""
    UPDATE lease_tokens SET ended_at = least(CAST(:over_at AS timestamptz), now())
    WHERE agent_id = :agent AND ended_at IS NULL
""")
_TOKEN = text("INSERT INTO lease_tokens (hash, agent_id, user_id, epoch) VALUES (:hash, :agent, :user, :epoch)")
_END = text(f"""
    UPDATE leases l SET ended_at = now(), ended_by = 'release'
    WHERE l.agent_id = :agent AND l.project_id = :project AND l.epoch = :epoch
        AND coalesce(l.id = CAST(:lease_id AS uuid), true) AND {LIVE}
    RETURNING l.agent_id, l.project_id, l.id, l.epoch
""")


def grant(db: Connection, caller: Caller, project_id: UUID, agent_id: UUID, order: LeaseOrder) -> Grant:
    """The right to act as the agent, with a new epoch; the same holder may ask again, and then starts anew.

    Good only once `confirm` has looked, after the commit, whether a stop was accepted meanwhile. Raises NotFound,
    Held, Conflict (terminated, archived), LeaseHeld.
    """
    project = access.enter(db, caller, project_id)
    fleet.agent(db, caller, project_id, agent_id)
    if project.status == ProjectStatus.ARCHIVED:
        raise Conflict(f"project {project.slug!r} is archived and grants no leases")
    admit(agent_id, directives.read(db, project_id, [agent_id]).get(agent_id))
    seat = db.execute(_SEAT, {"agent": agent_id, "project": project_id}).one()
    if seat.live and seat.holder != order.holder:
        raise LeaseHeld(f"{seat.holder} holds the agent's lease; it is lost {seat.ttl * 4 / 3:g} s after its last beat")
    _replace(db, seat)
    return _granted(db, caller, seat, order)


def confirm(db: Connection, granted: Grant) -> Told | None:
    """What the new holder is told, begun after the grant's commit. Where that is not to go on, the lease is taken back:
    nobody has seen its token. The caller rings, and calls `admit`."""
    told = directives.read(db, granted.project_id, [granted.agent_id]).get(granted.agent_id)
    if told is None or not told.go_on:
        _end(db, granted.project_id, granted.agent_id, Release(epoch=granted.epoch))
    return told


def admit(agent_id: UUID, told: Told | None) -> Told:
    """What was told, if that is to go on; raises NotFound, Conflict or Held where admission is closed."""
    if told is None:
        raise no_agent(agent_id)
    why = f": {told.reason}" if told.reason else ""
    if told.directive is Directive.TERMINATE:
        raise Conflict(f"agent {agent_id} is terminated, or about to be{why}", reason=told.reason)
    if told.directive is Directive.PAUSE:
        raise Held(f"agent {agent_id} is paused, or about to be{why}", reason=told.reason)
    return told


def release(db: Connection, project_id: UUID, agent_id: UUID, order: Release) -> None:
    """Give a lease back. The caller has been let into the project, and rings. Raises Fenced, NotFound."""
    if _end(db, project_id, agent_id, order):
        return
    told = directives.read(db, project_id, [agent_id])
    raise fenced(agent_id, order.epoch, told[agent_id]) if told else no_agent(agent_id)


def fenced(agent_id: UUID, epoch: int, told: Told) -> Fenced:
    """What is said to whoever comes with an old epoch, another's lease, or one that was lost; and what the agent's
    processes are told now."""
    stopped = f"the agent was told to {told.directive}, as of version {told.version}"
    why = "it was lost, given back, replaced or fenced" if told.go_on else stopped
    return Fenced(
        f"epoch {epoch} of the lease of agent {agent_id} is over: {why}",
        directive=told.directive,
        reason=told.reason,
        version=told.version,
    )


def _replace(db: Connection, seat: Row[Any]) -> None:
    """End what was granted before: whatever its process was at is over."""
    db.execute(_END_TOKENS, {"agent": seat.agent_id, "over_at": None if seat.live else seat.over_at})
    if seat.live:
        errands.send(db, [timers.settling(seat, Cause.RELEASE, "lease_replaced")])
    elif seat.ended_at is None:
        errands.send(db, timers.lost_leases(db, seat.agent_id))


def _granted(db: Connection, caller: Caller, seat: Row[Any], order: LeaseOrder) -> Grant:
    values = {"agent": seat.agent_id, "id": uuid7(), "holder": order.holder, "ttl": order.ttl}
    epoch = db.execute(_GRANT, values).scalar_one()
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    db.execute(_TOKEN, {"hash": digest(token), "agent": seat.agent_id, "user": caller.user_id, "epoch": epoch})
    return Grant(seat.agent_id, seat.project_id, values["id"], epoch, order.ttl, token)


def _end(db: Connection, project_id: UUID, agent_id: UUID, order: Release) -> bool:
    place = {"agent": agent_id, "project": project_id}
    ended = db.execute(_END, place | {"epoch": order.epoch, "lease_id": order.lease_id}).one_or_none()
    if ended is None:
        return False
    errands.send(db, [timers.settling(ended, Cause.RELEASE, "lease_released")])
    return True
