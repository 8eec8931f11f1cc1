"""The system's own commands: each is sent once, whoever notices first, and judged again when it is applied."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text
from uuid_utils.compat import uuid7

from orchestrator.lifecycle import Verb
from orchestrator.rows import columns, jsonb


@dataclass(frozen=True, slots=True)
class Errand:
    """A command of the system for one agent. Its cause tells it apart from every other: `hold:<id>` and the like."""

    agent_id: UUID
    project_id: UUID
    verb: Verb
    cause: str
    reason: str
    payload: dict[str, Any] = field(default_factory=dict)


# The cause is what makes two sweeps send one command. In its order: two that send the same ones would deadlock in any.
_SEND = text("""
    INSERT INTO commands (id, project_id, agent_id, verb, payload, reason, actor_type, cause)
    SELECT id, project_id, agent_id, verb, payload, reason, 'system', cause
    FROM unnest(CAST(:id AS uuid[]), CAST(:project_id AS uuid[]), CAST(:agent_id AS uuid[]), CAST(:verb AS text[]),
        CAST(:payload AS jsonb[]), CAST(:reason AS text[]), CAST(:cause AS text[]))
        AS due (id, project_id, agent_id, verb, payload, reason, cause)
    ORDER BY cause
    ON CONFLICT (cause) WHERE cause IS NOT NULL DO NOTHING
""")


def send(db: Connection, errands: Sequence[Errand]) -> int:
    """Queue these commands, but for those whose cause has made one before; how many were new. The caller rings."""
    if not errands:
        return 0
    return db.execute(_SEND, columns([_row(errand) for errand in errands])).rowcount


def _row(errand: Errand) -> dict[str, Any]:
    return {
        "id": uuid7(),
        "project_id": errand.project_id,
        "agent_id": errand.agent_id,
        "verb": errand.verb.value,
        "payload": jsonb(errand.payload),
        "reason": errand.reason,
        "cause": errand.cause,
    }
