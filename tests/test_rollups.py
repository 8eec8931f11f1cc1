"""The roll-ups: each event counts once, in its minute, whatever crashes; and what the pictures make of them."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import isnan
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from orchestrator import rollups, trends
from orchestrator.db import Guard, autocommit, begin
from orchestrator.lifecycle import Status
from orchestrator.trends import Window
from tests.stage import Project, drain, eventually, sql
from web.console.place import RANGES
from workers import tasks
from workers.app import app

HOUR = timedelta(hours=1)


def roll() -> int:
    """Roll up all that there is; how many events were."""
    events, more = 0, True
    while more:
        with begin(Guard.WATCH) as db:
            number, more = rollups.roll(db)
        events += number
    return events


def rolled(project: Project) -> dict[str, int]:
    """How many agents the roll-up has in each status."""
    [row] = sql("SELECT * FROM rollups WHERE project_id = :project", project=project.id)
    return {status: getattr(row, status) for status in Status if getattr(row, status)}


def window(hours: float = 1, step: float = 60) -> Window:
    """The last hours, by the clock of the machine, which is the database's."""
    now = datetime.now(UTC)
    return Window(now - hours * HOUR, now, step)


def fleet(project: Project, hours: float = 1, step: float = 60) -> Sequence[Any]:
    """What the picture of the fleet shows."""
    with autocommit() as db:
        return trends.fleet(db, [UUID(project.id)], window(hours, step))


def told(project: Project, events: int) -> None:
    """Wait until so many events can be read: no older transaction runs any more."""
    path = f"{project.path}/events?limit=100"
    eventually(lambda: len(project.api.get(path).json["data"]) == events)  # type: ignore[index]


def move(at: timedelta, agent: str, version: int) -> None:
    """Let an event have happened so long ago."""
    sql("UPDATE events SET at = now() - :ago WHERE agent_id = :agent AND version = :version",
        ago=at, agent=agent, version=version)  # fmt: skip


def test_the_rolled_up_fleet_is_what_the_counters_say(quiet: Project) -> None:
    agents = [quiet.born() for _ in range(5)]
    quiet.send(agents[0], "pause")
    quiet.send(agents[1], "terminate")
    quiet.send(agents[2], "update", status="working")
    drain()
    told(quiet, 8)

    roll()

    assert rolled(quiet) == {"idle": 2, "working": 1, "paused": 1, "terminated": 1}
    last = fleet(quiet)[-1]
    assert [last.idle, last.working, last.waiting, last.paused, last.terminated] == [2, 1, 0, 1, 1]


def test_rolling_up_again_changes_nothing(quiet: Project) -> None:
    quiet.born()
    told(quiet, 1)
    roll()

    assert roll() == 0
    assert rolled(quiet) == {"idle": 1}


def test_what_a_crash_has_undone_is_rolled_up_the_next_time(quiet: Project) -> None:
    quiet.born()
    told(quiet, 1)
    with autocommit(Guard.WATCH) as db:
        db.execute(text("BEGIN"))
        assert rollups.roll(db).events
        db.execute(text("ROLLBACK"))

    roll()

    assert rolled(quiet) == {"idle": 1}


def test_it_goes_on_piece_by_piece(quiet: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollups, "EACH", 2)
    agents = [quiet.born() for _ in range(5)]
    told(quiet, 5)

    roll()

    assert rolled(quiet) == {"idle": len(agents)}


