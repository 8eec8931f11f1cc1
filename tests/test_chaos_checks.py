"""The judge of the campaigns, judged: it accuses no right history, and finds each thing that can be wrong with one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.chaos import history
from tests.chaos.__main__ import main
from tests.chaos.breakages import BREAKAGES
from tests.chaos.checks import CHECKS, Limited, check, counts, judge
from tests.chaos.drafts import Draft, right
from tests.chaos.evidence import gather
from tests.chaos.floors import FLOORS, floor, missed
from tests.chaos.history import Call, Fault, Final, History
from tests.chaos.misreadings import MISREADINGS
from tests.chaos.negligences import NEGLIGENCES
from tests.chaos.recovery import recovery
from tests.chaos.report import lines
from tests.chaos.simulation import SECOND

WRONG = BREAKAGES | MISREADINGS | NEGLIGENCES


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

    assert {violation.check for violation in check(told)} == {"slow", "late"}
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
    told = right(1, 30, faults=2)
    met = missed(gather(told), {"fault 0": 1, "fault 1": 1}, 100)
    asked = replace(told, calls=[call for call in told.calls if call.op != "terminate" and call.outcome != "unknown"])

    found = missed(gather(asked), {"fault 0": 1, "fault 1": 2, "flood": 3}, 100)

    # which the simulation does not ask for
    unasked = ("found", "reuse", "agent_metrics over the limit", "spawn refused", "asked again")
    assert {*met} == {f"{what}: 0 of 1" for what in unasked}
    assert found[:2] == ["fault 1: 1 of 2", "flood: 0 of 3"]
    assert {"terminate applied: 0 of 1", "terminate rejected: 0 of 1"} < {*found}
    assert "request taken and not answered: 0 of 1" in found


def test_a_campaign_in_which_nothing_went_wrong_or_too_few_asked_is_inconclusive() -> None:
    told = right(1, 30, faults=2)

    assert "nothing went wrong" in missed(gather(replace(told, faults=[])), {}, 1)
    assert any(line.startswith("command accepted: ") for line in missed(gather(told), {}, 10_000))
    assert len(missed(gather(_history([])), {}, 1)) == len(FLOORS) + 2


def test_a_floor_is_in_proportion_to_the_commands() -> None:
    assert [floor(30, commands) for commands in (1, 10_000, 100_000)] == [1, 30, 300]


def test_what_is_written_is_read_and_judged_alike(tmp_path: Path) -> None:
    told = right()
    _keep(told, tmp_path)

    assert history.read(tmp_path) == told
    assert check(history.read(tmp_path)) == []


def test_a_kept_history_in_which_too_little_happened_is_judged_inconclusive(tmp_path: Path) -> None:
    nothing = CliRunner().invoke(main, ["judge", str(tmp_path)])
    history.write(tmp_path, [], _history([]).final)
    empty = CliRunner().invoke(main, ["judge", str(tmp_path)])
    told = right()
    _keep(replace(told, calls=[call for call in told.calls if call.op != "agent_metrics"]), tmp_path)  # has no limit
    history.write_aim(tmp_path, {"fault 0": 1}, 10**6)
    short = CliRunner().invoke(main, ["judge", str(tmp_path)])

    assert [nothing.exit_code, empty.exit_code, short.exit_code] == [2, 2, 2]
    assert "MISSED there is no whole history" in nothing.output
    assert "MISSED nothing went wrong" in empty.output
    assert "of 1000000" in short.output


def _keep(told: History, folder: Path) -> None:
    recorder = history.Recorder(folder, 0)
    for call in told.calls:
        number = recorder.begin(replace(call, t1=None, status=None, answer=None))
        if call.t1 is not None and call.status is not None:
            recorder.end(number, call.t1, call.status, call.answer)
    recorder.close()
    history.write(folder, told.faults, told.final)
