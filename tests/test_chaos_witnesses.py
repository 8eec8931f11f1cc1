"""What the judge of the campaigns finds in small histories made by hand; and their odd neighbours, which are right."""

from typing import Any

import pytest

from tests.chaos.evidence import gather
from tests.chaos.history import Call
from tests.chaos.recovery import at_most
from tests.chaos.report import lines
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
    assert tale.accused() == set()

    tale.change(look, t0=4, t1=5)

    assert tale.accused() == {"order"}


def test_a_refusal_as_of_a_version_that_was_known_to_be_over_is_found() -> None:
    tale = Tale()
    agent = tale.spawn(0)
    early = tale.ask("resume", 1, 20, agent=agent, key="early", body={})
    tale.unanswered(tale.ask("pause", 2, agent=agent, key="pause", body={}))
    tale.ask("get", 4, 5, agent=agent)
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


ITEMS = [{"verb": "pause", "reason": f"many#{number}"} for number in range(2)]


@pytest.mark.parametrize(
    "told",
    [
        {"items": []},
        {"accepted": 1},
        {"accepted": 1, "refused": 1},
        {"items": [{"index": n, "command_id": f"bogus-{n}", "agent_id": f"agent-{n}", "error": None} for n in (0, 1)]},
        {
            "items": [
                {"index": n, "command_id": f"command-{n + 2}", "agent_id": "agent-0", "error": None} for n in (0, 1)
            ]
        },
    ],
)
def test_a_list_that_was_answered_wrongly_is_found(told: dict[str, Any]) -> None:
    tale = Tale()
    items = [item | {"agent_id": tale.spawn(n)} for n, item in enumerate(ITEMS)]
    call = tale.ask("bulk", 3, key="many", body={"commands": items})
    assert tale.accused() == set()

    tale.change(call, answer=call.answer | told)

    assert "bulk" in tale.accused()


@pytest.mark.parametrize(
    ("code", "since", "found"), [("internal", 5, True), ("not_found", 1, True), ("not_found", 5, False)]
)
def test_an_item_can_be_refused_only_for_what_may_be_wrong_with_it(code: str, since: float, found: bool) -> None:
    tale = Tale()
    agent = tale.ask("spawn", 0, key="spawn", body={"name": "scout"}, held_back=True).answer["agent_id"]
    tale.apply()
    tale.ask("get", since, agent=agent)
    call = tale.ask("bulk", 3, key="many", body={"commands": [ITEMS[0] | {"agent_id": agent}]})
    refused = {"index": 0, "command_id": None, "agent_id": agent, "error": {"code": code}}
    tale.change(call, answer=call.answer | {"accepted": 0, "refused": 1, "items": [refused]})

    for events in tale.final.events.values():
        del events[1:]
    tale.final.commands.remove(tale.command("many#0"))

    assert ("bulk" in tale.accused()) == found


def _by_filter(tale: Tale, t0: float, **filter_: str) -> Call:
    return tale.ask("by_filter", t0, key=f"all-{t0}", body={"verb": "pause", "filter": filter_})


def test_a_filter_that_leaves_out_whom_it_must_take_is_found() -> None:
    tale = Tale()
    tale.ask("get", 1, agent=tale.spawn(0))
    call = _by_filter(tale, 3, status="paused")
    assert call.answer["count"] == 0
    assert tale.accused() == set()

    tale.change(call, sent={"body": call.sent["body"] | {"filter": {"status": "idle", "q": "sc"}}})

    assert tale.accused() == {"matching"}


@pytest.mark.parametrize("wanted", [{"q": "never"}, {"status": "waiting"}])
def test_a_filter_that_takes_whom_it_cannot_mean_is_found(wanted: dict[str, str]) -> None:
    tale = Tale()
    tale.ask("get", 1, agent=tale.spawn(0))
    call = _by_filter(tale, 3, status="idle")
    assert call.answer["count"] == 1
    assert tale.accused() == set()

    call = tale.change(call, sent={"body": call.sent["body"] | {"filter": wanted}})
    assert tale.accused() == {"matching"}
    tale.unanswered(call)

    assert tale.accused() == {"matching"}


def test_a_filter_that_takes_the_ended_is_found() -> None:
    tale = Tale()
    agent = tale.spawn(0)
    late = _by_filter(tale, 3, status="idle")
    tale.ask("resume", 4, agent=agent, key="resume", body={})
    tale.ask("terminate", 5, agent=agent, key="end", body={})
    tale.ask("get", 6, agent=agent)
    assert tale.accused() == set()

    tale.change(late, t0=7, t1=8)

    assert "matching" in tale.accused()


def test_whether_a_filter_takes_one_that_changes_meanwhile_is_open() -> None:
    tale = Tale()
    agent = tale.spawn(0)
    tale.ask("pause", 2, 4, agent=agent, key="pause", body={})
    none = _by_filter(tale, 3, status="idle")
    tale.ask("resume", 5, agent=agent, key="resume", body={})
    some = _by_filter(tale, 6, status="idle")

    tale.unanswered(some)
    tale.ask("by_filter", 9, key="all-6", body=some.sent["body"])

    assert (none.answer["count"], some.answer["count"]) == (0, 1)
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
