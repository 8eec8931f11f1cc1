"""What the judge of the campaigns finds in small histories made by hand; and their odd neighbours, which are right."""

from typing import Any

import pytest

from tests.chaos.history import Call
from tests.chaos.tales import NOBODY_KNOWS, UNAVAILABLE, Tale


def test_a_version_that_was_shown_before_its_command_was_sent_is_found() -> None:
    tale = Tale()
    agent = tale.spawn(0)
    tale.ask("pause", 10, agent=agent, key="pause", body={})
    look = tale.ask("get", 12, agent=agent)
    assert tale.accused() == set()

    tale.change(look, t0=4, t1=5)

    assert tale.accused() == {"order"}


def test_a_command_that_becomes_a_version_beneath_one_that_was_shown_is_found() -> None:
    tale = Tale()
    agent = tale.spawn(0)
    beneath = tale.ask("pause", 10, agent=agent, key="beneath", body={})
    above = tale.ask("resume", 11, agent=agent, key="above", body={})
    look = tale.ask("get", 12, agent=agent)
    tale.change(above, t0=1, t1=13)
    tale.unanswered(beneath)
    tale.wrong(1, 13)
    assert tale.accused() == set()

    tale.change(look, t0=4, t1=5)

    assert tale.accused() == {"order"}


def test_a_refusal_as_of_a_version_that_was_known_to_be_over_is_found() -> None:
    tale = Tale()
    agent = tale.spawn(0)
    early = tale.ask("resume", 1, 20, agent=agent, key="early", body={})
    tale.unanswered(tale.ask("pause", 2, agent=agent, key="pause", body={}))
    tale.ask("get", 4, 5, agent=agent)
    tale.wrong(1, 20)
    assert tale.accused() == set()

    tale.change(early, t0=10)

    assert tale.accused() == {"order"}


def test_a_look_that_overlaps_a_command_may_show_it_or_not() -> None:
    tale = Tale()
    agent = tale.spawn(0)
    pause = tale.ask("pause", 2, 8, agent=agent, key="pause", body={})
    tale.ask("get", 3, 4, agent=agent)
    again = tale.ask("pause", 9, agent=agent, key="pause", body={})

    tale.unanswered(pause)

    assert again.answer["id"] == pause.answer["id"]
    assert tale.accused() == set()


def _leased(tale: Tale, *beats: float) -> list[Call]:
    """Beats of an agent whose process got its lease, of five seconds, after one."""
    agent = tale.spawn(0)
    tale.ask("lease", 1, agent=agent, body={"holder": "me", "ttl": 5})
    return [tale.ask("beat", t0, agent=agent, body={"epoch": 1}) for t0 in beats]


def test_a_beat_that_is_heard_after_too_long_a_silence_is_found() -> None:
    tale = Tale()
    _, last = _leased(tale, 3, 9)
    assert last.status == 200
    assert tale.accused() == set()

    tale.change(last, t0=10, t1=10.1)

    assert tale.accused() == {"leases"}


@pytest.mark.parametrize("unknown", [NOBODY_KNOWS, UNAVAILABLE])
def test_a_beat_of_which_nobody_knows_may_have_been_heard(unknown: dict[str, Any]) -> None:
    tale = Tale()
    _, middle, late = _leased(tale, 3, 9, 15)
    assert late.status == 200
    tale.wrong(8, 10)

    tale.change(middle, **unknown)

    assert tale.accused() == set()


def test_a_beat_that_was_refused_keeps_no_lease() -> None:
    tale = Tale()
    middle, _ = _leased(tale, 6, 12)

    tale.change(middle, status=409, answer={"directive": "continue", "version": 1})

    assert tale.accused() == {"leases"}


def test_an_answer_of_a_server_that_knows_no_better_is_found() -> None:
    tale = Tale()
    look = tale.ask("get", 2, agent=tale.spawn(0))
    tale.wrong(1, 3)
    assert tale.accused() == set()

    for status in (500, 502, 503):
        look = tale.change(look, status=status, answer={"errors": [{"code": "internal"}]})
        assert tale.accused() == {"broken"}


def test_a_failure_that_was_put_there_excuses_one_answer() -> None:
    tale = Tale()
    agent = tale.spawn(0)
    looks = [tale.ask("get", t0, agent=agent) for t0 in (2, 2.5, 9)]
    tale.wrong(1, 3, "raise at accepted")

    first, second, late = (tale.change(look, status=500, answer={}) for look in looks)
    assert [found.calls for found in tale.found()] == [(second,), (late,)]
    tale.calls = [call for call in tale.calls if call not in (second, late)]

    assert first in tale.calls
    assert tale.accused() == set()


@pytest.mark.parametrize(("t0", "found"), [(1, True), (4, False), (5.5, False), (14, False), (17, True)])
def test_a_server_is_unavailable_only_while_something_is_wrong_or_soon_after(t0: float, found: bool) -> None:
    tale = Tale()
    look = tale.ask("get", t0, t0 + 1, agent=tale.spawn(0))
    tale.wrong(4.5, 6)

    tale.change(look, **UNAVAILABLE)

    assert ("broken" in tale.accused()) == found


def test_a_list_shows_versions_that_are_known_then_and_never_fall() -> None:
    tale = Tale()
    agent = tale.spawn(0)
    tale.ask("pause", 2, agent=agent, key="pause", body={})
    walk = tale.ask("found", 4)
    look = tale.ask("get", 6, agent=agent)
    assert tale.accused() == set()

    tale.change(look, answer=look.answer | {"version": 1, "status": "idle", "holds": []})
    assert tale.accused() == {"falls"}
    tale.calls = tale.calls[:-1]
    tale.ask("get", 3, agent=agent)
    tale.change(walk, answer={"seen": {agent: 1}})

    assert tale.accused() == {"falls"}
