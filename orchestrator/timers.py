"""What becomes due by itself: commands of the system, each sent once, whoever notices first."""

from sqlalchemy import Connection, text
from uuid_utils.compat import uuid7

from orchestrator.rows import columns, jsonb

AT_MOST = 1_000
"""Commands sent at a time; the sweep comes again in a second."""

_DUE_HOLDS = text("""
    SELECT a.id AS agent_id, a.project_id, hold ->> 'id' AS hold
    FROM agents a CROSS JOIN LATERAL jsonb_array_elements(a.holds) hold
    WHERE a.hold_until <= now() AND CAST(hold ->> 'until' AS timestamptz) <= now()
        AND NOT EXISTS (SELECT FROM commands c WHERE c.cause = 'hold:' || (hold ->> 'id'))
    LIMIT :most
""")

# The cause is what makes two sweeps send one command.
_SEND = text("""
    INSERT INTO commands (id, project_id, agent_id, verb, payload, reason, actor_type, cause)
    SELECT id, project_id, agent_id, :verb, payload, :reason, 'system', cause
    FROM unnest(CAST(:id AS uuid[]), CAST(:project_id AS uuid[]), CAST(:agent_id AS uuid[]), CAST(:payload AS jsonb[]),
        CAST(:cause AS text[])) AS due (id, project_id, agent_id, payload, cause)
    ON CONFLICT (cause) WHERE cause IS NOT NULL DO NOTHING
""")


def lift_due_holds(db: Connection) -> int:
    """Send a resume for each hold whose time is over; how many. It is judged again when applied."""
    rows = [
        {
            "id": uuid7(),
            "project_id": due.project_id,
            "agent_id": due.agent_id,
            "payload": jsonb({"hold": due.hold}),
            "cause": f"hold:{due.hold}",
        }
        for due in db.execute(_DUE_HOLDS, {"most": AT_MOST})
    ]
    if not rows:
        return 0
    return db.execute(_SEND, columns(rows) | {"verb": "resume", "reason": "the time of the hold is over"}).rowcount
