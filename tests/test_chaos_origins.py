"""What the judge of the campaigns finds in what the system and the processes wrote; histories made by hand."""

import pytest

from tests.chaos.history import Call
from tests.chaos.tales import Tale


def _by(tale: Tale, key: str, actor: str) -> None:
    """Let a command be somebody else's than a client's, who never sent it."""
    theirs = {"actor": {"type": actor, "id": None}, "reason": "by itself"}
    command = tale.command(key)
    for event in (event for events in tale.final.events.values() for event in events):
        if event["command_id"] == command["id"]:
            event.update(theirs)
    command.update(theirs)
    tale.calls = [call for call in tale.calls if call.key != key]


def _leased(tale: Tale, agent: str, *beats: tuple[float, dict[str, str]], leases: int = 1) -> list[Call]:
    """What was said in beats at these times, by the last of so many processes."""
    for number in range(leases):
        tale.ask("lease", 1 + number / 10, 1 + number / 10, agent=agent, body={"holder": "me", "ttl": 30})
    return [tale.ask("beat", t0, agent=agent, body={"epoch": leases} | said) for t0, said in beats]


@pytest.mark.parametrize(("order", "found"), [({}, True), ({"owner": "shift"}, True), ({"until": "tomorrow"}, False)])
def test_the_system_lifts_only_a_hold_that_had_an_end(order: dict[str, str], found: bool) -> None:
    tale = Tale()
    agent = tale.spawn(0)
    tale.ask("pause", 2, agent=agent, key="pause", body=order)
    tale.ask("resume", 3, agent=agent, key="resume", body=order)
    assert tale.accused() == set()

    _by(tale, "resume", "system")

    assert tale.accused() == ({"unasked"} if found else set())


@pytest.mark.parametrize(
    ("owner", "leases", "found"), [("fault", 3, False), ("fault", 2, True), ("fault", 0, True), ("budget", 3, True)]
)
def test_the_system_places_only_holds_of_faults(owner: str, leases: int, found: bool) -> None:
    tale = Tale()
    agent = tale.spawn(0)
    _leased(tale, agent, leases=leases)
    tale.ask("pause", 2, agent=agent, key="pause", body={"owner": owner})
    assert tale.accused() == set()

    _by(tale, "pause", "system")

    assert tale.accused() == ({"unasked"} if found else set())


@pytest.mark.parametrize("leases", [0, 1])
def test_the_system_lets_only_those_rest_that_were_leased(leases: int) -> None:
    tale = Tale()
    agent = tale.spawn(0)
    _leased(tale, agent, leases=leases)
    tale.ask("update", 2, agent=agent, key="work", body={"status": "working"})
    tale.ask("update", 3, agent=agent, key="rest", body={"status": "idle"})
    tale.ask("get", 4, agent=agent)
    assert tale.accused() == set()

    _by(tale, "rest", "system")

    assert tale.accused() == (set() if leases else {"unasked"})


def test_a_lease_that_was_asked_for_later_lets_nobody_rest() -> None:
    tale = Tale()
    agent = tale.spawn(0)
    tale.ask("update", 0.2, agent=agent, key="work", body={"status": "working"})
    tale.ask("update", 0.4, agent=agent, key="rest", body={"status": "idle"})
    tale.ask("get", 0.6, agent=agent)
    _leased(tale, agent)

    _by(tale, "rest", "system")

    assert tale.accused() == {"unasked"}


WORKING = {"status": "working", "current_task": "one"}


@pytest.mark.parametrize(
    "said", [{}, {"status": "working"}, WORKING | {"current_task": "two"}, {"current_task": "one", "status": "idle"}]
)
def test_what_a_process_did_and_no_beat_said_is_found(said: dict[str, str]) -> None:
    tale = Tale()
    [beat] = _leased(tale, tale.spawn(0), (2, WORKING))
    assert tale.accused() == set()

    tale.change(beat, sent={"body": {"epoch": 1} | said})

    assert "unasked" in tale.accused()


@pytest.mark.parametrize("known", [{"t1": None, "status": None, "answer": None}, {"status": 409, "answer": {}}])
def test_a_beat_that_nobody_heard_may_have_been_the_cause(known: dict[str, object]) -> None:
    tale = Tale()
    [beat] = _leased(tale, tale.spawn(0), (2, WORKING))

    tale.change(beat, **known)

    assert tale.accused() == set()


def test_a_beat_of_an_epoch_that_was_over_is_no_cause() -> None:
    tale = Tale()
    agent = tale.spawn(0)
    [beat] = _leased(tale, agent, (2, WORKING))
    tale.ask("lease", 4, agent=agent, body={"holder": "me", "ttl": 30})
    assert tale.accused() == set()

    tale.change(beat, t0=5, t1=6, status=409, answer={})

    assert tale.accused() == {"unasked"}


def test_a_beat_that_came_after_its_effect_was_seen_is_no_cause() -> None:
    tale = Tale()
    agent = tale.spawn(0)
    [beat] = _leased(tale, agent, (2, WORKING))
    tale.ask("get", 3, agent=agent)

    tale.change(beat, t0=4, t1=5, answer=beat.answer | {"version": 2})

    assert tale.accused() == {"unasked"}


def test_a_beat_makes_one_event() -> None:
    tale = Tale()
    agent = tale.spawn(0)
    first, _, again = _leased(tale, agent, (2, WORKING), (3, {"status": "idle"}), (4, {"status": "working"}))
    assert tale.accused() == set()

    tale.calls.remove(again)
    assert tale.accused() == {"unasked"}
    tale.calls.append(again)
    tale.calls.remove(first)

    assert tale.accused() == {"unasked"}


def test_a_word_that_was_heard_and_had_no_effect_is_found() -> None:
    tale = Tale()
    agent = tale.spawn(0)
    [beat] = _leased(tale, agent, (2, {}))
    assert tale.accused() == set()

    tale.change(beat, sent={"body": {"epoch": 1} | WORKING})

    assert tale.accused() == {"unasked"}


@pytest.mark.parametrize("said", [{"status": "idle"}, {"current_task": None}])
def test_a_word_that_is_no_news_has_no_effect(said: dict[str, str]) -> None:
    tale = Tale()
    [beat] = _leased(tale, tale.spawn(0), (2, {}))

    tale.change(beat, sent={"body": {"epoch": 1} | said})

    assert tale.accused() == set()


def test_a_word_of_one_who_may_be_paused_already_has_no_effect() -> None:
    tale = Tale()
    agent = tale.spawn(0)
    _leased(tale, agent)
    tale.unanswered(tale.ask("pause", 1.5, agent=agent, key="pause", body={}))
    [beat] = [tale.ask("beat", 2, agent=agent, body={"epoch": 1})]
    assert beat.answer == {"version": 2, "directive": "pause"}

    tale.change(beat, sent={"body": {"epoch": 1} | WORKING})

    assert tale.accused() == set()