def test_it_goes_on_however_many_projects_wait(quiet: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [Project.make(quiet.api) for _ in range(3)]
    for each in (quiet, *others):
        for _ in range(3):
            each.born()
    for each in (quiet, *others):
        told(each, 3)
    monkeypatch.setattr(rollups, "MOST", 2)

    roll()

    assert [rolled(each) for each in (quiet, *others)] == [{"idle": 3}] * 4


def test_what_is_older_than_the_pictures_is_in_the_sums_alone(quiet: Project) -> None:
    agent = quiet.born()
    quiet.born()
    told(quiet, 2)
    move(timedelta(days=30), agent, 1)

    roll()

    assert rolled(quiet) == {"idle": 2}
    [row] = sql("SELECT sum(idle) AS idle, count(*) AS n FROM fleet_minutes WHERE project_id = :id", id=quiet.id)
    assert (row.idle, row.n) == (1, 1)
    assert fleet(quiet)[0].idle == 1


def test_two_at_once_count_each_event_once(quiet: Project) -> None:
    for _ in range(30):
        quiet.born()
    told(quiet, 30)

    with ThreadPoolExecutor(8) as pool:
        for run in [pool.submit(roll) for _ in range(8)]:
            run.result()
    roll()

    assert rolled(quiet) == {"idle": 30}
    [hist] = sql("SELECT sum(whole) AS n FROM latency_minutes WHERE project_id = :project", project=quiet.id)
    assert hist.n == 30


def test_the_picture_tells_how_it_was_then(quiet: Project) -> None:
    agent, other = quiet.born(), quiet.born()
    quiet.send(agent, "pause")
    quiet.send(agent, "resume")
    drain()
    told(quiet, 4)
    for version, minutes in ((1, 50), (2, 30), (3, 10)):
        move(timedelta(minutes=minutes), agent, version)
    move(timedelta(hours=2), other, 1)

    roll()

    bins, now = fleet(quiet), datetime.now(UTC)
    for minutes, idle, paused in ((58, 1, 0), (42, 2, 0), (22, 1, 1), (2, 2, 0)):
        then = next(row for row in reversed(bins) if row.start <= now - timedelta(minutes=minutes))
        assert (then.idle, then.paused) == (idle, paused), minutes


def test_a_late_event_of_an_earlier_minute_is_no_harm(quiet: Project) -> None:
    agent = quiet.born()
    told(quiet, 1)
    move(timedelta(minutes=1), agent, 1)
    roll()
    quiet.send(agent, "pause")
    drain()
    told(quiet, 2)
    move(timedelta(minutes=30), agent, 2)
    roll()

    last = fleet(quiet)[-1]
    assert (last.idle, last.paused) == (0, 1)


def test_the_latency_is_split_into_waiting_and_applying(quiet: Project) -> None:
    agent = quiet.born()
    told(quiet, 1)
    sql("""UPDATE commands SET created_at = created_at - interval '2 seconds' WHERE agent_id = :agent""",
        agent=agent)  # fmt: skip
    sql("UPDATE events SET recorded_at = at + interval '40 ms' WHERE agent_id = :agent", agent=agent)
    roll()

    with autocommit() as db:
        [latency] = trends.latency(db, [UUID(quiet.id)], window())
    assert latency.number == 1
    assert 2_000 <= latency.quantiles["waiting"][0] <= 3_000
    assert 30 <= latency.quantiles["applying"][0] <= 50
    assert 2_000 <= latency.quantiles["whole"][2] <= 3_000


def test_usage_is_in_its_hour_by_model_and_type_and_comes_to_the_sums(quiet: Project) -> None:
    agent = quiet.born()
    ago = (datetime.now(UTC) - 3 * HOUR).isoformat()
    entries = [
        {"report_id": "a", "cost": 1.5, "input_tokens": 10, "model": "m1"},
        {"report_id": "b", "cost": 0.25, "output_tokens": 5, "model": "m2", "occurred_at": ago},
        {"report_id": "c", "output_tokens": 7, "occurred_at": ago},
    ]
    quiet.api.post(f"{quiet.agent(agent)}/usage", {"entries": entries})
    quiet.api.post(f"{quiet.agent(agent)}/usage", {"entries": entries})
    drain()

    mine = [UUID(quiet.id)]
    with autocommit() as db:
        hours = trends.cost(db, mine, window(6, 3600))
        models = trends.cost_by(db, mine, window(6, 3600), "model", 10)
        types = trends.cost_by(db, mine, window(6, 3600), "type", 10)
        unpriced = trends.unpriced(db, mine, window(6, 3600), 10)
        strangers = trends.cost(db, [], window(6, 3600))
    assert [(row.cost, row.tokens) for row in hours] == [(Decimal("0.25"), 12), (Decimal("1.5"), 10)]
    assert [(row.name, row.cost, row.entries) for row in models] == [("m1", 1.5, 1), ("m2", 0.25, 1), (None, None, 1)]
    assert [(row.name, row.unpriced) for row in unpriced] == [(None, 1)]
    assert [(row.cost, row.entries) for row in types] == [(Decimal("1.75"), 3)]
    assert strangers == []


def test_workers_roll_up_by_themselves(project: Project) -> None:
    project.spawn()
    told(project, 1)

    tasks.roll.apply_async()

    eventually(lambda: project.id in {str(row.project_id) for row in sql("SELECT project_id FROM rollups")})
    assert app.conf.beat_schedule["roll"]["task"] == tasks.roll.name


def test_what_is_older_than_the_pictures_is_thrown_away(quiet: Project) -> None:
    for age in (9, 1):
        values = {"project": quiet.id, "at": datetime.now(UTC) - timedelta(days=age)}
        sql("INSERT INTO fleet_minutes (project_id, minute) VALUES (:project, :at)", **values)
        sql("INSERT INTO latency_minutes (project_id, minute, bucket) VALUES (:project, :at, 1)", **values)

    deleted = tasks.prune()

    assert deleted["fleet_minutes"] >= 1 <= deleted["latency_minutes"]
    left = Counter(str(row.project_id) for row in sql("SELECT project_id FROM fleet_minutes"))
    assert left[quiet.id] == 1


def test_what_no_picture_shows_by_the_minute_is_summed_up_to_hours_and_all_pictures_stay(quiet: Project) -> None:
    values = {"project": quiet.id}
    sql("""INSERT INTO fleet_minutes (project_id, minute, idle, paused)
        SELECT :project, date_trunc('minute', now()) - n * interval '7 minutes', n % 5, n % 3
        FROM generate_series(0, 1400) n""", **values)  # fmt: skip
    sql("""INSERT INTO latency_minutes (project_id, minute, bucket, waiting, applying, whole)
        SELECT :project, date_trunc('minute', now()) - n * interval '7 minutes', n % 4, 1 + n % 5, 1 + n % 3, 1 + n % 7
        FROM generate_series(0, 1400) n""", **values)  # fmt: skip
    sql(
        "INSERT INTO rollups (project_id, xid, agent_id, version) VALUES (:project, '1', gen_random_uuid(), 1)",
        **values,
    )
    windows = [window(hours, step) for hours, step in RANGES.values()]
    before = pictures(quiet, windows)

    done = tasks.prune()

    assert pictures(quiet, windows) == before
    for table, rows in (("fleet_minutes", 1_000), ("latency_minutes", 1_000)):
        assert done[f"{table}_summed_up"] > rows
        [left] = sql(f"SELECT count(*) AS n FROM {table} WHERE minute < now() - interval '26 h'")
        assert 0 < left.n <= 4 * 7 * 24
    assert tasks.prune()["latency_minutes_summed_up"] == 0


def pictures(project: Project, windows: Sequence[Window]) -> list[Any]:
    """What the pictures of the fleet and of the latencies show, but for the latencies' oldest bin, which begins where
    the window does."""
    with autocommit() as db:
        found: list[Any] = [trends.fleet(db, [UUID(project.id)], window) for window in windows]
        for window in windows:
            latencies = trends.latency(db, [UUID(project.id)], window)
            found.append([latency for latency in latencies if latency.start > window.since])
        return found


@given(counts=st.lists(st.integers(0, 50), min_size=28, max_size=28), q=st.sampled_from(trends.QUANTILES))
def test_a_quantile_lies_in_the_bucket_that_has_it(counts: list[int], q: float) -> None:
    found = trends.quantile(counts, q)

    if not sum(counts):
        assert isnan(found)
        return
    bucket = next(n for n in range(28) if sum(counts[: n + 1]) >= q * sum(counts))
    bounds = (trends.LEAST, *rollups.BOUNDS, rollups.BOUNDS[-1])
    assert bounds[bucket] <= found <= bounds[bucket + 1] + 1e-9
