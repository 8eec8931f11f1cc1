"""What an agent's process is told: go on, pause or end. Read after a beat's own commit, so that a stop binds from its
acceptance on: whatever is queued behind it, and whether or not any worker lives."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, TextClause, text

from orchestrator import stops
from orchestrator.lifecycle import Status, Verb
from orchestrator.pipeline import Call
from orchestrator.stops import Mode, Stop


class Directive(StrEnum):
    """What the process shall do."""

    CONTINUE = "continue"
    PAUSE = "pause"
    TERMINATE = "terminate"


@dataclass(frozen=True, slots=True)
class Told:
    """A directive, how soon and until when it must be obeyed, why, and the agent's version it was read at."""

    directive: Directive
    mode: Mode | None
    deadline: datetime | None
    reason: str | None
    version: int
    status: Status
    said: dict[str, Any]
    """What the process has said last, of its status and its task: as it is queued still, or as the agent shows it; what
    is not known is absent."""
    stopping: bool
    """Whether a stop that has been applied waits for the process to stand still."""

    @property
    def go_on(self) -> bool:
        """Whether the process may work."""
        return self.directive is Directive.CONTINUE


def _reading(these: str) -> TextClause:
    return text(f"""
        SELECT a.id, a.status, a.current_task, a.version, a.holds, a.stop, m.mail, l.epoch, clock_timestamp() AS now,
            CASE WHEN a.status = 'terminated' THEN
                (SELECT e.reason FROM events e WHERE e.agent_id = a.id AND e.version = a.version)
            END AS ended_for
        FROM agents a LEFT JOIN leases l ON l.agent_id = a.id LEFT JOIN LATERAL (
            SELECT jsonb_agg(jsonb_build_object('id', c.id, 'verb', c.verb, 'payload', c.payload, 'reason', c.reason,
                'at', c.created_at, 'epoch', CASE c.actor_type WHEN 'agent' THEN c.epoch END) ORDER BY c.seq) AS mail
            FROM commands c
            WHERE c.agent_id = a.id AND c.state = 'queued' AND c.verb IN ('pause', 'terminate', 'update', 'settle')
        ) m ON true
        WHERE a.id {these} AND a.project_id = :project AND a.status IS NOT NULL
    """)


# Of one alone it is asked by value: of a list, the database does not know how short it is, and plans anew each time.
_READ = _reading("= :id")
_READ_MANY = _reading("= ANY(CAST(:ids AS uuid[]))")


def read(db: Connection, project_id: UUID, agent_ids: Sequence[UUID]) -> dict[UUID, Told]:
    """What the processes of these agents are told now; unborn ones and those that are not the project's are absent."""
    return answer(db.execute(*question(project_id, agent_ids)))


def question(project_id: UUID, agent_ids: Sequence[UUID]) -> Call:
    """The same in two halves, for whoever asks more in one round trip: the statement,"""
    if len(agent_ids) == 1:
        return _READ, {"id": agent_ids[0], "project": project_id}
    return _READ_MANY, {"ids": list(agent_ids), "project": project_id}


def answer(rows: Iterable[Any]) -> dict[UUID, Told]:
    """and what its rows tell."""
    return {row.id: _told(row) for row in rows}


def _told(row: Any) -> Told:
    mail = row.mail or []
    queued = [_queued(command) for command in mail if _stops(command)]
    under_way = [_under_way(row.stop)] if row.stop else []
    due = [stops.by_now(stop, row.now) for stop in [stop for _, stop in queued] + under_way]
    directive = _directive(row.status, [verb for verb, _ in queued])
    return Told(
        directive,
        _mode(row, due),
        stops.earliest(*(stop.deadline for stop in due)),
        next(filter(None, (*(stop.reason for stop in due), *_held_for(row.holds), row.ended_for)), None),
        row.version,
        row.status,
        _said(row, mail),
        stopping=bool(under_way),
    )


def _mode(row: Any, due: list[Stop]) -> Mode | None:
    """None where no stop is under way or about to be. Who stands still already does not go on for the sake of another
    stop that would leave him the task he is at."""
    if not due:
        return None
    stands = row.status == Status.PAUSED and not row.stop
    return stops.hardest(*(stop.mode for stop in due), Mode.CHECKPOINT if stands else Mode.DRAIN)


def _directive(status: str, queued: list[Verb]) -> Directive:
    if status == Status.TERMINATED or Verb.TERMINATE in queued:
        return Directive.TERMINATE
    return Directive.PAUSE if status == Status.PAUSED or queued else Directive.CONTINUE


def _stops(command: dict[str, Any]) -> bool:
    if command["verb"] == Verb.UPDATE:
        return command["payload"].get("status") in (Status.PAUSED, Status.TERMINATED)
    return command["verb"] in (Verb.PAUSE, Verb.TERMINATE)


def _said(row: Any, mail: list[dict[str, Any]]) -> dict[str, Any]:
    """What is known of it. What a former process said may not count, and the word that one has ended changes it: after
    either, nothing is known but what this process says."""
    said = {"status": row.status, "current_task": row.current_task}
    for command in mail:
        if command["epoch"] is not None and command["epoch"] == row.epoch:
            said |= command["payload"]
        elif command["epoch"] is not None or command["verb"] == Verb.SETTLE:
            said = {}
    return said


def _queued(command: dict[str, Any]) -> tuple[Verb, Stop]:
    payload = command["payload"]
    ends = payload.get("status") == Status.TERMINATED or command["verb"] == Verb.TERMINATE
    stop = stops.ordered(UUID(command["id"]), payload, command["reason"], datetime.fromisoformat(command["at"]))
    return Verb.TERMINATE if ends else Verb.PAUSE, stop


def _under_way(stop: dict[str, Any]) -> Stop:
    deadline = stop["deadline"] and datetime.fromisoformat(stop["deadline"])
    return Stop(UUID(stop["commands"][-1]), Mode(stop["mode"]), deadline, stop["reason"])


def _held_for(holds: list[dict[str, Any]]) -> list[str | None]:
    return [hold["reason"] for hold in reversed(holds)]
