"""Leases where two things meet in one order: the one that a race finds once in a thousand, arranged."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from uuid import UUID

import pytest
from sqlalchemy import Connection
from werkzeug.test import TestResponse

from orchestrator import accept, beats, claims, leases
from orchestrator.beats import AgentBeat
from orchestrator.db import Guard, begin
from orchestrator.drain import Drainer
from orchestrator.keys import Caller, KeyRing
from orchestrator.leases import Release
from orchestrator.orders import Pause
from tests.stage import Project, blocked, eventually, is_problem, run, settle, sql, violations
from tests.test_lease_races import own_door
from tests.test_leases import beat, lease, leased, overdue, shown, sweep, told


@pytest.fixture
def agent(quiet: Project) -> str:
    """An idle agent."""
    return quiet.born()


@contextmanager
def meanwhile(act: Callable[[], TestResponse]) -> Iterator[Future[TestResponse]]:
    """What another thread does, once it waits for a lock that this one holds."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(act)
        eventually(lambda: blocked() or running.done())
        yield running


def me(project: Project) -> Caller:
    """The administrator as the core knows him."""
    with begin() as db:
        return KeyRing().look_up(db, project.api.key or "")


def test_an_immediate_stop_is_accepted_after_what_was_being_applied_and_before_all_else(
    quiet: Project, agent: str
) -> None:
    leased(quiet, agent)
    told(quiet, agent, 1, status="working")
    door = own_door(quiet)

    with begin(Guard.DRAIN) as db:
        Drainer(slot=7).drain(db, claims.claim(db, 500))
        stop = ThreadPoolExecutor(1).submit(lambda: door.send(agent, "pause", mode="immediate"))
        eventually(lambda: blocked() or stop.done())
        assert not stop.done(), "what the drain has read is being written"
    stop.result()

    assert shown(quiet, agent)["status"] == "working"
    assert is_problem(beat(quiet, agent, 1, status="idle"), 409, "fenced")


def test_a_grant_that_was_under_way_when_a_pause_was_accepted_is_taken_back(quiet: Project, agent: str) -> None:
    leased(quiet, agent)
    door = own_door(quiet)

    with begin() as db:
        run(db, "SELECT 1 FROM leases WHERE agent_id = :agent FOR UPDATE", agent=agent)
        with meanwhile(lambda: lease(door, agent)) as grant:
            pause = quiet.send(agent, "pause")
            db.commit()
            granted = grant.result()

    assert is_problem(granted, 409, "held")
    settle()
    assert quiet.command(pause["id"])["quiesced_by"] == "no_lease"
    assert is_problem(beat(quiet, agent, 2), 409, "fenced")
    assert violations() == {}


def test_the_end_of_a_replaced_lease_does_not_quiesce_a_pause_that_the_new_process_has_not_obeyed(
    quiet: Project, agent: str
) -> None:
    leased(quiet, agent)
    caller = me(quiet)

    with begin() as db:  # a pause whose number is lower than the lease's end, and whose commit is later
        pause = accept.accept(db, caller, UUID(quiet.id), UUID(agent), Pause()).command
        assert leased(quiet, agent)["epoch"] == 2
    settle()

    assert told(quiet, agent, 2)["directive"] == "pause"
    assert shown(quiet, agent)["quiesced_at"] is None
    told(quiet, agent, 2, ack=True)
    settle()
    assert quiet.command(str(pause.id))["quiesced_by"] == "ack"
    assert violations() == {}


def test_an_immediate_pause_that_is_refused_still_ends_the_one_that_waits(quiet: Project, agent: str) -> None:
    leased(quiet, agent)
    first = quiet.send(agent, "pause")
    settle()
    assert quiet.command(first["id"])["quiesced_at"] is None

    second = quiet.send(agent, "pause", mode="immediate")
    settle()

    assert quiet.command(second["id"])["state"] == "rejected"
    assert is_problem(beat(quiet, agent, 1), 409, "fenced")
    assert quiet.command(first["id"])["quiesced_by"] == shown(quiet, agent)["quiesced_by"] == "no_lease"
    assert violations() == {}


@pytest.mark.parametrize("fate", ["rejected", "cancelled"])
def test_an_agent_whose_process_was_fenced_by_a_stop_that_came_to_nothing_is_put_to_rest(
    quiet: Project, agent: str, fate: str
) -> None:
    leased(quiet, agent)
    told(quiet, agent, 1, status="working")
    settle()

    stop = quiet.api.post(f"{quiet.agent(agent)}/pause", {"mode": "immediate"}, If_Match='"1"').json["id"]  # type: ignore[index]
    if fate == "cancelled":
        assert quiet.api.post(f"{quiet.path}/commands/{stop}/cancel").status_code == 200
    settle()

    assert quiet.command(stop)["state"] == fate
    assert shown(quiet, agent)["status"] == "idle"
    assert violations() == {}


def test_a_process_that_was_told_to_go_on_is_not_taken_to_stand_still(quiet: Project, agent: str) -> None:
    leased(quiet, agent)
    quiet.send(agent, "pause")
    settle()
    told(quiet, agent, 1, ack=True)
    settle()
    quiet.send(agent, "resume")
    settle()
    assert told(quiet, agent, 1, ack=True)["directive"] == "continue"

    again = quiet.send(agent, "pause")
    settle()

    assert quiet.command(again["id"])["quiesced_at"] is None
    assert shown(quiet, agent)["quiesced_at"] is None


