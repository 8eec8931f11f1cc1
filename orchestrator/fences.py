"""Fences: an immediate stop ends the leases of its agents at its acceptance, in the statement that accepts it."""

from orchestrator.rows import NEW_ID


def fencing(stopped: str) -> str:
    """Two more parts of a WITH: they end the leases of `stopped`, an SQL expression with each agent_id and project_id
    once, and queue the system's word that those leases are over.

    A row even where there was none: so that a grant which does not see the command yet waits here, or is seen. The word
    is sent as of any other end: the stop itself may yet be refused or cancelled, and another one wait for this process.
    """
    return f"""
    fence AS (
        INSERT INTO leases AS l (agent_id, project_id, ended_at, ended_by)
        SELECT agent_id, project_id, now(), 'fence' FROM {stopped} ORDER BY agent_id
        ON CONFLICT (agent_id) DO UPDATE SET epoch = l.epoch + 1,
            ended_at = coalesce(l.ended_at, excluded.ended_at), ended_by = coalesce(l.ended_by, excluded.ended_by)
        RETURNING l.id, l.agent_id, l.project_id, l.epoch - 1 AS epoch, l.ended_at
    ), settle AS (
        INSERT INTO commands (id, project_id, agent_id, verb, payload, reason, actor_type, cause)
        SELECT {NEW_ID}, project_id, agent_id, 'settle', jsonb_build_object('by', 'no_lease'), 'lease_fenced',
            'system', 'lease:' || id || ':' || epoch
        FROM fence WHERE id IS NOT NULL AND ended_at = now()
        ON CONFLICT (cause) WHERE cause IS NOT NULL DO NOTHING
    )"""
