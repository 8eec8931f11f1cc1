"""What the judge of the campaigns finds in how many calls were admitted, at the edge of what a limit allows."""

import pytest

from tests.chaos.evidence import Violation
from tests.chaos.history import Call, Fault, Final, History
from tests.chaos.limits import AFTER, SECOND, limits

MS = SECOND // 1000
MOST = 5


def _admitted(*times: int, status: int = 200) -> list[Call]:
    """Calls that began at these milliseconds, each answered one later."""
    return [Call(0, "get", t0 * MS, "a", None, {}, (t0 + 1) * MS, status, {}) for t0 in times]


def _found(calls: list[Call], *wiped: tuple[int, int]) -> list[Violation]:
    faults = [Fault("redis wiped", "", t0 * MS, healed) for t0, healed in wiped]
    told = History(sorted(calls, key=lambda call: call.t0), faults, Final())
    return list(limits(told, "get", MOST, 1.0, {"redis wiped"}))


@pytest.mark.parametrize(("last", "found"), [(998, True), (999, False), (1000, False)])
def test_a_window_admits_its_limit_and_not_one_more(last: int, found: bool) -> None:
    assert _found(_admitted(*range(MOST))) == []
    assert bool(_found(_admitted(*range(MOST), last))) == found


@pytest.mark.parametrize("status", [401, 429, 500, 503])
def test_what_was_not_admitted_does_not_count(status: int) -> None:
    assert _found(_admitted(*range(MOST)) + _admitted(500, status=status)) == []


@pytest.mark.parametrize(("wipes", "most"), [(1, 10), (2, 15)])
def test_each_wipe_allows_the_limit_once_more(wipes: int, most: int) -> None:
    wiped = [(number, number * MS) for number in range(1, wipes + 1)]

    assert _found(_admitted(*range(most)))
    assert _found(_admitted(*range(most)), *wiped) == []
    assert _found(_admitted(*range(most + 1)), *wiped)


@pytest.mark.parametrize(("later", "found"), [(0, False), (1, True)])
def test_a_door_does_without_redis_only_for_a_while_after_it_is_back(later: int, found: bool) -> None:
    healed = 10 * SECOND
    begin = (healed + AFTER) // MS + later

    assert bool(_found(_admitted(*range(begin, begin + MOST + 1)), (9_000, healed))) == found


@pytest.mark.parametrize(("ended", "found"), [(10, False), (9, True)])
def test_a_wipe_that_comes_after_the_window_excuses_nothing(ended: int, found: bool) -> None:
    assert bool(_found(_admitted(*range(ended - MOST - 1, ended)), (10, 11 * MS))) == found
