"""What becomes due by itself, and is found by the sweep: holds that are over, lost leases, deadlines of stops."""

from typing import Any
from uuid import UUID

from sqlalchemy import Connection, TextClause, text

from orchestrator import errands
from orchestrator.errands import Errand
from orchestrator.lease_tables import LIVE, LOST_AT
from orchestrator.lifecycle import Verb
from orchestrator.stops import Cause

AT_MOST = 5_000
"""Of each kind at a time; the sweep comes again in a second."""

FAULT = "fault"
"""The owner of the hold on an agent whose processes are lost again and again."""

LOSSES, LOSSES_WITHIN = 3, "10 minutes"
"""So many lost leases in so short a time, and the agent is paused."""

_DUE_HOLDS = text("""
    SELECT a.id AS agent_id, a.project_id, hold ->> 'id' AS hold
    FROM agents a CROSS JOIN LATERAL jsonb_array_elements(a.holds) hold
    WHERE a.hold_until <= now() AND CAST(hold ->> 'until' AS timestamptz) <= now()
        AND NOT EXISTS (SELECT FROM commands c WHERE c.cause = 'hold:' || (hold ->> 'id'))
    LIMIT :most
""")


def _reap(of: str = "") -> TextClause:
    # The losses that count for a fault are the last ones; once they have led to one they are forgotten.
    return text(f"""
        WITH lost AS (
            SELECT l.agent_id, {LOST_AT} AS at,
                (l.losses || {LOST_AT})[greatest(1, cardinality(l.losses) + 2 - :losses):] AS losses
            FROM leases l WHERE l.ended_at IS NULL AND NOT {LIVE} {of}
            LIMIT :most FOR NO KEY UPDATE SKIP LOCKED
        ), judged AS (
            SELECT *, cardinality(losses) = :losses AND losses[1] > at - interval '{LOSSES_WITHIN}' AS failing
            FROM lost
        )
        UPDATE leases l SET ended_at = j.at, ended_by = 'expiry',
            losses = CASE WHEN j.failing THEN '{{}}' ELSE j.losses END
        FROM judged j WHERE l.agent_id = j.agent_id
        RETURNING l.agent_id, l.project_id, l.id, l.epoch, l.holder, j.failing
    """)


_REAP, _REAP_ONE = _reap(), _reap("AND l.agent_id = :agent")

# The agents are locked as well: else one that is resumed after this statement has begun would be fenced all the same,
# since a drain that ends a stop leaves no trace in the lease. Who is being drained waits for the next sweep.
_FENCE_OVERDUE = text("""
    WITH overdue AS (
        SELECT l.agent_id, l.epoch FROM agents a JOIN leases l ON l.agent_id = a.id
        WHERE a.stop IS NOT NULL AND CAST(a.stop ->> 'deadline' AS timestamptz) <= now() AND l.ended_at IS NULL
        ORDER BY l.agent_id LIMIT :most FOR UPDATE OF l SKIP LOCKED FOR SHARE OF a SKIP LOCKED
    )
    UPDATE leases l SET epoch = l.epoch + 1, ended_at = now(), ended_by = 'fence'
    FROM overdue o WHERE l.agent_id = o.agent_id
    RETURNING l.agent_id, l.project_id, l.id, o.epoch
""")

_ACKED = text(f"""
    SELECT l.agent_id, l.project_id, l.id, l.epoch, l.acked_at FROM leases l JOIN agents a ON a.id = l.agent_id
    WHERE a.stop IS NOT NULL AND l.acked_at IS NOT NULL AND {LIVE}
        AND NOT EXISTS (SELECT FROM commands c WHERE c.agent_id = a.id AND c.state = 'queued' AND c.verb = 'settle')
    LIMIT :most
""")


def send_due(db: Connection) -> int:
    """Send a command for everything that has become due; how many."""
    return errands.send(db, [*_due_holds(db), *lost_leases(db), *_overdue_stops(db), *_acknowledged(db)])


def lost_leases(db: Connection, agent_id: UUID | None = None) -> list[Errand]:
    """End the leases that are lost, all or this agent's: the word of each, and a pause where it was one too many."""
    found = []
    reap = _REAP if agent_id is None else _REAP_ONE
    for lost in db.execute(reap, {"most": AT_MOST, "losses": LOSSES, "agent": agent_id}):
        found.append(settling(lost, Cause.EXPIRY, "lease_lost"))
        if lost.failing:
            found.append(_fault(lost))
    return found


def settling(lease: Any, by: Cause, reason: str) -> Errand:
    """The word that a lease is over: `lease` has agent_id, project_id, id and epoch. One per lease and epoch."""
    cause = f"lease:{lease.id}:{lease.epoch}"
    return Errand(lease.agent_id, lease.project_id, Verb.SETTLE, cause, reason, {"by": by})


def acknowledging(lease: Any) -> Errand:
    """The word that a process stands still, since `lease.acked_at`, and keeps its lease."""
    cause = f"ack:{lease.id}:{lease.epoch}:{lease.acked_at.isoformat()}"
    return Errand(lease.agent_id, lease.project_id, Verb.SETTLE, cause, "acknowledged", {"by": Cause.ACK})


def _due_holds(db: Connection) -> list[Errand]:
    return [
        Errand(
            due.agent_id,
            due.project_id,
            Verb.RESUME,
            f"hold:{due.hold}",
            "the time of the hold is over",
            {"hold": due.hold},
        )
        for due in db.execute(_DUE_HOLDS, {"most": AT_MOST})
    ]


def _fault(lost: Any) -> Errand:
    reason = f"its lease was lost {LOSSES} times within {LOSSES_WITHIN}, the last time by {lost.holder}"
    cause = f"fault:{lost.id}:{lost.epoch}"
    return Errand(lost.agent_id, lost.project_id, Verb.PAUSE, cause, reason, {"owner": FAULT})


def _overdue_stops(db: Connection) -> list[Errand]:
    overdue = db.execute(_FENCE_OVERDUE, {"most": AT_MOST})
    return [settling(lease, Cause.EXPIRY, "the deadline of the stop has passed") for lease in overdue]


def _acknowledged(db: Connection) -> list[Errand]:
    return [acknowledging(lease) for lease in db.execute(_ACKED, {"most": AT_MOST})]
