"""What the judge of the campaigns finds in commands of many agents at once; histories made by hand."""

from typing import Any

import pytest

from tests.chaos.history import Call
from tests.chaos.tales import Tale

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


def test_a_list_tells_whom_a_filter_must_take() -> None:
    tale = Tale()
    tale.spawn(0)
    tale.ask("found", 1)
    call = _by_filter(tale, 3, status="paused")
    assert tale.accused() == set()

    tale.change(call, sent={"body": call.sent["body"] | {"filter": {"status": "idle"}}})

    assert tale.accused() == {"matching"}
