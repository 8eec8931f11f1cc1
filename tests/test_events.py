"""Events: one agent's history by version, and a project's feed by a cursor that skips and repeats nothing."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from orchestrator import claims, cursors
from orchestrator.db import Guard, begin
from orchestrator.drain import Drainer
from tests.stage import Project, applied, drain, eventually, run, settle, sql, violations

SOMEBODY = "00000000-0000-4000-8000-000000000000"

PATIENCE = 30
"""Seconds: the feed lags behind the oldest writing transaction of the whole server, ours or not."""

Event = dict[str, Any]


def history(project: Project, agent_id: str, query: str = "") -> dict[str, Any]:
    """A page of an agent's events."""
    answer = project.api.get(f"{project.agent(agent_id)}/events?{query}")
    assert answer.status_code == 200, answer.json
    return answer.json  # type: ignore[return-value]


def feed(project: Project, query: str = "") -> dict[str, Any]:
    """A page of the project's events."""
    answer = project.api.get(f"{project.path}/events?{query}")
    assert answer.status_code == 200, answer.json
    return answer.json  # type: ignore[return-value]


def names(events: list[Event]) -> list[tuple[str, int]]:
    """What identifies each event: its agent and version."""
    return [(event["agent_id"], event["version"]) for event in events]


class Reader:
    """Somebody who follows a project's feed, a page at a time."""

    def __init__(self, project: Project, limit: int = 100) -> None:
        self.project, self.limit = project, limit
        self.seen: list[Event] = []

    def read(self) -> list[Event]:
        """Go on from the last event seen to the end, as it is now; everything seen so far."""
        more = True
        while more:
            after = f"&after={self.seen[-1]['cursor']}" if self.seen else ""
            page = feed(self.project, f"limit={self.limit}{after}")
            self.seen += page["data"]
            more = page["pagination"]["next_cursor"] is not None
        return self.seen

    def sees(self, count: int) -> bool:
        """Whether so many events have been seen, after one more look."""
        return len(self.read()) >= count


def test_the_feed_keeps_to_an_agents_order_whoever_began_first(quiet: Project) -> None:
    agent, other = quiet.born(), quiet.born()
    with begin(Guard.DRAIN) as early:
        # As far as a claim that has locked one agent, and has others to go through.
        early.execute(text("SELECT 1 FROM agents WHERE id = :id FOR NO KEY UPDATE"), {"id": other})
        quiet.send(agent, "pause")
        settle()
        quiet.send(agent, "resume")
        quiet.send(other, "pause")
        batch = Drainer(0).drain(early, claims.claim(early, 500))
    settle()

    reader = Reader(quiet)
    eventually(lambda: reader.sees(5), PATIENCE)
    assert [version for id_, version in names(reader.seen) if id_ == agent] == [1, 2, 3]
    assert applied(batch) == 1, "the other's, and nothing of the one that somebody who began later has written"
    assert violations() == {}


def test_an_event_tells_what_happened_to_whom_by_whom_and_why(quiet: Project) -> None:
    me = quiet.api.get("me").json["user"]["id"]
    agent = quiet.born()
    command = quiet.send(agent, "update", status="working", current_task="sheep", reason="go")
    drain()

    event = history(quiet, agent)["data"][1]

    assert event.pop("at") == quiet.api.get(quiet.agent(agent)).json["updated_at"]
    assert event.pop("cursor")
    assert event == {
        "version": 2,
        "project_id": quiet.id,
        "agent_id": agent,
        "command_id": command["id"],
        "verb": "work",
        "before": "idle",
        "after": "working",
        "changes": {"current_task": "sheep"},
        "actor": {"type": "user", "id": me},
        "reason": "go",
    }


def eventful(project: Project, count: int) -> str:
    """The id of a new agent with so many events, in a project that nobody drains."""
    agent = project.born()
    for number in range(count - 1):
        project.send(agent, "update", name=f"name {number}")
    drain()
    return agent


@pytest.mark.parametrize(
    ("query", "versions", "next_cursor"),
    [
        ("", [1, 2, 3, 4, 5], None),
        ("limit=5", [1, 2, 3, 4, 5], None),
        ("limit=4", [1, 2, 3, 4], "4"),
        ("limit=1", [1], "1"),
        ("after_version=0&limit=2", [1, 2], "2"),
        ("after_version=3", [4, 5], None),
        ("after_version=3&limit=1", [4], "4"),
        ("after_version=5", [], None),
        (f"after_version={2**63 - 1}", [], None),
    ],
)
def test_a_history_goes_on_after_a_version(
    quiet: Project, query: str, versions: list[int], next_cursor: str | None
) -> None:
    agent = eventful(quiet, 5)

    page = history(quiet, agent, query)

    assert [event["version"] for event in page["data"]] == versions
    assert page["pagination"] == {"next_cursor": next_cursor}


def test_a_history_has_twenty_events_a_page_unless_another_limit_is_given(quiet: Project) -> None:
    agent = eventful(quiet, 22)

    first = history(quiet, agent)
    rest = history(quiet, agent, f"after_version={first['pagination']['next_cursor']}")

    assert [event["version"] for event in first["data"] + rest["data"]] == list(range(1, 23))
    assert len(first["data"]) == 20