def test_a_process_that_has_not_heard_of_its_resumption_stands_still_for_the_next_pause(
    quiet: Project, agent: str
) -> None:
    leased(quiet, agent)
    quiet.send(agent, "pause")
    told(quiet, agent, 1, ack=True)
    quiet.send(agent, "resume")
    again = quiet.send(agent, "pause")
    settle()

    assert quiet.command(again["id"])["quiesced_by"] == "ack"
    assert told(quiet, agent, 1, ack=True)["directive"] == "pause"


@pytest.mark.parametrize("verb", ["pause", "terminate"])
def test_a_process_that_stands_still_is_not_let_go_on_by_a_softer_stop(quiet: Project, agent: str, verb: str) -> None:
    leased(quiet, agent)
    quiet.send(agent, "pause")
    settle()
    told(quiet, agent, 1, ack=True)
    settle()
    assert shown(quiet, agent)["quiesced_by"] == "ack"

    quiet.send(agent, verb, mode="drain", **({"owner": "night"} if verb == "pause" else {}))

    assert told(quiet, agent, 1, ack=True)["mode"] == "checkpoint"
    settle()
    assert told(quiet, agent, 1, ack=True)["directive"] == verb


def test_a_stop_is_told_whatever_is_queued_behind_it(quiet: Project, agent: str) -> None:
    leased(quiet, agent)
    quiet.send(agent, "pause")
    quiet.send(agent, "resume")

    assert told(quiet, agent, 1)["directive"] == "pause"
    assert is_problem(lease(quiet, agent), 409, "held")
    settle()
    assert told(quiet, agent, 1)["directive"] == "continue"


def test_the_last_words_of_a_process_that_has_left_are_heard(quiet: Project, agent: str) -> None:
    leased(quiet, agent)
    told(quiet, agent, 1, status="working", current_task="read")
    settle()
    told(quiet, agent, 1, status="idle", current_task=None)
    assert quiet.api.delete(f"{quiet.agent(agent)}/lease", {"epoch": 1}).status_code == 204
    settle()

    assert (shown(quiet, agent)["status"], shown(quiet, agent)["current_task"]) == ("idle", None)
    assert violations() == {}


def test_the_last_words_of_a_process_that_has_left_are_not_heard_once_it_is_fenced(quiet: Project, agent: str) -> None:
    leased(quiet, agent)
    told(quiet, agent, 1, current_task="read")
    assert quiet.api.delete(f"{quiet.agent(agent)}/lease", {"epoch": 1}).status_code == 204
    quiet.send(agent, "pause", mode="immediate")
    settle()

    assert shown(quiet, agent)["current_task"] is None


def acks(project: Project, agent: str, db: Connection) -> None:
    """The process says that it stands still."""
    beats.take(db, UUID(project.id), [AgentBeat(agent_id=UUID(agent), epoch=1, ack=True)])


def leaves(project: Project, agent: str, db: Connection) -> None:
    """The process gives its lease back."""
    leases.release(db, UUID(project.id), UUID(agent), Release(epoch=1))


@pytest.mark.parametrize(("ends", "cause"), [(acks, "ack"), (leaves, "release")])
def test_a_word_that_comes_while_a_drain_reads_is_not_judged_by_what_was_true_before_it(
    quiet: Project, agent: str, ends: Callable[[Project, str, Connection], None], cause: str
) -> None:
    leased(quiet, agent)
    pause = quiet.send(agent, "pause")
    settle()

    def drain_it() -> None:
        with begin(Guard.DRAIN) as db:
            Drainer(slot=7).drain(db, claims.claim_one(db, UUID(agent)))

    with ThreadPoolExecutor(1) as pool, begin() as db:
        run(db, "LOCK TABLE commands")  # the drain has locked agent and lease, and waits to read its mail
        drained = pool.submit(drain_it)
        eventually(blocked)
        ends(quiet, agent, db)
        db.commit()
        drained.result()
    settle()

    assert quiet.command(pause["id"])["quiesced_by"] == shown(quiet, agent)["quiesced_by"] == cause
    assert violations() == {}


_WAITING_SWEEP = """
    CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF current_query() LIKE '%deadline%' THEN PERFORM pg_advisory_xact_lock(1); END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER wait BEFORE UPDATE ON leases EXECUTE FUNCTION wait();
"""
"""The sweep's fence waits where its statement has begun, and what it sees is settled, before it has locked anything."""


def test_whoever_is_resumed_while_the_sweep_looks_for_overdue_stops_is_not_fenced(quiet: Project, agent: str) -> None:
    other = quiet.born()
    for each in (agent, other):
        leased(quiet, each)
        quiet.send(each, "pause", deadline=5)
    settle()
    overdue(agent)
    overdue(other)
    sql(_WAITING_SWEEP)

    with ThreadPoolExecutor(1) as pool, begin() as db:
        run(db, "SELECT pg_advisory_xact_lock(1)")
        swept = pool.submit(sweep)
        eventually(blocked)
        quiet.send(agent, "resume")
        settle()
        db.commit()
        swept.result()

    assert told(quiet, agent, 1)["directive"] == "continue"
    assert is_problem(beat(quiet, other, 1), 409, "fenced")
    assert violations() == {}
