"""Eras: a database that goes on elsewhere shows its feed on, and no lease of before counts."""

from pathlib import Path
from typing import Any

from orchestrator import eras, feed
from orchestrator.bootstrap import prepare
from orchestrator.db import Guard, begin
from orchestrator.programs import run, tool
from tests.conftest import inside
from tests.databases import connected
from tests.stage import Project, drain, eventually, is_problem, sql, violations
from tests.test_leases import beat, leased, pass_time

FAR = 7_000_000_000
"""A transaction id that the tests' server does not reach."""

PATIENCE = 30
"""Seconds: the feed lags behind the oldest writing transaction of the whole server, ours or not."""


def move() -> None:
    """Let all events be of a server that has counted far beyond ours."""
    sql("UPDATE events SET xid = CAST(CAST(CAST(CAST(xid AS text) AS bigint) + :far AS text) AS xid8)", far=FAR)


def new_era() -> None:
    """What a restore does."""
    with begin(Guard.TOOL) as db:
        eras.begin(db)


def seen(project: Project, count: int, after: str | None = None) -> list[dict[str, Any]]:
    """The feed's next events, once there are so many."""
    path = f"{project.path}/events" + (f"?after={after}" if after else "")
    return eventually(lambda: len(found := project.api.get(path).json["data"]) == count and found, PATIENCE)  # type: ignore[index, no-any-return]


def test_a_feed_goes_on_in_the_next_era_where_it_was(quiet: Project) -> None:
    agent = quiet.born()
    move()
    assert quiet.api.get(f"{quiet.path}/events").json["data"] == []  # type: ignore[index]

    new_era()
    [born] = seen(quiet, 1)
    quiet.send(agent, "pause")
    drain()

    [paused] = seen(quiet, 1, after=born["cursor"])
    assert (born["verb"], paused["verb"]) == ("spawn", "pause")


def test_whoever_has_read_what_was_lost_is_told_so_and_then_sees_all_that_is_new(quiet: Project) -> None:
    agent = quiet.born()
    [born] = seen(quiet, 1)
    quiet.send(agent, "pause")
    drain()
    [lost] = seen(quiet, 1, after=born["cursor"])
    sql("DELETE FROM events WHERE verb = 'pause'")
    sql("UPDATE events SET xid = '5'")

    for _ in range(2):
        new_era()
    quiet.born()

    assert is_problem(quiet.api.get(f"{quiet.path}/events?after={lost['cursor']}"), 410, "resync")
    kept, new = seen(quiet, 2)
    assert [event["verb"] for event in seen(quiet, 1, after=kept["cursor"])] == [new["verb"]] == ["spawn"]


def test_a_database_that_was_moved_by_other_means_begins_its_era_at_the_next_start(quiet: Project, alone: str) -> None:
    agent = quiet.born()
    move()

    for _ in range(2):
        prepare(alone, None)

    [born] = seen(quiet, 1)
    assert born["agent_id"] == agent
    with begin(Guard.TOOL) as db:
        assert not eras.is_behind(db)


def test_a_new_database_begins_with_an_era_of_its_own(empty: str) -> None:
    found = []
    for _ in range(2):
        prepare(empty, None)
        with connected(empty) as db:
            found.append(feed.now(db).era)

    assert found[0] == found[1] > eras.JUMP, "it has one, and keeps it"


def test_a_start_where_it_was_begins_none(quiet: Project, alone: str) -> None:
    prepare(alone, None)
    agent = quiet.born()
    epoch = leased(quiet, agent)["epoch"]

    prepare(alone, None)

    assert beat(quiet, agent, epoch).status_code == 200


def test_a_start_elsewhere_begins_one_though_the_server_has_counted_on(
    quiet: Project, alone: str, empty: str, tmp_path: Path
) -> None:
    prepare(alone, None)
    agent = quiet.born()
    file = tmp_path / "by-hand.dump"
    run(tool("pg_dump"), "--format=custom", f"--file={file}", url=alone)
    lost = leased(quiet, agent, "host-1:7")["epoch"]
    quiet.send(agent, "pause")
    drain()
    cursor = seen(quiet, 2)[-1]["cursor"]
    run(tool("pg_restore"), "--no-owner", str(file), url=empty)

    with inside(empty):
        prepare(empty, None)

        granted = leased(quiet, agent, "host-2:9")["epoch"]
        assert granted > lost
        assert is_problem(beat(quiet, agent, lost), 409, "fenced")
        assert is_problem(quiet.api.get(f"{quiet.path}/events?after={cursor}"), 410, "resync")
        prepare(empty, None)
        assert beat(quiet, agent, granted).status_code == 200, "only once"


def test_so_does_one_in_another_history_of_the_same_server(quiet: Project, alone: str) -> None:
    prepare(alone, None)
    epoch = leased(quiet, agent := quiet.born())["epoch"]
    [row] = sql("SELECT place FROM whereabouts")
    assert row.place.endswith("/00000001"), "the history that a server begins with"
    sql("UPDATE whereabouts SET place = left(place, -1) || '2'")

    prepare(alone, None)

    assert is_problem(beat(quiet, agent, epoch), 409, "fenced")
    assert sql("SELECT place FROM whereabouts") == [row]


def test_no_lease_of_before_counts_and_no_epoch_is_given_out_twice(quiet: Project) -> None:
    held, never = quiet.born(), quiet.born()
    epoch = leased(quiet, held)["epoch"]

    new_era()
    assert is_problem(beat(quiet, held, epoch), 409, "fenced")
    pass_time(held, 60)
    new = {agent: leased(quiet, agent, "host-2:7")["epoch"] for agent in (held, never)}
    drain()

    assert min(new.values()) > eras.JUMP
    for agent in (held, never):
        assert is_problem(beat(quiet, agent, 1), 409, "fenced")
        assert beat(quiet, agent, new[agent]).status_code == 200
    assert violations() == {}
