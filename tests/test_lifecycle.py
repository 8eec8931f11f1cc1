"""The table of moves and what a command does to an agent: pure, so every case is tried."""

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID

import pytest

from orchestrator import stops
from orchestrator.decide import Agent, Command, Moment, Outcome, decide
from orchestrator.errors import Refused
from orchestrator.lifecycle import COMMANDS, MOVES, Status, Verb, edge, edges, move, reachable
from orchestrator.states import State
from orchestrator.stops import Lease

THEN = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 1, 2, tzinfo=UTC)
ID = UUID(int=1)
STOPPED = (Status.PAUSED, Status.TERMINATED)

CONTRACT = {
    Status.IDLE: {"working", "paused", "terminated"},
    Status.WORKING: {"idle", "waiting", "paused", "terminated"},
    Status.WAITING: {"idle", "working", "paused", "terminated"},
    Status.PAUSED: {"idle", "terminated"},
    Status.TERMINATED: set(),
}


def agent(status: Status | None, **more: Any) -> Agent:
    """An agent at version 3 that is busy with something; one that is not born at version 0."""
    born = status is not None
    return Agent(
        id=ID,
        project_id=ID,
        status=status,
        version=3 if born else 0,
        name="scout",
        current_task="count",
        short_term_memory={"a": 1},
        long_term_memory_ref="ref",
        session_id="session",
        last_activity_at=THEN if born else None,
        terminated_at=THEN if status is Status.TERMINATED else None,
        updated_at=THEN,
        holds=[{"id": str(ID), "owner": "manual"}] if status is Status.PAUSED else [],
        stage=stops.quiesced(THEN, stops.Cause.NO_LEASE) if status in STOPPED else stops.GOING,
    )._replace(**more)


def lease(**more: Any) -> Lease:
    """The lease of epoch 1, live."""
    return Lease(1, live=True, released_at=None, acked=False)._replace(**more)


def send(verb: Verb, precondition: int | None = None, **payload: Any) -> Command:
    """A command as the drain reads it."""
    return Command(ID, ID, verb, payload, None, "user", ID, precondition, None, THEN)


def one(before: Agent, command: Command) -> tuple[Agent, Outcome]:
    """What one command does."""
    after, (outcome,) = decide(before, [command], Moment(NOW, None))
    return after, outcome


@pytest.mark.parametrize(("status", "verb"), list(product([None, *Status], MOVES)))
def test_every_verb_moves_from_every_status_or_is_refused_with_what_is_possible(
    status: Status | None, verb: Verb
) -> None:
    if status in MOVES[verb]:
        assert edge(status, move(status, verb)) is verb
        return
    with pytest.raises(Refused) as refused:
        move(status, verb)
    assert refused.value.field == "status"
    assert refused.value.extra == {"current_status": status, "allowed": reachable(status)}
    assert all(target in refused.value.detail for target in reachable(status))


@pytest.mark.parametrize(("before", "after"), list(product(Status, Status)))
def test_what_can_be_reached_is_what_the_contract_says(before: Status, after: Status) -> None:
    assert (after in reachable(before)) is (after.value in CONTRACT[before])


def test_no_two_verbs_lead_the_same_way() -> None:
    assert len({(before, after) for _, before, after in edges()}) == sum(map(len, MOVES.values())) == len(edges())


@pytest.mark.parametrize(("status", "verb"), list(product(Status, [Verb.PAUSE, Verb.RESUME, Verb.TERMINATE])))
def test_a_refused_command_changes_nothing_and_an_applied_one_counts_up(status: Status, verb: Verb) -> None:
    before = agent(status)

    after, outcome = one(before, send(verb))

    if status in MOVES[verb]:
        assert (outcome.state, outcome.version, after.version, after.status) == ("applied", 4, 4, move(status, verb))
        assert (after.updated_at, after.last_activity_at) == (NOW, NOW)
        assert outcome.event is not None
        assert (outcome.event.verb, outcome.event.before, outcome.event.after) == (verb, status, after.status)
    else:
        assert (after, outcome.state, outcome.version, outcome.event) == (before, State.REJECTED, 3, None)
        assert outcome.error is not None
        assert outcome.error["code"] == "invalid_transition"


@pytest.mark.parametrize("command", [send(Verb.TERMINATE), send(Verb.UPDATE, status="terminated", current_task="new")])
def test_terminate_clears_task_and_session_keeps_memory_and_says_so(command: Command) -> None:
    after, outcome = one(agent(Status.WORKING), command)

    assert (after.current_task, after.session_id, after.terminated_at) == (None, None, NOW)
    assert (after.short_term_memory, after.long_term_memory_ref, after.name) == ({"a": 1}, "ref", "scout")
    assert outcome.event is not None
    assert outcome.event.changes == {"current_task": None, "session_id": None}


