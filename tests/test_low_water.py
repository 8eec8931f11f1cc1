"""Where claims begin: at the very front, unless that walk is long, and then at a mark, looked for now and then."""

from collections.abc import Iterator
from contextlib import ExitStack
from uuid import UUID

import pytest
from sqlalchemy import create_engine, text

from orchestrator import bulk, claims
from orchestrator.accept import accept
from orchestrator.claims import FRONT, Marks
from orchestrator.db import Guard, begin
from orchestrator.keys import Caller
from orchestrator.orders import Pause
from orchestrator.settings import settings
from tests.stage import Project, drain, hurried, peers, run, settle, sql
from tests.test_claims import pages_read_by_a_claim
from workers import low_water, shift, tasks
from workers.low_water import LowWater


class Clock:
    """The seconds that `time.monotonic` shows; each look at it takes a little."""

    now, step = 1_000.0, 0.0

    def monotonic(self) -> float:
        """As time's own."""
        self.now += self.step
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that stands."""
    clock = Clock()
    monkeypatch.setattr(low_water, "time", clock)
    return clock


@pytest.fixture
def low(quiet: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[LowWater]:
    """This process's, for which every walk is long: a million closed commands would take their time."""
    del quiet
    monkeypatch.setattr(low_water, "LONG_SECONDS", 0.0)
    monkeypatch.setattr(shift, "BUDGET_SECONDS", 60)
    low = low_water.low_water()
    low.walked(FRONT, 1.0)
    return low


@pytest.fixture
def caller(quiet: Project) -> Caller:
    """The administrator."""
    del quiet
    (row,) = sql("SELECT id, email FROM users")
    return Caller(row.id, row.email, True, True, None, "test", "")


def mark(low: LowWater) -> Marks:
    """Where it begins now."""
    return low.begin()


def everybody(project: Project, verb: str) -> None:
    """Send a command to all of a project's agents."""
    answer = project.api.post(f"{project.path}/commands/by-filter", {"verb": verb, "filter": {}})
    assert answer.status_code == 202, answer.json


def queued() -> int:
    """How many commands wait."""
    return int(sql("SELECT count(*) AS n FROM commands WHERE state = 'queued'")[0].n)


def test_after_short_walks_the_next_begins_at_the_front(quiet: Project, clock: Clock) -> None:
    del quiet
    low = LowWater()

    low.walked(FRONT, low_water.LONG_SECONDS / 2)
    low.walked(Marks(urgent=7), 1.0)  # not from the front: says nothing about it

    assert mark(low) == FRONT


@pytest.mark.parametrize(("took", "rest"), [(0.05, 1.0), (0.5, 2.0), (30.0, 120.0)])
def test_after_a_long_one_there_is_a_look_for_the_mark_now_and_then(
    quiet: Project, clock: Clock, took: float, rest: float
) -> None:
    quiet.born()
    low = LowWater()
    low.walked(FRONT, took)
    clock.step = took
    found = mark(low)
    clock.step = 0.0

    assert found > FRONT
    clock.now += rest - 0.01
    assert mark(low) == found
    clock.now += 0.02
    assert mark(low) == FRONT, "it was looked for, and that has become short"


def test_the_mark_lies_some_way_before_the_first_of_each_kind(quiet: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "LATE", Marks(urgent=1, bulk=0.5, usage=60.0))
    agents = [quiet.born(), quiet.born()]
    settle()
    for agent in agents:
        quiet.send(agent, "pause")
    everybody(quiet, "resume")
    assert quiet.api.post(f"{quiet.agent(agents[0])}/usage", {"entries": [{"report_id": "r"}]}).status_code == 202
    (waiting,) = sql("SELECT min(seq) AS seq, max(turn) AS turn FROM commands WHERE state = 'queued'")
    (entry,) = sql("SELECT extract(epoch FROM created_at)::float AS at FROM usage_entries")

    with begin(Guard.DRAIN) as db:
        found = claims.first(db)

    assert found == (waiting.seq - 1, max(0, waiting.turn - 0.5), entry.at - 60)


