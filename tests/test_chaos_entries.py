"""What the judge of the campaigns finds in reports of usage, and in how soon all goes on; histories made by hand."""

import pytest

from tests.chaos.evidence import gather
from tests.chaos.history import Call
from tests.chaos.recovery import at_most
from tests.chaos.report import lines
from tests.chaos.tales import Tale


def _usage(tale: Tale, t0: float, agent: str, key: str, *reports: str) -> Call:
    entries = [
        {"report_id": report, "input_tokens": 1, "output_tokens": 1, "cost": "1", "tasks_completed": 0}
        for report in reports
    ]
    return tale.ask("usage", t0, agent=agent, key=key, body={"entries": entries})


NEW, KNOWN = {"accepted": 1, "duplicates": 0}, {"accepted": 0, "duplicates": 1}


def test_a_report_that_is_new_twice_is_found() -> None:
    tale = Tale()
    agent = tale.spawn(0)
    _usage(tale, 2, agent, "first", "one")
    second = _usage(tale, 3, agent, "second", "one")
    assert second.answer == KNOWN | {"conflicts": []}
    assert tale.accused() == set()

    tale.change(second, answer=second.answer | NEW)

    assert tale.accused() == {"entries"}


def test_a_report_that_is_known_before_anybody_brought_it_is_found() -> None:
    tale = Tale()
    agent = tale.spawn(0)
    first = _usage(tale, 2, agent, "first", "one")
    _usage(tale, 3, agent, "later", "one")

    tale.change(first, answer=first.answer | KNOWN)

    assert tale.accused() == {"entries"}


def test_of_two_reports_that_overlap_either_may_be_the_new_one() -> None:
    tale = Tale()
    agent = tale.spawn(0)
    first = _usage(tale, 2, agent, "first", "one")
    second = _usage(tale, 2.05, agent, "second", "one")

    tale.change(first, answer=first.answer | KNOWN)
    tale.change(second, answer=second.answer | NEW)

    assert tale.accused() == set()


def test_a_report_that_was_not_answered_may_be_known_or_not() -> None:
    tale = Tale()
    agent = tale.spawn(0)
    tale.unanswered(_usage(tale, 2, agent, "first", "one"))
    second = _usage(tale, 3, agent, "second", "one")
    assert tale.accused() == set()

    tale.change(second, answer=second.answer | NEW)

    assert tale.accused() == set()


def test_a_report_that_is_sent_again_with_its_key_is_answered_as_it_was() -> None:
    tale = Tale()
    agent = tale.spawn(0)
    lost = _usage(tale, 2, agent, "first", "one", "one")
    again = _usage(tale, 3, agent, "first", "one", "one")

    tale.unanswered(lost)

    assert again.answer["duplicates"] == 1
    assert tale.accused() == set()


def _asks_after_faults(faults: int, seconds: float) -> Tale:
    """So many faults, each over at once, and what is asked so many seconds after the last."""
    tale = Tale()
    agent = tale.spawn(0)
    for number in range(faults):
        tale.wrong(10 - number / 1000, 10 - number / 1000)
    tale.ask("pause", 10 + seconds, agent=agent, key="pause", body={}, wait=3)
    return tale


@pytest.mark.parametrize(("faults", "seconds", "found"), [(100, 11, True), (100, 9, False), (99, 11, False)])
def test_many_faults_after_which_all_is_slow_are_found(faults: int, seconds: float, found: bool) -> None:
    tale = _asks_after_faults(faults, seconds)

    evidence = gather(tale.history)

    assert at_most(evidence) == pytest.approx(seconds + 0.1, abs=0.1)
    assert any(f"{faults} faults: commands go on within {seconds}." in line for line in lines(evidence, []))
    assert tale.accused() == ({"slow"} if found else set())


@pytest.mark.parametrize(("again", "gives_up", "found"), [(13, 30, True), (11, 30, False), (13, 14, False)])
def test_a_retry_that_is_not_answered_counts_with_its_patience(again: float, gives_up: float, found: bool) -> None:
    tale = Tale()
    agent = tale.spawn(0)
    pause = tale.ask("pause", 4.5, agent=agent, key="pause", body={}, wait=3)
    retry = tale.ask("pause", again, agent=agent, key="pause", body={}, wait=3)
    tale.wrong(4, 10)

    tale.unanswered(pause)
    tale.unanswered(retry)
    tale.ask("resume", gives_up, agent=agent, key="resume", body={}, wait=3)

    assert tale.accused() == ({"slow"} if found else set())
