"""Where claims begin: at the very front, unless that walk is long, and then at a mark, and seldom at the front."""

import pytest

from orchestrator import claims
from orchestrator.claims import FRONT, Marks
from orchestrator.db import Guard, begin
from tests.stage import Project, sql
from workers import low_water, tasks
from workers.low_water import LowWater

MARK = Marks(urgent=70_000, bulk=5.0, usage=1e9)


class Clock:
    """The seconds that `time.monotonic` shows."""

    now = 1_000.0

    def monotonic(self) -> float:
        """As time's own."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that stands."""
    clock = Clock()
    monkeypatch.setattr(low_water, "time", clock)
    return clock


@pytest.fixture
def low(quiet: Project) -> LowWater:
    """This process's, which knows nothing of the new database yet."""
    del quiet
    return low_water.low_water()


def test_a_short_walk_is_taken_always(clock: Clock) -> None:
    low = LowWater()

    low.walked(FRONT, low_water.LONG_SECONDS / 2, MARK)

    assert low.begin() == FRONT


def test_after_a_long_walk_claims_begin_at_the_mark_for_twenty_times_as_long(clock: Clock) -> None:
    low = LowWater()

    low.walked(FRONT, 0.5, MARK)
    low.walked(MARK, 0.9, FRONT)  # not from the front: says nothing about it

    assert low.begin() == MARK
    clock.now += 9.9
    assert low.begin() == MARK
    clock.now += 0.2
    assert low.begin() == FRONT


def test_a_mark_never_goes_back_and_a_kind_that_is_not_found_leaves_its_own(clock: Clock) -> None:
    low = LowWater()

    low.walked(FRONT, 0.5, MARK)
    low.walked(FRONT, 0.5, Marks(urgent=60_000, bulk=7.0))

    assert low.begin() == MARK._replace(bulk=7.0)


def test_a_claim_tells_where_it_found_the_first_of_each_kind(quiet: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "LATE", Marks(urgent=1, usage=60.0))
    first, second = quiet.born(), quiet.born()
    for agent in (first, second):
        quiet.send(agent, "pause")
    assert quiet.api.post(f"{quiet.agent(first)}/usage", {"entries": [{"report_id": "r"}]}).status_code == 202
    (waiting,) = sql("SELECT min(seq) AS seq FROM commands WHERE state = 'queued'")
    (entry,) = sql("SELECT extract(epoch FROM created_at)::float AS at FROM usage_entries")

    with begin(Guard.DRAIN) as db:
        found = claims.claim(db, 500)

    assert found.first == Marks(urgent=waiting.seq - 1, usage=entry.at - 60)


def test_a_shift_steps_over_what_an_old_snapshot_keeps_only_now_and_then(
    quiet: Project, low: LowWater, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(low_water, "LONG_SECONDS", 0.0)  # a million closed commands would take their time
    monkeypatch.setattr(low_water, "SHARE", 1e9)
    monkeypatch.setattr(claims, "LATE", FRONT)
    agent = quiet.born()
    quiet.send(agent, "pause")
    assert tasks.drain()["applied"] == 1
    walked: list[Marks] = []
    claim = claims.claim
    monkeypatch.setattr(claims, "claim", lambda db, limit, start: walked.append(start) or claim(db, limit, start))

    quiet.send(agent, "resume")
    done = tasks.drain()

    assert done["applied"] == 1
    assert walked
    assert min(walked) > FRONT


def test_what_is_committed_late_and_lies_before_the_mark_is_found_from_the_front(
    quiet: Project, low: LowWater, clock: Clock
) -> None:
    agent = quiet.born()
    quiet.send(agent, "pause")
    low.walked(FRONT, 0.5, Marks(urgent=10**9))
    assert tasks.drain()["applied"] == 0
    assert not tasks.ring_for_overdue()

    clock.now += 11

    assert tasks.drain()["applied"] == 1


def test_usage_before_the_mark_is_counted_from_the_front_as_well(quiet: Project, low: LowWater, clock: Clock) -> None:
    agent = quiet.born()
    assert quiet.api.post(f"{quiet.agent(agent)}/usage", {"entries": [{"report_id": "r"}]}).status_code == 202
    low.walked(FRONT, 0.5, Marks(usage=4e9))
    assert tasks.drain()["folded"] == 0

    clock.now += 11

    assert tasks.drain()["folded"] == 1


def test_the_look_for_what_waits_too_long_begins_at_the_mark_too(quiet: Project, low: LowWater, clock: Clock) -> None:
    agent = quiet.born()
    quiet.send(agent, "pause")
    sql("UPDATE commands SET created_at = created_at - interval '5 seconds' WHERE state = 'queued'")

    assert tasks.ring_for_overdue()
    low.walked(FRONT, 0.5, Marks(urgent=10**9))
    assert not tasks.ring_for_overdue()
    clock.now += 11
    assert tasks.ring_for_overdue()
