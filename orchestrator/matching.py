"""Commands in bulk, by filter: one for each living agent that matches, in one statement however many there are."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from sqlalchemy import Connection, text
from uuid_utils.compat import uuid7

from orchestrator import idempotency, turns
from orchestrator.db import be_patient
from orchestrator.errors import Conflict, Invalid, Violation
from orchestrator.fences import fencing
from orchestrator.fields import LAX, Body, Id, Owner, Reason, Time, violations, wrong
from orchestrator.fleet import Filter
from orchestrator.idempotency import Once
from orchestrator.keys import Caller
from orchestrator.lifecycle import Status, Verb
from orchestrator.orders import ORDERS, Deadline, Order
from orchestrator.rows import NEW_ID, jsonb
from orchestrator.stops import Mode

SECONDS = 60
"""How long the accepting statement may take: a million agents take some seconds more than the door's other work."""

Word = Annotated[str, Field(min_length=1, max_length=1000)]


def _refuse_null(value: Any) -> Any:
    if value is None:
        raise wrong("cannot be null; leave it out to mean them all")
    return value


NAMED = BeforeValidator(_refuse_null)
"""What is absent narrows nothing down. A null is mostly a variable that nobody has set, and would mean the fleet."""


class Which(Body):
    """Which of the project's living agents: in this status, of this type (slug or id), whose name begins with `q`, to
    whom a command of this `batch` was applied."""

    status: Annotated[Status | None, LAX, NAMED] = None
    type: Annotated[Word | None, NAMED] = None
    q: Annotated[str | None, Field(min_length=1, max_length=100), NAMED] = None
    batch: Annotated[Id | None, NAMED] = None

    def wanted(self) -> Filter:
        """The same as the read side knows it."""
        return Filter(self.status, self.type, self.q, self.batch)


class ByFilter(Body):
    """One command for each agent that matches: the verb, and what the verb's own endpoint takes. With `dry_run` it is
    only counted how many that would be; where there are not `expect_count`, which terminate demands, none is sent."""

    verb: Literal["pause", "resume", "terminate"]
    filter: Which
    dry_run: bool = False
    expect_count: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    reason: Reason | None = None
    owner: Owner | None = None
    until: Time | None = None
    mode: Annotated[Mode | None, LAX] = None
    deadline: Deadline | None = None

    @model_validator(mode="after")
    def _count_before_the_end(self) -> "ByFilter":
        if Verb(self.verb) is Verb.TERMINATE and self.expect_count is None and not self.dry_run:
            raise Invalid(Violation("is required to terminate; a dry_run tells how many there are", "expect_count"))
        return self

    def order(self) -> Order:
        """What each of the agents is asked; raises Invalid for what that verb does not take."""
        given = self.model_dump(exclude_unset=True, exclude={"verb", "filter", "dry_run", "expect_count"})
        try:
            return ORDERS[Verb(self.verb)].model_validate(given)
        except ValidationError as error:
            raise Invalid(*violations(error)) from None


@dataclass(frozen=True, slots=True)
class Sent:
    """A batch, and how many commands it has."""

    batch_id: UUID
    count: int


_MATCHED = """
    SELECT id, created_at FROM agents
    WHERE project_id = :project AND status IS NOT NULL AND status <> 'terminated'{more}
"""
_ACCEPT = f"""
    WITH {turns.FIRST_TURN}, matched AS MATERIALIZED (
        SELECT id, row_number() OVER (ORDER BY created_at, id) AS place FROM ({_MATCHED}) living
    ), found AS (
        SELECT count(*) AS n, count(*) = coalesce(CAST(:expected AS bigint), count(*)) AS as_expected FROM matched
    ), command AS (
        INSERT INTO commands (id, project_id, agent_id, batch_id, lane, turn, verb, payload, reason, actor_id)
        SELECT {NEW_ID}, :project, matched.id, :batch, {turns.BULK}, first.turn + (place - 1) / {turns.PER_TURN}, :verb,
            :payload, :reason, :user
        FROM matched CROSS JOIN first CROSS JOIN found WHERE as_expected
        ORDER BY place
        RETURNING agent_id, project_id, seq
    ), batch AS (
        INSERT INTO batches (id, project_id, actor_id, verb, filter, reason, total, end_turn, first_seq, last_seq)
        SELECT :batch, :project, :user, :verb, :filter, :reason, n, first.turn + n / {turns.PER_TURN}, sent.first,
            sent.last
        FROM first CROSS JOIN found CROSS JOIN (SELECT min(seq) AS first, max(seq) AS last FROM command) sent
        WHERE as_expected
    ){{fence}}
    SELECT n, as_expected FROM found
"""
_UNTIL = text("SELECT CAST(:until AS timestamptz) > now()")
_TOTAL = text("SELECT total FROM batches WHERE id = :id")


def count(db: Connection, project_id: UUID, wanted: Filter) -> int:
    """How many living agents match. The caller has been let into the project."""
    counting = text(f"SELECT count(*) FROM ({_MATCHED.format(more=_more(wanted))}) living")
    return int(db.execute(counting, wanted.values | {"project": project_id}).scalar_one())


def accept_matching(
    db: Connection, caller: Caller, project_id: UUID, body: ByFilter, once: Once | None
) -> tuple[Sent, bool]:
    """Send the order to each living agent that matches; and whether an earlier request with the same key did it.

    The caller has been let into the project. Raises Conflict where there are not as many as expected, Invalid for a
    pause until a time that has passed, KeyReused.
    """
    order, batch_id = body.order(), uuid7()
    if before := idempotency.claim(db, caller, once, batch_id=batch_id):
        return Sent(before.batch_id, db.execute(_TOTAL, {"id": before.batch_id}).scalar_one()), True
    payload = order.payload()
    if payload.get("until") is not None and not db.execute(_UNTIL, {"until": payload["until"]}).scalar_one():
        raise Invalid(Violation("must lie in the future", "until"))
    be_patient(db, SECONDS)
    turns.wait_for(db, project_id)
    wanted = body.filter.wanted()
    values = wanted.values | {
        "project": project_id,
        "user": caller.user_id,
        "batch": batch_id,
        "verb": order.verb.value,
        "filter": jsonb(body.filter.model_dump(mode="json", exclude_none=True)),
        "payload": jsonb(payload),
        "reason": order.reason,
        "expected": body.expect_count,
    }
    found = db.execute(_statement(wanted, order.fences), values).one()
    if not found.as_expected:
        matched = "1 agent matches" if found.n == 1 else f"{found.n} agents match"
        raise Conflict(f"{matched}, not {body.expect_count}; nothing was sent", field="expect_count")
    return Sent(batch_id, found.n), False


def _statement(wanted: Filter, fences: bool) -> Any:
    return text(_ACCEPT.format(more=_more(wanted), fence="," + fencing("command") if fences else ""))


def _more(wanted: Filter) -> str:
    return "".join(f" AND {condition}" for condition in wanted.conditions)