def test_where_nothing_waits_the_mark_is_where_the_next_will_come(
    quiet: Project, low: LowWater, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "LATE", FRONT)
    peers(quiet.born(), 5_000)
    with begin(Guard.TOOL) as db:
        run(db, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        run(db, "SELECT 1 FROM commands LIMIT 1")  # a backup's, say
        everybody(quiet, "pause")
        settle()

        assert pages_read_by_a_claim(mark(low)) <= 8
        quiet.send(quiet.born(), "pause")
        everybody(quiet, "resume")
        tasks.drain()

    assert queued() == 0


def test_all_that_lies_before_an_old_mark_goes_in_one_drain(
    quiet: Project, low: LowWater, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shift, "CLAIM", 2)
    for agent in [quiet.born() for _ in range(6)]:
        quiet.send(agent, "pause")
    low._mark, low._due = Marks(urgent=10**9, bulk=1e9, usage=4e9), 0.0

    assert tasks.drain()["applied"] == 6


def test_what_is_committed_late_waits_for_the_next_look_and_no_longer(
    quiet: Project, low: LowWater, clock: Clock, caller: Caller
) -> None:
    peers(quiet.born(), 12_000)
    first, second = quiet.born(), quiet.born()
    with begin(Guard.TOOL) as db:
        late = accept(db, caller, UUID(quiet.id), UUID(first), Pause()).command
        everybody(quiet, "resume")  # whose commands take more numbers than the mark leaves room for
        quiet.send(second, "pause")
        tasks.drain()
    clock.now += low_water.MOST_SECONDS + 0.1

    tasks.drain()

    assert quiet.command(str(late.id))["state"] == "applied"


def test_a_list_that_is_committed_while_another_project_is_drained_goes_with_the_next_look(
    quiet: Project, low: LowWater, clock: Clock, caller: Caller
) -> None:
    peers(quiet.born(), 5_000)
    theirs = Project.make(quiet.api)
    peers(theirs.born(), 999)
    ids = [str(row.id) for row in sql("SELECT id FROM agents WHERE project_id = :p", p=theirs.id)]
    everybody(quiet, "resume")
    with begin(Guard.TOOL) as db:
        bulk.accept_list(db, caller, UUID(theirs.id), [{"verb": "pause", "agent_id": id_} for id_ in ids])
        for _ in range(15):
            drain()
        tasks.drain()
    clock.now += low_water.MOST_SECONDS + 0.1

    tasks.drain()

    assert queued() == 0


def test_what_others_have_in_hand_lies_behind_the_mark(quiet: Project, low: LowWater) -> None:
    peers(quiet.born(), 3_000)
    everybody(quiet, "resume")
    engine = create_engine(settings().database_url or "", connect_args={"options": Guard.DRAIN.value})
    with ExitStack() as others:
        for _ in range(3):
            claims.claim(others.enter_context(engine.connect()), 500)
        tasks.drain()
        assert queued() > 0
    engine.dispose()

    tasks.drain()

    assert queued() == 0


def test_a_look_may_take_longer_than_a_batch(quiet: Project, low: LowWater, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = quiet.born()
    monkeypatch.setattr(claims, "_FIRST", text(f"{claims._FIRST.text.rstrip()} FROM pg_sleep(0.5)"))
    quiet.send(agent, "pause")

    with hurried(300):
        tasks.drain()

    assert queued() == 0
    assert low.begin() > FRONT


def test_the_look_for_what_waits_too_long_begins_at_the_mark_too(
    quiet: Project, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(low_water, "LONG_SECONDS", 0.0)
    agent = quiet.born()
    assert not tasks.ring_for_overdue(), "a long walk: from now on there is a mark"
    assert not tasks.ring_for_overdue()
    low_water.low_water()._due = clock.now + 1
    quiet.send(agent, "pause")
    sql("UPDATE commands SET created_at = created_at - interval '5 seconds', seq = DEFAULT WHERE state = 'queued'")
    low_water.low_water()._mark = Marks(urgent=10**9)

    assert not tasks.ring_for_overdue()
    clock.now += 1.1
    assert tasks.ring_for_overdue()