def test_terminate_of_an_agent_without_task_and_session_changes_only_its_status() -> None:
    _, outcome = one(agent(Status.IDLE, current_task=None, session_id=None), send(Verb.TERMINATE))

    assert outcome.event is not None
    assert outcome.event.changes == {}


@pytest.mark.parametrize("payload", [{}, {"name": "scout"}, {"status": "working"}, {"short_term_memory": {"a": 1}}])
def test_an_update_that_changes_nothing_is_applied_without_an_event(payload: dict[str, Any]) -> None:
    before = agent(Status.WORKING)

    after, outcome = one(before, send(Verb.UPDATE, **payload))

    assert (after, outcome.state, outcome.version, outcome.event) == (before, State.APPLIED, 3, None)


def test_an_update_replaces_fields_and_tells_only_what_differs() -> None:
    changes = {"name": "scout", "current_task": "sleep", "short_term_memory": None, "session_id": None}

    after, outcome = one(agent(Status.WORKING), send(Verb.UPDATE, **changes))

    assert (after.current_task, after.short_term_memory, after.session_id) == ("sleep", {}, None)
    assert after.last_activity_at == THEN, "only a change of status is activity"
    assert outcome.event is not None
    assert outcome.event.verb is Verb.UPDATE
    assert outcome.event.changes == {"current_task": "sleep", "short_term_memory": {}, "session_id": None}


def test_an_update_that_is_refused_its_status_changes_no_field_either() -> None:
    before = agent(Status.IDLE)

    after, outcome = one(before, send(Verb.UPDATE, status="waiting", name="other"))

    assert (after, outcome.state) == (before, State.REJECTED)


@pytest.mark.parametrize("payload", [{}, {"name": "scout"}, {"status": "terminated"}])
def test_a_terminated_agent_accepts_no_update_not_even_an_empty_one(payload: dict[str, Any]) -> None:
    _, outcome = one(agent(Status.TERMINATED), send(Verb.UPDATE, **payload))

    assert outcome.error is not None
    assert outcome.error["code"] == "invalid_transition"


@pytest.mark.parametrize("verb", [verb for verb in COMMANDS if verb is not Verb.SPAWN])
def test_another_version_than_the_one_named_is_refused_before_anything_else(verb: Verb) -> None:
    before = agent(Status.TERMINATED)

    after, outcome = one(before, send(verb, precondition=2))

    assert after == before
    assert outcome.error is not None
    assert outcome.error["code"] == "precondition_failed"


@pytest.mark.parametrize(
    ("held", "counts"),
    [
        (lease(), True),
        (lease(live=False, released_at=THEN), True),
        (lease(live=False, released_at=THEN - timedelta(microseconds=1)), False),
        (lease(live=False), False),
        (lease(epoch=2), False),
        (lease(epoch=2, live=False, released_at=NOW), False),
        (None, False),
    ],
)
def test_what_is_said_in_the_name_of_an_epoch_counts_while_it_lives_and_if_it_was_given_back_later(
    held: Lease | None, counts: bool
) -> None:
    command = send(Verb.UPDATE, name="other")._replace(epoch=1)

    after, (outcome,) = decide(agent(Status.IDLE), [command], Moment(NOW, held))

    assert (outcome.state, after.name) == (("applied", "other") if counts else ("rejected", "scout"))
    assert counts or (outcome.error or {})["code"] == "fenced"


def test_spawn_bears_an_idle_agent_of_version_1_without_activity() -> None:
    after, outcome = one(agent(None), send(Verb.SPAWN, name="scout"))

    assert (after.status, after.version, after.last_activity_at) == (Status.IDLE, 1, None)
    assert outcome.event is not None
    assert (outcome.event.before, outcome.event.changes) == (None, {"name": "scout"})


@pytest.mark.parametrize("verb", [Verb.PAUSE, Verb.RESUME, Verb.TERMINATE, Verb.UPDATE])
def test_what_was_never_born_cannot_be_commanded(verb: Verb) -> None:
    _, outcome = one(agent(None), send(verb))

    assert outcome.error is not None
    assert outcome.error["code"] == "not_found"


def test_a_mailbox_is_applied_in_its_order_each_command_to_what_the_last_one_left() -> None:
    mailbox = [send(Verb.PAUSE), send(Verb.PAUSE), send(Verb.RESUME), send(Verb.TERMINATE), send(Verb.RESUME)]

    after, outcomes = decide(agent(Status.WORKING), mailbox, Moment(NOW, None))

    assert [outcome.state.value for outcome in outcomes] == ["applied", "rejected", "applied", "applied", "rejected"]
    assert [outcome.version for outcome in outcomes] == [4, 4, 5, 6, 6]
    assert (after.status, after.version) == (Status.TERMINATED, 6)
