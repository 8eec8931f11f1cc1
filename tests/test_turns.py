"""Whose turn it is: what was sent one by one first, and projects in turn, whatever their backlogs."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from orchestrator import claims
from orchestrator.db import Guard, begin
from tests.redis_server import OwnRedis
from tests.stage import Project, Worker, drain, eventually, held, peers, run, settle, sql, violations
from tests.test_bulk import bulk, progress
from tests.test_matching import by_filter

BACKLOG = 5_000


@pytest.fixture
def busy(quiet: Project) -> Project:
    """A project with a backlog in bulk."""
    peers(quiet.born(), BACKLOG - 1)
    by_filter(quiet)
    return quiet


def closed(project: Project) -> int:
    """How many of the project's bulk commands are closed."""
    (row,) = sql(
        "SELECT count(*) AS n FROM commands WHERE lane = 1 AND state <> 'queued' AND project_id = :p", p=project.id
    )
    return int(row.n)


def other(project: Project, agents: int) -> tuple[Project, str]:
    """Another project, and its batch of one pause for each of so many agents."""
    theirs = Project.make(project.api)
    ids = [theirs.spawn(wait=False)["agent_id"] for _ in range(agents)]
    batch = bulk(theirs, *({"verb": "pause", "agent_id": id_} for id_ in ids)).json["batch_id"]
    return theirs, batch


def test_a_backlog_does_not_hold_up_another_projects_batch(busy: Project) -> None:
    theirs, batch = other(busy, 100)

    while not progress(theirs, batch)["done"]:
        drain()

    assert closed(theirs) == 100
    assert closed(busy) <= 100
    settle()
    assert violations() == {}


def test_nor_does_it_with_two_workers_at_work(busy: Project, own_redis: OwnRedis, home: Path) -> None:
    del own_redis
    theirs, batch = other(busy, 100)
    finished = """
        SELECT count(*) AS n FROM commands c WHERE lane = 1 AND project_id = :p AND closed_at <=
            (SELECT max(closed_at) FROM commands WHERE batch_id = :batch)
    """

    with Worker.start(home / "turns.log"):
        eventually(lambda: progress(theirs, batch)["done"], 30)
        eventually(lambda: closed(busy) == BACKLOG, 60)

    (before,) = sql(finished, p=busy.id, batch=batch)
    assert before.n <= 300
    assert violations() == {}


def test_a_project_that_sends_batch_after_batch_gets_no_more_than_its_turn(busy: Project) -> None:
    theirs, _ = other(busy, 100)
    agents = [str(row.id) for row in sql("SELECT id FROM agents WHERE project_id = :p", p=theirs.id)]
    with ThreadPoolExecutor(4) as pool:
        items: list[Any] = [{"verb": "resume", "agent_id": id_} for id_ in agents]
        list(pool.map(lambda _: bulk(theirs, *items), range(9)))

    turns = sql(
        "SELECT count(*) AS n FROM commands WHERE lane = 1 AND project_id = :p GROUP BY floor(turn)", p=theirs.id
    )

    assert [row.n for row in turns] == [100] * 10


def test_after_an_empty_queue_all_begin_alike(quiet: Project) -> None:
    agent = quiet.born()
    bulk(quiet, *[{"verb": "resume", "agent_id": agent}] * 500)
    settle()
    other(quiet, 1)

    bulk(quiet, {"verb": "pause", "agent_id": agent})

    rows = sql("SELECT turn FROM commands WHERE lane = 1 AND state = 'queued' ORDER BY turn")
    assert [row.turn for row in rows] == [5.0, 5.0]


def test_what_is_sent_one_by_one_is_claimed_before_a_backlog(busy: Project) -> None:
    (last,) = sql("SELECT agent_id FROM commands WHERE lane = 1 ORDER BY turn DESC LIMIT 1")
    urgent = busy.born()
    pause = busy.send(urgent, "pause")["id"]
    resume = busy.send(str(last.agent_id), "resume")["id"]

    batch = drain(limit=50)

    assert set(batch.claim.mail[: batch.claim.urgent]) == {UUID(urgent), last.agent_id}
    assert busy.command(pause)["state"] == "applied"
    assert busy.command(resume)["state"] == "applied", "the bulk pause before it was brought forward"
    assert busy.api.get(busy.agent(last.agent_id)).json["status"] == "idle"  # type: ignore[index]
    events = busy.api.get(f"{busy.agent(last.agent_id)}/events").json["data"]  # type: ignore[index]
    assert [event["verb"] for event in events] == ["spawn", "pause", "resume"]


def test_a_long_mailbox_of_bulk_is_brought_forward_whole(busy: Project) -> None:
    agent = busy.born()
    bulk(busy, *({"verb": verb, "agent_id": agent} for verb in ("pause", "resume") * 20))
    last = busy.send(agent, "pause")["id"]

    batch = drain(limit=500)

    assert len([outcome for outcome in batch.outcomes if str(outcome.command.agent_id) == agent]) == 41
    assert busy.command(last)["state"] == "applied"
    assert {outcome.state for outcome in batch.outcomes} == {"applied"}


def test_in_a_backlog_each_lane_goes_on_where_it_was(busy: Project) -> None:
    with begin(Guard.DRAIN) as db:
        first = claims.claim(db, 200)
    assert (first.full, first.urgent, first.marks.urgent) == (True, 0, 0)

    urgent = busy.born()
    busy.send(urgent, "pause")
    with begin(Guard.DRAIN) as db:
        marked = claims.claim(db, 200, first.marks._replace(bulk=30.0))
        places = run(
            db, "SELECT min(turn) AS lowest FROM commands WHERE agent_id = ANY(:ids) AND lane = 1", ids=marked.mail
        )

    assert str(marked.mail[0]) == urgent, "the urgent lane is looked at from its own mark"
    assert places[0].lowest == 30.0
    assert marked.marks.bulk == 30.0 - claims.LATE.bulk


def test_a_batch_whose_commit_comes_late_is_found_soon(busy: Project) -> None:
    with begin(Guard.DRAIN) as db:
        first = claims.claim(db, 200)
    theirs, _ = other(busy, 1)
    sql("UPDATE commands SET turn = :t WHERE project_id = :p AND lane = 1", t=first.marks.bulk + 1, p=theirs.id)

    with begin(Guard.DRAIN) as db:
        second = claims.claim(db, 500, first.marks)

    (agent,) = sql("SELECT id FROM agents WHERE project_id = :p", p=theirs.id)
    assert agent.id in second.mail


def test_an_agent_that_is_locked_holds_up_no_turn(busy: Project) -> None:
    (first,) = sql("SELECT agent_id FROM commands WHERE lane = 1 ORDER BY turn LIMIT 1")

    with held(str(first.agent_id)):
        settle()

        assert closed(busy) == BACKLOG - 1
    settle()
    assert closed(busy) == BACKLOG
