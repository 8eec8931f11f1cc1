"""The judge of the campaigns, judged: it accuses no right history, and finds each thing that can be wrong with one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos import history
from tests.chaos.breakages import BREAKAGES
from tests.chaos.checks import CHECKS, Limited, check, counts, judge
from tests.chaos.drafts import Draft, right
from tests.chaos.evidence import gather
from tests.chaos.history import Call, Fault, Final, History
from tests.chaos.misreadings import MISREADINGS
from tests.chaos.recovery import missed, recovery
from tests.chaos.report import lines
from tests.chaos.simulation import SECOND

WRONG = BREAKAGES | MISREADINGS


@pytest.mark.parametrize("seed", range(20))
def test_a_right_history_is_accused_of_nothing(seed: int) -> None:
    evidence = gather(right(seed))

    assert judge(evidence) == []
    assert counts(evidence)["events"] > 50


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_what_is_wrong_is_found(wrong: Callable[[Draft], None]) -> None:
    draft = Draft()
    wrong(draft)

    evidence = gather(draft.history)

    found = judge(evidence)

    assert WRONG[wrong] in {violation.check for violation in found}
    assert any(line.startswith(f"BROKEN {WRONG[wrong]}: ") for line in lines(evidence, found))


def test_every_check_has_something_that_it_finds() -> None:
    assert {each.__name__ for each in CHECKS} <= set(WRONG.values()) | {"slow"}


def test_a_fault_after_which_nothing_goes_on_is_found() -> None:
    told = right(3, 40, faults=1, idle_after=14)

    assert {violation.check for violation in check(told)} == {"slow"}
    assert min(recovery(gather(told))["fault 0"]) > 10


def test_other_faults_excuse_a_slow_one() -> None:
    told = right(3, 40, faults=1, idle_after=14)
    [fault] = told.faults
    others = [Fault("another", "", fault.healed + n * SECOND, fault.healed + (n + 1) * SECOND) for n in range(0, 16, 2)]

    assert check(replace(told, faults=[fault, *others])) == []


def test_one_call_too_many_in_a_window_is_found() -> None:
    limited = Limited("get", 20, 1, {"redis wiped"})
    times = [n * SECOND // 20 for n in range(60)]
    kept = [Call(0, "get", t0 + 1, "a", None, {}, t0 + 2, 404, {}) for t0 in times]
    more = [*kept, Call(0, "get", SECOND, "a", None, {}, SECOND + 1, 404, {})]
    refused = [*kept, Call(0, "get", SECOND, "a", None, {}, SECOND + 1, 429, {})]
    wiped = [Fault("redis wiped", "", SECOND // 2, SECOND // 2)]

    assert check(_history(kept), [limited]) == check(_history(refused), [limited]) == []
    assert [violation.check for violation in check(_history(more), [limited])] == ["limits"]
    assert check(_history(more, wiped), [limited]) == []


def _history(calls: list[Call], faults: list[Fault] | None = None) -> History:
    by_status = dict.fromkeys(("idle", "working", "waiting", "paused", "terminated"), 0)
    numbers = dict.fromkeys(
        ("total_instances", "active_instances", "idle_instances", "total_tasks_completed", "total_tokens_used"), 0
    )
    metrics = numbers | {"total_cost_incurred": "0", "by_status": by_status}
    return History(sorted(calls, key=lambda call: call.t0), faults or [], Final(metrics=metrics))


def test_a_campaign_that_met_too_little_is_inconclusive() -> None:
    told = right()
    assert missed(gather(told), {"fault 0": 1, "fault 1": 1}) == []
    asked = replace(told, calls=[call for call in told.calls if call.op != "terminate" and call.outcome != "unknown"])

    found = missed(gather(asked), {"fault 0": 1, "fault 1": 2, "flood": 3})

    assert found[:2] == ["fault 1: 1 of 2", "flood: 0 of 3"]
    assert found[2:4] == ["no terminate was applied", "no terminate was rejected"]
    assert "no request without an answer" in found[-1]


def test_what_is_written_is_read_and_judged_alike(tmp_path: Path) -> None:
    told = right()
    recorder = history.Recorder(tmp_path, 0)
    for call in told.calls:
        number = recorder.begin(replace(call, t1=None, status=None, answer=None))
        if call.t1 is not None and call.status is not None:
            recorder.end(number, call.t1, call.status, call.answer)
    recorder.close()
    history.write(tmp_path, told.faults, told.final)

    assert history.read(tmp_path) == told
    assert check(history.read(tmp_path)) == []
