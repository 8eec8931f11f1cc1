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
        "next_change": _next(agent, mail, lease),
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
    found = {
        Status.TERMINATED: [_ended(last)],
        Status.PAUSED: [_held(hold) for hold in agent.holds],
        Status.WAITING: ["its process waits for something"],
        Status.IDLE: ["it has nothing to do" if lease and lease.live else _unheld(lease)],
        Status.WORKING: [],
    }[Status(agent.status)]
    if mail:
        found.append(f"{_number(mail)} in its mailbox, the oldest for {mail[0]['age']:.1f} s")
    if agent.stop:
        found.append(f"{lease.holder if lease else 'its process'} has not stopped yet")
    return found


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
    found = [f"a resume with owner {hold['owner']!r}" for hold in agent.holds]
    if mail:
        found.append("a worker that empties its mailbox; `orch doctor` says whether one lives")
    if agent.status in (Status.IDLE, Status.WAITING) and not (lease and lease.live):
        found.append("a process that takes its lease")
    return found


def _next(agent: Row[Any], mail: list[dict[str, Any]], lease: Any) -> dict[str, Any] | None:
    if mail:
        return {"what": f"its mailbox is emptied: {_number(mail)}", "at": None}
    due = [
        (datetime.fromisoformat(hold["until"]), f"the hold of {hold['owner']!r} is over")
        for hold in agent.holds
        if hold["until"]
    ]
    if agent.stop and agent.stop["deadline"]:
        due.append((datetime.fromisoformat(agent.stop["deadline"]), "its process is fenced"))
    if lease and lease.live:
        due.append((lease.lost_at, f"its lease is lost, unless {lease.holder} beats"))
    if not due:
        return None
    at, what = min(due)
    return {"what": what, "at": at}


def _number(mail: list[dict[str, Any]]) -> str:
    return "1 command" if len(mail) == 1 else f"{len(mail)}{'+' * (len(mail) == SHOWN)} commands"
