"""What the judge of the campaigns finds in what is late, refused for nothing, or told otherwise than it was; histories
made by hand."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.chaos.evidence import gather
from tests.chaos.history import Call, Fault
from tests.chaos.report import lines
from tests.chaos.tales import NOBODY_KNOWS, SECOND, Tale


def _closed_after(tale: Tale, key: str, seconds: float) -> None:
    command = tale.command(key)
    command["closed_at"] = (datetime.fromisoformat(command["requested_at"]) + timedelta(seconds=seconds)).isoformat()


@pytest.mark.parametrize(("seconds", "found"), [(9.9, False), (10.1, True)])
def test_a_command_that_waits_too_long_is_found(seconds: float, found: bool) -> None:
    tale = Tale()
    tale.ask("pause", 20, agent=tale.spawn(0), key="pause", body={})

    _closed_after(tale, "pause", seconds)

    assert tale.accused() == ({"late"} if found else set())
    assert any(f"commands: closed within {seconds:.2f} s" in line for line in lines(gather(tale.history), []))


@pytest.mark.parametrize(("healed", "found"), [(25, True), (31, False)])
def test_the_time_of_one_command_runs_from_the_last_fault(healed: float, found: bool) -> None:
    tale = Tale()
    agent = tale.spawn(0)
    for number in range(200):
        tale.ask("update", 1 + number / 100, agent=agent, key=f"update-{number}", body={"current_task": str(number)})
    tale.ask("pause", 20, agent=agent, key="pause", body={})

    _closed_after(tale, "pause", 20)
    tale.wrong(healed, healed)

    assert tale.accused() == ({"late"} if found else set())


def test_faults_hold_up_few_commands_and_for_ever_none() -> None:
    tale = Tale()
    agent = tale.spawn(0)
    for number in range(99):
        tale.ask("update", 20, agent=agent, key=f"update-{number}", body={"current_task": str(number)})
    for began in range(20, 100, 4):
        tale.wrong(began, began)

    _closed_after(tale, "update-1", 50)
    assert tale.accused() == set()
    _closed_after(tale, "update-1", 61)
    assert tale.accused() == {"late"}
    _closed_after(tale, "update-1", 11)
    _closed_after(tale, "update-2", 11)

    assert tale.accused() == {"late"}


@pytest.mark.parametrize(("began", "healed", "found"), [(0, 1, True), (0, 6, False), (16, 17, False)])
def test_an_answer_that_took_long_where_nothing_was_wrong_is_found(began: float, healed: float, found: bool) -> None:
    tale = Tale()
    look = tale.ask("get", 11, agent=tale.spawn(0))
    tale.wrong(began, healed)
    assert tale.accused() == set()

    tale.change(look, t1=15.5 if began == 0 else 18)

    assert tale.accused() == ({"tardy"} if found else set())


def test_who_wants_to_wait_may_be_answered_later() -> None:
    tale = Tale()
    tale.ask("pause", 11, 17.5, agent=tale.spawn(0), key="pause", body={}, wait=3)

    assert tale.accused() == set()


def _refused(tale: Tale, call: Call, status: int, key: str) -> None:
    """Let it have been refused at the door, without effect."""
    tale.change(call, status=status, answer={})
    tale.final.commands.remove(tale.command(key))
    _undone(tale)


def _undone(tale: Tale) -> None:
    """Let nothing have happened to the only agent after its spawn."""
    for events in tale.final.events.values():
        del events[1:]
    for agent in tale.final.agents:
        agent.update(status="idle", version=1, holds=[], current_task=None)
    tale.final.feed[1:] = tale.final.stream[1:] = []
    tale.final.metrics["by_status"].update(idle=1, paused=0)
    tale.final.metrics["idle_instances"] = 1


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [(404, {}, True), (409, {}, True), (422, {}, True), (429, {}, False), (422, {"until": "2026-01-01"}, False)],
)
def test_an_order_with_which_nothing_is_wrong_is_not_refused(status: int, body: dict[str, Any], found: bool) -> None:
    tale = Tale()
    call = tale.ask("pause", 2, agent=tale.spawn(0), key="pause", body=body)
    assert tale.accused() == set()

    _refused(tale, call, status, "pause")

    assert tale.accused() == ({"refused"} if found else set())


def test_an_order_that_overlaps_the_spawn_may_find_nobody() -> None:
    tale = Tale()
    call = tale.ask("pause", 2, agent=tale.spawn(0), key="pause", body={})

    tale.change(tale.calls[0], t1=2.5)
    _refused(tale, call, 404, "pause")

    assert tale.accused() == set()


def test_a_key_that_was_answered_well_is_not_refused_later() -> None:
    tale = Tale()
    agent = tale.spawn(0)
    first = tale.ask("pause", 2, agent=agent, key="pause", body={})
    again = tale.ask("pause", 3, agent=agent, key="pause", body={})
    assert tale.accused() == set()

    again = tale.change(again, status=422, answer={})
    assert tale.accused() == {"idempotency", "refused"}
    tale.change(again, answer={"command_id": first.answer["id"]})

    assert tale.accused() == {"answers"}, "which only looks at how the command ended"


def _stopped(tale: Tale, *beats: float, **body: Any) -> dict[str, Any]:
    """A pause, at 3, of an agent whose process got a lease of five seconds at 1 and beat at these times."""
    agent = tale.spawn(0)
    tale.ask("lease", 1, agent=agent, body={"holder": "me", "ttl": 5})
    early, late = [t0 for t0 in beats if t0 < 3], [t0 for t0 in beats if t0 > 3]
    for t0 in early:
        tale.ask("beat", t0, agent=agent, body={"epoch": 1})
    tale.ask("pause", 3, agent=agent, key="pause", body=body)
    for t0 in late:
        tale.ask("beat", t0, agent=agent, body={"epoch": 1})
    return tale.command("pause")


@pytest.mark.parametrize("cause", ["no_lease", "expiry"])
@pytest.mark.parametrize(("after", "found"), [(0, True), (4.4, True), (4.8, False)])
def test_a_process_that_was_heard_lately_was_there(cause: str, after: float, found: bool) -> None:
    tale = Tale()
    command = _stopped(tale, 2.9 - 1.8)
    assert tale.accused() == set()

    quiesced = datetime.fromisoformat(command["requested_at"]) + timedelta(seconds=after)
    command.update(quiesced_by=cause, quiesced_at=quiesced.isoformat())

    assert tale.accused() == ({"causes"} if found else set())


def test_where_most_commands_are_long_on_their_way_the_clocks_are_not_further_apart() -> None:
    tale = Tale()
    agent = tale.spawn(0)
    tale.ask("lease", 1, agent=agent, body={"holder": "me", "ttl": 5})
    tale.ask("release", 2.9, 2.95, agent=agent, body={"epoch": 1})
    tale.ask("pause", 3, agent=agent, key="pause", body={})
    for number in range(20, 40):
        tale.change(tale.ask("update", number, agent=agent, key=f"update-{number}", body={}), t0=number - 0.5)

    assert tale.command("pause")["quiesced_by"] == "no_lease"
    assert tale.accused() == set()


@pytest.mark.parametrize("body", [{"mode": "immediate"}, {"deadline": 1}])
def test_a_stop_that_ends_the_lease_leaves_none(body: dict[str, Any]) -> None:
    tale = Tale()
    command = _stopped(tale, 2, **body)

    command.update(quiesced_by="no_lease", quiesced_at=command["closed_at"])

    assert tale.accused() == set()


@pytest.mark.parametrize("known", [{}, NOBODY_KNOWS, {"status": 409}])
def test_a_release_ends_a_stop_only_where_there_was_one(known: dict[str, Any]) -> None:
    tale = Tale()
    agent = tale.spawn(0)
    tale.ask("lease", 1, agent=agent, body={"holder": "me", "ttl": 5})
    tale.ask("pause", 3, agent=agent, key="pause", body={})
    release = tale.ask("release", 4, agent=agent, body={"epoch": 1})
    assert tale.command("pause")["quiesced_by"] == "release"
    assert tale.accused() == set()

    tale.change(release, **known)

    assert ("causes" in tale.accused()) == ("status" in known and known["status"] is not None)


def test_a_hold_that_should_have_ended_long_ago_is_found() -> None:
    tale = Tale()
    tale.ask("pause", 2, agent=tale.spawn(0), key="pause", body={})
    tale.ask("metrics", 5)
    [hold] = tale.final.agents[0]["holds"]
    requested = datetime.fromisoformat(tale.command("pause")["requested_at"])

    for seconds, found in ((9, set()), (1, {"overdue"})):
        hold["until"] = (requested + timedelta(seconds=seconds)).isoformat()
        assert tale.accused() == found


@pytest.mark.parametrize(
    ("state", "kind", "found"),
    [
        ("dead", "poisoned", False),
        ("applied", "poisoned", True),
        ("dead", "fault", True),
        ("cancelled", "poisoned", False),
    ],
)
def test_poison_is_given_up_and_nothing_else(state: str, kind: str, found: bool) -> None:
    tale = Tale()
    agent = tale.spawn(0)
    first, again = (tale.ask("update", t0, agent=agent, key="bad", body={"current_task": "bad"}) for t0 in (2, 3))
    command = tale.command("bad")
    if state != "applied":
        command.update(state=state, version=None)
        _undone(tale)
    tale.faults.append(Fault(kind, f"command {command['id']}", 2 * SECOND, 4 * SECOND))
    if state == "dead":
        tale.change(again, status=500, answer={"command_id": command["id"]})

    assert first.status == 202
    assert bool(tale.accused() & {"dead", "broken"}) == found
