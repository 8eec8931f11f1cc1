"""Whose turn it is among the bulk commands: projects alternate, a hundred commands each, whatever their backlogs.

A batch of n commands takes n / 100 of a turn, from where its project's last batch ended, or from where the queue is now
(start-time fair queueing); the queue is served in the order of turns. What was sent one by one has a lane of its own,
which is served first.
"""

from uuid import UUID

from sqlalchemy import Connection, text

URGENT, BULK = 0, 1
"""The lanes: for commands given one by one, and for those given in bulk."""

PER_TURN = 100.0

_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtextextended('turn/' || CAST(:project AS text), 0))")

FIRST_TURN = f"""
    first AS (
        SELECT greatest(
            coalesce(
                (SELECT turn FROM commands WHERE state = 'queued' AND lane = {BULK} ORDER BY lane, turn, seq LIMIT 1),
                (SELECT max(end_turn) FROM batches),
                0
            ),
            coalesce((SELECT max(end_turn) FROM batches WHERE project_id = :project), 0)
        ) AS turn
    )"""
"""A part of a WITH: where the turns of a new batch of :project begin. Where nothing is queued, all begin alike."""


def wait_for(db: Connection, project_id: UUID) -> None:
    """Let one transaction at a time take turns for this project, else several would share them. (Others' go on.)"""
    db.execute(_ONE_AT_A_TIME, {"project": project_id})
