"""Beats: a process says that it lives and what it does, and is told whether to go on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, Field
from sqlalchemy import Connection, TextClause, text
from uuid_utils.compat import uuid7

from orchestrator import directives, errands, ledger, timers
from orchestrator.directives import Told
from orchestrator.errors import Invalid, Problem, Violation, no_agent
from orchestrator.fields import LAX, NOT_NULL, Body, Id, Task, wrong
from orchestrator.lease_tables import LIVE
from orchestrator.leases import Epoch, fenced
from orchestrator.ledger import AgentEntry, Entry
from orchestrator.lifecycle import Status
from orchestrator.pipeline import one_by_one
from orchestrator.rows import columns, jsonb

AT_MOST = 500


def _a_process_can_say(status: Status | None) -> Status | None:
    if status in (Status.PAUSED, Status.TERMINATED):
        raise wrong("must be idle, working or waiting")
    return status


class Beat(Body):
    """The epoch of the lease, and what has changed: status, task, usage. `ack` is true as long as the process stands
    still because it was told to."""

    epoch: Epoch
    lease_id: Id | None = None
    status: Annotated[Status | None, LAX, NOT_NULL, AfterValidator(_a_process_can_say)] = None
    current_task: Task | None = None
    entries: Annotated[list[Entry], Field(max_length=ledger.ENTRIES)] = Field(default_factory=list)
    ack: bool = False

    def says(self) -> dict[str, Any]:
        """What it says of the agent, as an update's payload."""
        return self.model_dump(mode="json", include={"status", "current_task"}, exclude_unset=True)


class AgentBeat(Beat):
    """The same, naming its agent."""

    agent_id: Id

    @classmethod
    def of(cls, agent_id: UUID, beat: Beat) -> "AgentBeat":
        """A beat that came to the agent's own address."""
        return cls.model_construct(beat.model_fields_set | {"agent_id"}, agent_id=agent_id, **dict(beat))


class Beats(Body):
    """Beats of up to 500 agents of a project, with up to 1,000 usage entries in all."""

    beats: Annotated[list[AgentBeat], Field(min_length=1, max_length=AT_MOST)]


@dataclass(frozen=True, slots=True)
class Beaten:
    """What each beat was answered, in order, and whether there is mail for the workers now."""

    answers: list[Told | Problem]
    mail: bool


def _beating(given: str) -> TextClause:
    """One narrow row each, of what is `given`. Leases are locked in the order of ids, as everybody does."""
    return text(f"""
        WITH mine AS (
            SELECT l.agent_id, g.ack FROM leases l
            JOIN {given} AS g (agent_id, epoch, lease_id, ack) USING (agent_id, epoch)
            WHERE l.project_id = :project AND coalesce(l.id = g.lease_id, true) AND {LIVE}
            ORDER BY l.agent_id FOR NO KEY UPDATE OF l
        )
        UPDATE leases l SET beat_at = now(), acked_at = CASE WHEN mine.ack THEN coalesce(l.acked_at, now()) END
        FROM mine WHERE l.agent_id = mine.agent_id
        RETURNING l.agent_id, l.project_id, l.id, l.epoch, l.acked_at
    """)


# One alone is sent as values: of a list, the database does not know how short it is, and plans anew each time.
_BEAT = _beating(
    "(VALUES (CAST(:agent_id AS uuid), CAST(:epoch AS bigint), CAST(:lease_id AS uuid), CAST(:ack AS boolean)))"
)
_BEAT_MANY = _beating("""
    unnest(CAST(:agent_id AS uuid[]), CAST(:epoch AS bigint[]), CAST(:lease_id AS uuid[]), CAST(:ack AS boolean[]))
""")
# Judged when they are applied: by the epoch, and by the table.
_SAY = text("""
    INSERT INTO commands (id, project_id, agent_id, verb, payload, actor_type, actor_id, epoch)
    SELECT s.id, :project, s.agent_id, 'update', s.says, 'agent', s.agent_id, s.epoch
    FROM unnest(CAST(:id AS uuid[]), CAST(:agent_id AS uuid[]), CAST(:epoch AS bigint[]), CAST(:says AS jsonb[]))
        AS s (id, agent_id, epoch, says)
""")


