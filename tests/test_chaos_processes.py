"""What the judge of the campaigns finds in beats of many at once, in what came with beats, and in who stands still;
histories made by hand."""

from typing import Any

import pytest

from tests.chaos.history import Call
from tests.chaos.tales import NOBODY_KNOWS, Tale


def _leased(tale: Tale, agents: int = 1) -> list[str]:
    """Agents whose processes got their leases after one."""
    found = [tale.spawn(number / 10) for number in range(agents)]
    for agent in found:
        tale.ask("lease", 1, agent=agent, body={"holder": "me", "ttl": 5})
    return found


def _entry(report: str) -> dict[str, Any]:
    return {"report_id": report, "input_tokens": 1, "output_tokens": 1, "cost": "1", "tasks_completed": 0}


def _beats(tale: Tale, t0: float, agents: list[str], **says: Any) -> Call:
    return tale.ask("beats", t0, body={"beats": [{"agent_id": agent, "epoch": 1} | says for agent in agents]})


FENCED = {"told": None, "error": {"code": "fenced"}}


def test_many_beats_are_answered_one_by_one() -> None:
    tale = Tale()
    agents = _leased(tale, 2)
    call = _beats(tale, 2, agents)
    first, second = call.answer["data"]
    assert tale.accused() == set()

    for wrong in ([first], [second, first], [first, second, second], [first, second | {"told": None}]):
        call = tale.change(call, answer={"data": wrong})
        assert "beats" in tale.accused()
    for error in ({"code": "fenced"}, {"code": "internal"}):
        call = tale.change(call, answer={"data": [first, second | {"error": error}]})
        assert "beats" in tale.accused()


def test_a_beat_among_many_may_be_refused_alone() -> None:
    tale = Tale()
    first, second = _leased(tale, 2)
    tale.ask("lease", 1.5, agent=second, body={"holder": "me", "ttl": 5})

    call = _beats(tale, 2, [first, second])

    assert call.answer["data"][1]["error"] == {"code": "fenced"}
    assert tale.accused() == set()


def test_a_beat_among_many_that_is_heard_after_too_long_a_silence_is_found() -> None:
    tale = Tale()
    last = _beats(tale, 6, _leased(tale, 2))
    assert tale.accused() == set()

    tale.change(last, t0=9, t1=9.1)

    assert tale.accused() == {"leases"}


def test_what_came_with_beats_is_counted_once() -> None:
    tale = Tale()
    agents = _leased(tale, 2)
    for t0 in (2, 3):
        _beats(tale, t0, agents[:1], entries=[_entry("one")])
    assert tale.accused() == set()

    tale.final.agents[0]["tokens_used"] *= 2

    assert tale.accused() == {"books"}


@pytest.mark.parametrize("together", [True, False])
def test_what_came_with_a_fenced_beat_is_counted(together: bool) -> None:
    tale = Tale()
    [agent] = _leased(tale)
    tale.ask("lease", 2, agent=agent, body={"holder": "me", "ttl": 5})
    said = {"epoch": 1, "entries": [_entry("one")]}
    if together:
        tale.ask("beats", 3, body={"beats": [said | {"agent_id": agent}]})
    else:
        tale.ask("beat", 3, agent=agent, body=said)
    assert tale.accused() == set()

    tale.final.agents[0].update(tokens_used=0, cost_incurred="0")
    tale.final.metrics.update(total_tokens_used=0, total_cost_incurred="0")
    tale.final.usage.clear()

    assert tale.accused() == {"books"}


@pytest.mark.parametrize(("answer", "found"), [(NOBODY_KNOWS, set()), ({"status": 404, "answer": {}}, {"refused"})])
def test_what_came_with_beats_of_which_nobody_knows_may_be_counted_or_not(
    answer: dict[str, Any], found: set[str]
) -> None:
    tale = Tale()
    beat = _beats(tale, 3, _leased(tale), entries=[_entry("one")])
    tale.change(beat, **answer)
    assert tale.accused() == found

    tale.final.agents[0].update(tokens_used=0, cost_incurred="0")
    tale.final.metrics.update(total_tokens_used=0, total_cost_incurred="0")
    tale.final.usage.clear()

    assert tale.accused() == found


