"""Why an agent is not working right now, and what would change it: in facts, and in sentences made of them."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from orchestrator.lease_tables import LIVE, LOST_AT
from orchestrator.lifecycle import Status
from orchestrator.pipeline import together

SHOWN = 20
"""Queued commands that are told of."""

_QUEUED = text("""
    SELECT id, verb, reason, actor_type, actor_id, extract(epoch FROM clock_timestamp() - created_at)::float AS age
    FROM commands WHERE agent_id = :agent AND state = 'queued' ORDER BY seq LIMIT :most
""")
_LEASE = text(f"""
    SELECT l.epoch, l.holder, l.ttl, {LIVE} AS live, l.granted_at, l.beat_at, l.ended_at, l.ended_by,
        extract(epoch FROM clock_timestamp() - l.beat_at)::float AS age,
        CASE WHEN l.ended_at IS NULL THEN {LOST_AT} END AS lost_at
    FROM leases l WHERE l.agent_id = :agent AND l.id IS NOT NULL
""")
_REFUSED = text("""
    SELECT id AS command_id, verb, error, closed_at AS at FROM commands
    WHERE agent_id = :agent AND state IN ('rejected', 'dead') ORDER BY seq DESC LIMIT 1
""")
_LAST = text("SELECT actor_type, actor_id, reason FROM events WHERE agent_id = :agent AND version = :version")


def explain(db: Connection, agent: Row[Any]) -> dict[str, Any]:
    """All that bears on it; `agent` is the agent's row."""
    place = {"agent": agent.id}
    queued, leases, refused, last = together(
        db,
        (_QUEUED, place | {"most": SHOWN}),
        (_LEASE, place),
        (_REFUSED, place),
        (_LAST, place | {"version": agent.version}),
    )
    mail = [row._asdict() | {"actor": {"type": row.actor_type, "id": row.actor_id}} for row in queued]
    lease, refusal, event = leases.fetchone(), refused.fetchone(), last.fetchone()
    coming = _coming(agent, mail, lease)
    return {
        "agent_id": agent.id,
        "status": agent.status,
        "working": agent.status == Status.WORKING,
        "why": _why(agent, mail, lease, event),
        "what_would_change_it": _ways_out(agent, mail, lease),
        "holds": agent.holds,
        "stop": _stop(agent),
        "queued": mail,
        "lease": lease and lease._asdict(),
        "last_refusal": refusal and refusal._asdict(),
        "next_change": coming[0] if coming else None,
        "coming": coming,
    }


def _stop(agent: Row[Any]) -> dict[str, Any] | None:
    if agent.status not in (Status.PAUSED, Status.TERMINATED):
        return None
    under_way = agent.stop or {"mode": None, "deadline": None}
    return {
        "mode": under_way["mode"],
        "deadline": under_way["deadline"],
        "quiesced_at": agent.quiesced_at,
        "quiesced_by": agent.quiesced_by,
    }


def _why(agent: Row[Any], mail: list[dict[str, Any]], lease: Any, last: Any) -> list[str]:
    lost = _is_lost(lease)
    found = {
        Status.TERMINATED: [_ended(last)],
        Status.PAUSED: [_held(hold) for hold in agent.holds],
        Status.WAITING: [] if lost else ["its process waits for something"],
        Status.IDLE: [] if lost else ["it has nothing to do" if lease and lease.live else _unheld(lease)],
        Status.WORKING: [],
    }[Status(agent.status)]
    if lost:
        found.append(f"{lease.holder} has lost its lease and can write no more; no worker has noticed yet")
    if mail:
        found.append(f"{_number(mail)} in its mailbox, the oldest for {mail[0]['age']:.1f} s")
    if agent.stop and not lost:
        found.append(f"{lease.holder if lease else 'its process'} has not stopped yet")
    return found


def _is_lost(lease: Any) -> bool:
    """Whether it is over by the clock alone: the sweep has not come by since."""
    return lease is not None and lease.ended_at is None and not lease.live


def _ended(last: Any) -> str:
    """Nothing follows a terminate: the agent's last event tells of it."""
    by = f"{last.actor_type} {last.actor_id}" if last.actor_id else f"the {last.actor_type}"
    return f"it was terminated by {by}" + (f": {last.reason}" if last.reason else "")


def _held(hold: dict[str, Any]) -> str:
    reason = f": {hold['reason']}" if hold["reason"] else ""
    until = f" until {hold['until']}" if hold["until"] else ""
    return f"{hold['owner']!r} holds it{until}{reason}"


def _unheld(lease: Any) -> str:
    if lease is None:
        return "no process has ever held its lease"
    return f"no process holds its lease; the last one, {lease.holder}, ended by {lease.ended_by or 'expiry'}"


def _ways_out(agent: Row[Any], mail: list[dict[str, Any]], lease: Any) -> list[str]:
    if agent.status == Status.TERMINATED:
        return ["nothing; spawn another"]
    lost, live = _is_lost(lease), lease is not None and lease.live
    found = [f"a resume with owner {hold['owner']!r}" for hold in agent.holds]
    if mail or lost:
        does = "empties its mailbox" if mail else "notices it"
        found.append(f"a worker that {does}; `orch doctor` says whether one lives")
    unheld = {Status.IDLE, Status.WAITING, Status.WORKING} if lost else {Status.IDLE, Status.WAITING}
    if agent.status in unheld and not live:
        found.append("a process that takes its lease")
    return found


def _coming(agent: Row[Any], mail: list[dict[str, Any]], lease: Any) -> list[dict[str, Any]]:
    """What will happen by itself: as soon as a worker comes to it, and then by the clock."""
    changes: list[tuple[str, datetime | None]] = [
        (f"the hold of {hold['owner']!r} is over", datetime.fromisoformat(hold["until"]))
        for hold in agent.holds
        if hold["until"]
    ]
    if mail:
        changes.append((f"its mailbox is emptied: {_number(mail)}", None))
    if _is_lost(lease):
        changes.append(("the loss of its lease is noticed", None))
    if lease and lease.live:
        changes.append((f"its lease is lost, unless {lease.holder} beats", lease.lost_at))
        if agent.stop and agent.stop["deadline"]:
            changes.append(("its process is fenced", datetime.fromisoformat(agent.stop["deadline"])))
    soonest = sorted(changes, key=lambda change: change[1].timestamp() if change[1] else 0)
    return [{"what": what, "at": at} for what, at in soonest]


def _number(mail: list[dict[str, Any]]) -> str:
    return "1 command" if len(mail) == 1 else f"{len(mail)}{'+' * (len(mail) == SHOWN)} commands"