def entries(beats: Iterable[AgentBeat]) -> list[AgentEntry]:
    """The usage that came with the beats; raises Invalid where it is too much for one report."""
    found = [AgentEntry(agent_id=beat.agent_id, **dict(entry)) for beat in beats for entry in beat.entries]
    most = ledger.ENTRIES
    if len(found) > most:
        raise Invalid(Violation(f"all beats together may bring at most {most} entries, not {len(found)}", "beats"))
    return found


def take(db: Connection, project_id: UUID, beats: Sequence[AgentBeat]) -> Beaten:
    """Note that these processes live, queue what they say, and read what they are told.

    `db` commits each statement by itself: a directive is read by one that begins after the beat's own commit. The
    caller has been let into the project, and rings where there is mail. An old epoch changes nothing, and is answered
    with Fenced; an unknown agent with NotFound.
    """
    _check_once_each(beats)
    alive, told = _beat(db, project_id, beats)
    news = [(beat, _news(beat, told[beat.agent_id])) for beat in beats if beat.agent_id in alive]
    mail = _say(db, project_id, [(beat, says) for beat, says in news if says])
    # Before a process goes on, its word that it stands still is taken back: it could be taken for the answer to a stop
    # that comes later.
    moving = [beat for beat in beats if beat.ack and beat.agent_id in alive and told[beat.agent_id].go_on]
    if mail or moving:
        again = [beat.model_copy(update={"ack": beat not in moving and beat.ack}) for beat in beats]
        alive, told = _beat(db, project_id, again)
    still = [row for id_, row in alive.items() if row.acked_at is not None and told[id_].stopping]
    mail = errands.send(db, [timers.acknowledging(row) for row in still]) > 0 or mail
    return Beaten([told[b.agent_id] if b.agent_id in alive else _refusal(b, told) for b in beats], mail)


def _check_once_each(beats: Sequence[AgentBeat]) -> None:
    seen: set[UUID] = set()
    for number, beat in enumerate(beats):
        if beat.agent_id in seen:
            raise Invalid(Violation("an agent may be named only once", f"beats.{number}.agent_id"))
        seen.add(beat.agent_id)


def _beat(db: Connection, project_id: UUID, beats: Sequence[AgentBeat]) -> tuple[dict[UUID, Any], dict[UUID, Told]]:
    """The leases that were live, and what all these agents' processes are told after that."""
    ids = [beat.agent_id for beat in beats]
    rows = [{name: getattr(beat, name) for name in ("agent_id", "epoch", "lease_id", "ack")} for beat in beats]
    statement, given = (_BEAT, rows[0]) if len(rows) == 1 else (_BEAT_MANY, columns(rows))
    beating = (statement, given | {"project": project_id})
    alive, found = one_by_one(db, beating, directives.question(project_id, ids))
    return {row.agent_id: row for row in alive}, directives.answer(found)


def _news(beat: AgentBeat, now: Told) -> dict[str, Any]:
    """What it says that neither the agent shows nor its last word, still queued, has said. A process cannot leave
    paused: the status it says meanwhile is not news; nor is anything from one whose agent is terminated."""
    if now.status == Status.TERMINATED:
        return {}
    says = beat.says()
    if now.status == Status.PAUSED:
        says.pop("status", None)
    return says if any(name not in now.said or now.said[name] != value for name, value in says.items()) else {}


def _say(db: Connection, project_id: UUID, news: Sequence[tuple[AgentBeat, dict[str, Any]]]) -> bool:
    if not news:
        return False
    rows = [{"id": uuid7(), "agent_id": beat.agent_id, "epoch": beat.epoch, "says": jsonb(says)} for beat, says in news]
    db.execute(_SAY, columns(rows) | {"project": project_id})
    return True


def _refusal(beat: AgentBeat, told: dict[UUID, Told]) -> Problem:
    if beat.agent_id not in told:
        return no_agent(beat.agent_id)
    return fenced(beat.agent_id, beat.epoch, told[beat.agent_id])