def test_a_report_that_came_with_a_beat_is_new_no_more() -> None:
    tale = Tale()
    [agent] = _leased(tale)
    _beats(tale, 2, [agent], entries=[_entry("one")])
    again = tale.ask("usage", 3, agent=agent, key="again", body={"entries": [_entry("one")]})
    assert again.answer["duplicates"] == 1
    assert tale.accused() == set()

    tale.change(again, answer=again.answer | {"accepted": 1, "duplicates": 0})

    assert tale.accused() == {"entries"}


def _paused(tale: Tale, *acknowledged: float, resumed: float | None = None) -> Call:
    """A pause of a leased agent, which its process acknowledges at these times; and the first of these beats."""
    [agent] = _leased(tale)
    tale.ask("pause", 2, agent=agent, key="pause", body={})
    beats = [tale.ask("beat", t0, agent=agent, body={"epoch": 1, "ack": True}) for t0 in acknowledged]
    if resumed is not None:
        tale.ask("resume", resumed, agent=agent, key="resume", body={})
    return beats[0]


def test_a_stop_that_was_acknowledged_and_is_none_is_found() -> None:
    tale = Tale()
    _paused(tale, 3, resumed=4)
    assert tale.command("pause")["quiesced_by"] == "ack"
    assert tale.accused() == set()

    tale.command("pause")["quiesced_by"] = None

    assert tale.accused() == {"still"}


@pytest.mark.parametrize(("t0", "told"), [(3, {}), (3, {"version": 1, "directive": "pause"}), (4.5, {"version": 3})])
def test_an_acknowledgement_that_came_too_late_or_early_proves_nothing(t0: float, told: dict[str, Any]) -> None:
    tale = Tale()
    beat = _paused(tale, 3, resumed=4)
    beat = tale.change(beat, t0=t0, t1=t0 + 2, answer=beat.answer | told)

    tale.command("pause")["quiesced_by"] = None

    assert "still" not in tale.accused()


def test_who_is_stopped_and_not_known_to_stand_still_in_the_end_is_found() -> None:
    tale = Tale()
    _paused(tale, 3)
    assert tale.accused() == set()

    tale.final.agents[0]["quiesced_by"] = None

    assert tale.accused() == {"still"}


@pytest.mark.parametrize("unheard", [False, True])
def test_nobody_acknowledges_for_a_process(unheard: bool) -> None:
    tale = Tale()
    beat = _paused(tale, 3)
    assert tale.accused() == set()

    tale.change(beat, sent={"body": {"epoch": 1, "ack": unheard}}, **(NOBODY_KNOWS if unheard else {}))

    assert tale.accused() == (set() if unheard else {"still"})


@pytest.mark.parametrize(("moment", "found"), [(1.5, True), (2.1, False), (3.5, False), (6, True)])
def test_a_word_that_was_taken_back_or_comes_when_all_is_over_acknowledges_nothing(moment: float, found: bool) -> None:
    tale = Tale()
    [agent] = _leased(tale)
    early = tale.ask("beat", 1.2, agent=agent, body={"epoch": 1, "ack": True})
    tale.ask("beat", 1.7, agent=agent, body={"epoch": 1})
    tale.ask("pause", 2, agent=agent, key="pause", body={})
    tale.ask("resume", 4, agent=agent, key="resume", body={})
    tale.ask("get", 5, agent=agent)
    tale.command("pause")["quiesced_by"] = "ack"
    assert tale.accused() == {"still"}

    tale.change(early, t0=moment, t1=moment + 0.1, answer={"directive": "pause", "version": early.answer["version"]})

    assert ("still" in tale.accused()) == found