@pytest.mark.parametrize(
    "query",
    ["after_version=-1", "after_version=x", "after_version=", f"after_version={2**63}", "limit=0", "limit=101"],
)
def test_a_wrong_question_about_a_history_is_refused_by_name(quiet: Project, query: str) -> None:
    answer = quiet.api.get(f"{quiet.agent(quiet.born())}/events?{query}")

    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, query.partition("=")[0])


def test_only_an_agent_of_the_project_that_is_born_has_a_history(quiet: Project) -> None:
    unborn, foreign = quiet.spawn(wait=False)["agent_id"], Project.make(quiet.api).spawn(wait=False)["agent_id"]
    known = quiet.api.get(f"{quiet.agent(unborn)}/events").status_code
    drain()

    assert known == 404
    assert quiet.api.get(f"{quiet.agent(unborn)}/events").status_code == 200
    assert quiet.api.get(f"{quiet.agent(foreign)}/events").status_code == 404


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_the_feed_tells_each_event_of_the_project_once(quiet: Project, limit: int) -> None:
    agents = [eventful(quiet, 4), eventful(quiet, 3)]
    Project.make(quiet.api).born()
    whole = {(event["agent_id"], event["version"]): event for a in agents for event in history(quiet, a)["data"]}
    reader = Reader(quiet, limit)

    eventually(lambda: reader.sees(7), PATIENCE)

    assert len(reader.seen) == 7
    assert {(event["agent_id"], event["version"]): event for event in reader.read()} == whole
    assert [version for agent, version in names(reader.seen) if agent == agents[0]] == [1, 2, 3, 4]


def test_the_feeds_next_cursor_is_its_last_events_and_null_at_the_end(quiet: Project) -> None:
    eventful(quiet, 3)
    whole = eventually(lambda: len(found := feed(quiet)["data"]) == 3 and found, PATIENCE)

    page = feed(quiet, "limit=2")
    rest = feed(quiet, f"limit=2&after={page['pagination']['next_cursor']}")

    assert page["pagination"]["next_cursor"] == page["data"][-1]["cursor"] == whole[1]["cursor"]
    assert (rest["data"], rest["pagination"]["next_cursor"]) == (whole[2:], None)
    assert feed(quiet, f"after={whole[2]['cursor']}")["data"] == []


@pytest.mark.parametrize(
    "after",
    [
        "",
        "x",
        "1",
        cursors.encode(0, 1),
        cursors.encode(1, SOMEBODY, 1),
        cursors.encode(0, -1, SOMEBODY, 1),
        cursors.encode(-1, 1, SOMEBODY, 1),
        cursors.encode(0, 2**63, SOMEBODY, 1),
        cursors.encode(0, 1, "agent", 1),
        cursors.encode(0, 1, SOMEBODY, 1, 1),
        "a&after=b",
    ],
)
def test_a_cursor_the_feed_never_gave_out_is_refused(project: Project, after: str) -> None:
    answer = project.api.get(f"{project.path}/events?after={after}")

    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, "after")


def test_the_feed_waits_for_a_transaction_that_may_still_write_before_it(quiet: Project) -> None:
    agent, reader = quiet.born(), Reader(quiet)
    eventually(lambda: reader.sees(1), PATIENCE)

    with begin(Guard.TOOL) as db:
        run(db, "SELECT pg_current_xact_id()")
        quiet.send(agent, "pause")
        drain()
        meanwhile = names(reader.read())

    assert len(history(quiet, agent)["data"]) == 2
    assert meanwhile == [(agent, 1)]
    assert eventually(lambda: reader.sees(2), PATIENCE)
    assert names(reader.seen) == [(agent, 1), (agent, 2)]


def test_an_event_that_is_committed_late_is_neither_skipped_nor_repeated(quiet: Project) -> None:
    slow, fast, reader = quiet.born(), quiet.born(), Reader(quiet)
    for agent in (slow, fast):
        quiet.send(agent, "pause")

    with begin(Guard.DRAIN) as db:
        Drainer(slot=3).drain(db, claims.claim_one(db, UUID(slow)))
        drain()
        quiet.send(fast, "resume")
        drain()
        reader.read()
    eventually(lambda: reader.sees(5), PATIENCE)

    assert names(reader.seen)[2:] == [(slow, 2), (fast, 2), (fast, 3)]
    assert len(reader.read()) == 5


def test_a_reader_among_many_writers_sees_everything_once_and_in_each_agents_order(project: Project) -> None:
    agents = [project.spawn(wait=False)["agent_id"] for _ in range(6)]
    reader = Reader(project, limit=7)

    def write(agent: str) -> None:
        for number in range(20):
            project.send(agent, "update", name=f"name {number}")

    with ThreadPoolExecutor(6) as pool:
        writing = [pool.submit(write, agent) for agent in agents]
        while not all(future.done() for future in writing):
            reader.read()
    for future in writing:
        future.result()
    eventually(lambda: reader.sees(6 * 21), PATIENCE)

    assert sorted(names(reader.seen)) == sorted((agent, n) for agent in agents for n in range(1, 22))
    for agent in agents:
        assert [version for id_, version in names(reader.seen) if id_ == agent] == list(range(1, 22))


def test_an_update_that_changes_nothing_is_not_told(quiet: Project) -> None:
    agent = quiet.born(name="same")
    quiet.send(agent, "update", name="same")
    drain()

    assert len(history(quiet, agent)["data"]) == 1
    assert sql("SELECT state FROM commands WHERE verb = 'update'") == [("applied",)]
