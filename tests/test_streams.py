"""Event streams: what happens is told at once, without gap or repeat, to hundreds who cost the API nothing."""

import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx2
import pytest

from orchestrator import claims, cursors, eras, feed
from orchestrator.db import Guard, begin
from orchestrator.drain import Drainer
from tests.conftest import inside
from tests.databases import Spares
from tests.sse import Stream
from tests.stage import Api, Project, busy, drain, eventually, is_problem, sql
from tests.test_events import PATIENCE, SOMEBODY, names
from tests.wire import Gunicorn


@pytest.fixture(scope="module")
def elsewhere(spares: Spares) -> Iterator[str]:
    """A database of the module's own, that nobody drains; its URL. Only who has `secluded` uses it."""
    with spares.lent() as url:
        yield url


@pytest.fixture(scope="module")
def narrow(elsewhere: str, home: Path) -> Iterator[str]:
    """The address of a web server on that database, with few threads, and room for few streams."""
    few = {"ORCH_STREAMS": "20", "ORCH_WEB_THREADS": "2"}
    with Gunicorn.start(home / "web-streams.log", ORCH_DATABASE_URL=elsewhere, **few) as running:
        yield f"http://127.0.0.1:{running.port}"


@pytest.fixture
def own(narrow: str) -> str:
    """The same, once it has seen that whoever was there before has hung up."""
    eventually(lambda: streams(narrow) == 0, PATIENCE)
    return narrow


def streams(server: str) -> int:
    """How many streams a server has open."""
    said = re.search(r"^orchestrator_event_streams (\d+)", httpx2.get(f"{server}/metrics").text, re.MULTILINE)
    return int(said[1]) if said else 0


@pytest.fixture
def secluded(elsewhere: str, admin: Api) -> Iterator[Project]:
    """A new project in that database."""
    with inside(elsewhere):
        yield Project.make(admin)


def follow(server: str, project: Project, query: str = "", **headers: str) -> Stream:
    """A stream of the project's events."""
    return Stream(server, project.api.key, f"{project.path}/events{query}", **headers)


def told(stream: Stream, count: int) -> list[tuple[str, int]]:
    """The stream's events, once there are so many."""
    eventually(lambda: len(stream.messages) >= count, PATIENCE)
    return stream.events


def whole(project: Project) -> list[dict[str, Any]]:
    """All events of the project, by page."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        page = project.api.get(f"{project.path}/events?limit=100{cursor and '&after='}{cursor}").json
        found += page["data"]  # type: ignore[index]
        cursor = page["pagination"]["next_cursor"]  # type: ignore[index]
    return found


def test_an_event_is_told_as_the_page_shows_it_and_within_a_second(server: str, project: Project) -> None:
    agent = project.spawn()["id"]
    eventually(lambda: whole(project), PATIENCE)  # or its birth would be told as well
    took = []
    with follow(server, project) as stream:
        for number, verb in enumerate(("pause", "resume", "pause")):
            began = time.monotonic()
            project.send(agent, verb, reason="budget review")
            told(stream, number + 1)
            took.append(time.monotonic() - began)

    assert stream.data == whole(project)[1:]
    assert [message.id for message in stream.messages] == [event["cursor"] for event in stream.data]
    assert {message.event for message in stream.messages} == {"message"}
    assert sorted(took)[1] < busy(1)
    assert stream.answer.headers["Content-Type"] == "text/event-stream"
    assert stream.answer.headers["Cache-Control"] == "no-store"


def test_a_stream_that_was_cut_goes_on_where_it_was(secluded: Project, own: str) -> None:
    agents = [secluded.born() for _ in range(3)]
    with begin(Guard.TOOL) as db:
        first_ever = feed.FIRST._replace(era=feed.now(db).era).cursor()
    with follow(own, secluded, f"?after={first_ever}") as first:
        told(first, 3)
    for agent in agents:
        secluded.send(agent, "pause")
    drain()

    with follow(own, secluded, "?after=ignored", Last_Event_ID=first.last_id) as second:
        told(second, 3)
        secluded.send(agents[0], "resume")
        drain()
        told(second, 4)

    assert first.events + second.events == names(whole(secluded))


def test_what_is_committed_late_is_told_in_its_place(secluded: Project, own: str) -> None:
    slow, fast = secluded.born(), secluded.born()
    for agent in (slow, fast):
        secluded.send(agent, "pause")
    with follow(own, secluded) as stream:
        with begin(Guard.DRAIN) as db:
            Drainer(slot=3).drain(db, claims.claim_one(db, UUID(slow)))
            drain()
            secluded.send(fast, "resume")
            drain()
            time.sleep(0.5)
            meanwhile = stream.events
        told(stream, 3)

    assert meanwhile == []
    assert stream.events == [(slow, 2), (fast, 2), (fast, 3)]


def test_many_streams_among_many_writers_are_all_told_the_same(server: str, project: Project) -> None:
    agents = [project.spawn()["id"] for _ in range(8)]

    def write(agent: str) -> None:
        for number in range(20):
            project.send(agent, "update", name=f"name {number}")

    with ExitStack() as open_, ThreadPoolExecutor(8) as pool:
        streams = [open_.enter_context(follow(server, project)) for _ in range(5)]
        list(pool.map(write, agents))
        last = {(agent, 21) for agent in agents}
        eventually(lambda: all(last <= set(stream.events) for stream in streams), PATIENCE)

    expected = [event for event in names(whole(project)) if event[1] > 1]  # the last births may be told as well
    assert len(expected) == len(set(expected)) == 160
    assert [[event for event in stream.events if event[1] > 1] for stream in streams] == [expected] * 5


def test_one_may_follow_an_agent_a_verb_or_a_status(server: str, project: Project) -> None:
    agent, other = project.spawn()["id"], project.spawn()["id"]
    eventually(lambda: len(whole(project)) == 2, PATIENCE)
    wanted = {
        f"?agent_id={agent}": [(agent, 2), (agent, 3)],
        "?verb=resume": [(agent, 3)],
        "?status=paused": [(agent, 2), (other, 2)],
        f"?status=paused&agent_id={other}": [(other, 2)],
        "": [(agent, 2), (other, 2), (agent, 3)],
    }
    with ExitStack() as open_:
        streams = {query: open_.enter_context(follow(server, project, query)) for query in wanted}
        for target, verb in ((agent, "pause"), (other, "pause"), (agent, "resume")):
            command = project.send(target, verb)["id"]
            eventually(lambda c=command: project.command(c)["state"] == "applied", PATIENCE)  # type: ignore[misc]
        eventually(lambda: len(streams[""].messages) == 3, PATIENCE)
        time.sleep(0.3)

    assert {query: stream.events for query, stream in streams.items()} == wanted
    for query, events in wanted.items():
        page = project.api.get(f"{project.path}/events{query}").json["data"]  # type: ignore[index]
        assert [event for event in names(page) if event[1] > 1] == events


def test_a_filtered_page_goes_on_over_what_it_leaves_out(quiet: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PIECE", 2)
    monkeypatch.setattr(feed, "SCAN", 4)
    agents = [quiet.born() for _ in range(9)]
    quiet.send(agents[3], "pause")
    quiet.send(agents[4], "pause")
    drain()
    eventually(lambda: len(whole(quiet)) == 11, PATIENCE)

    pages, cursor = [], ""
    while cursor is not None:
        answer = quiet.api.get(f"{quiet.path}/events?verb=pause&limit=1{cursor and '&after='}{cursor}").json
        pages.append(names(answer["data"]))  # type: ignore[index]
        cursor = answer["pagination"]["next_cursor"]  # type: ignore[index]

    assert [event for page in pages for event in page] == [(agents[3], 2), (agents[4], 2)]
    assert max(map(len, pages)) == 1


def test_one_agent_is_found_at_once_among_many(quiet: Project, admin: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "SCAN", feed.PIECE)
    monkeypatch.setattr(feed, "EACH", 2)
    agents = [quiet.born() for _ in range(9)]
    for verb in ("pause", "resume"):
        quiet.send(agents[8], verb)
        drain()
    eventually(lambda: len(whole(quiet)) == 11, PATIENCE)

    for path in (f"{quiet.path}/events", "events"):
        page = admin.get(f"{path}?agent_id={agents[8]}").json
        assert names(page["data"]) == [(agents[8], 1), (agents[8], 2), (agents[8], 3)]  # type: ignore[index]
        assert page["pagination"]["next_cursor"] is None  # type: ignore[index]
    stranger = admin.user()
    assert stranger.get(f"events?agent_id={agents[8]}").json["data"] == []  # type: ignore[index]


def test_all_projects_at_once_are_told_to_whoever_may_see_them(admin: Api, server: str, project: Project) -> None:
    owner = admin.user()
    with Stream(server, owner.key, "events") as mine, Stream(server, admin.key, "events") as all_:
        made = Project.make(admin, owner)
        kept, others = made.spawn(wait=False)["agent_id"], project.spawn(wait=False)["agent_id"]
        told(mine, 1)
        eventually(lambda: {(kept, 1), (others, 1)} <= set(all_.events), PATIENCE)
        time.sleep(0.3)

        assert mine.events == [(kept, 1)]
    page = owner.get("events").json
    assert names(page["data"]) == [(kept, 1)]  # type: ignore[index]
    assert (others, 1) in names(admin.get(f"events?agent_id={others}").json["data"])  # type: ignore[index]


def test_whoever_would_not_be_let_in_again_is_cut_off(admin: Api, server: str, worker: Any) -> None:
    del worker
    stayer = admin.user()
    user, moved, demoted = admin.user(), Project.make(admin, stayer), admin.user(is_superuser=True)
    own = Project.make(admin, user)
    key = user.get("keys").json["data"][0]["id"]  # type: ignore[index]
    someone = demoted.get("me").json["user"]["id"]  # type: ignore[index]
    with ExitStack() as open_:
        streams = [
            open_.enter_context(Stream(server, user.key, f"{own.path}/events")),
            open_.enter_context(Stream(server, stayer.key, f"{moved.path}/events")),
            open_.enter_context(Stream(server, demoted.key, "events")),
        ]
        staying = open_.enter_context(Stream(server, stayer.key, "events"))
        assert admin.delete(f"keys/{key}").status_code == 204
        sql("UPDATE projects SET owner_id = :owner WHERE id = :id", owner=someone, id=moved.id)
        sql("UPDATE users SET is_superuser = false WHERE id = :id", id=someone)

        eventually(lambda: not any(stream.is_open for stream in streams), 5)
        assert staying.is_open


def test_a_place_of_before_a_restore_is_said_to_be_of_no_use(secluded: Project, own: str) -> None:
    secluded.born()
    cursor = eventually(lambda: whole(secluded), PATIENCE)[0]["cursor"]
    with follow(own, secluded) as stream:
        with begin(Guard.TOOL) as db:
            eras.begin(db)
        eventually(lambda: stream.messages, PATIENCE)
        secluded.born()
        told_after = eventually(lambda: len(stream.messages) == 2 and stream.messages[1], PATIENCE)
    with follow(own, secluded, Last_Event_ID=cursor) as late:
        eventually(lambda: late.messages, PATIENCE)
    with follow(own, secluded, Last_Event_ID=stream.messages[0].id) as again:
        told(again, 1)

    assert [stream.messages[0].event, late.messages[0].event] == ["resync", "resync"]
    assert "restored" in stream.messages[0].data["detail"]
    assert again.messages[0] == told_after
    assert is_problem(secluded.api.get(f"{secluded.path}/events?after={cursor}"), 410, "resync")


def test_a_place_beyond_what_has_happened_is_said_to_be_of_no_use(secluded: Project, own: str) -> None:
    secluded.born()
    with begin(Guard.TOOL) as db:
        ahead = feed.now(db)._replace(xid=2**62).cursor()
    with follow(own, secluded, f"?after={ahead}") as stream, follow(own, secluded, Last_Event_ID=ahead) as other:
        eventually(lambda: stream.messages and other.messages, PATIENCE)
        agent = secluded.born()
        for each in (stream, other):
            eventually(lambda e=each: agent in str(e.data[-1]), PATIENCE)  # type: ignore[misc]

    assert [stream.messages[0].event, other.messages[0].event] == ["resync", "resync"]
    assert is_problem(secluded.api.get(f"{secluded.path}/events?after={ahead}"), 410, "resync")
    assert is_problem(secluded.api.get(f"events?after={ahead}"), 410, "resync")


def test_a_place_that_the_feed_will_reach_in_a_moment_is_good(secluded: Project, own: str) -> None:
    slow, fast = secluded.born(), secluded.born()
    secluded.send(slow, "pause")
    with begin(Guard.DRAIN) as db:
        Drainer(slot=3).drain(db, claims.claim_one(db, UUID(slow)))
        secluded.send(fast, "pause")
        drain()
        newest = secluded.api.get(f"{secluded.agent(fast)}/events").json["data"][-1]  # type: ignore[index]
        early = secluded.api.get(f"{secluded.path}/events?after={newest['cursor']}")
        with follow(own, secluded, Last_Event_ID=newest["cursor"]) as stream:
            secluded.send(fast, "resume")
            drain()
            time.sleep(0.5)
            db.rollback()
            told(stream, 1)

    assert (newest["verb"], early.status_code, early.json["data"]) == ("pause", 200, [])  # type: ignore[index]
    assert [(message.event, message.data["verb"]) for message in stream.messages] == [("message", "resume")]


@pytest.mark.parametrize("id_", ["x", cursors.encode(1, SOMEBODY, 1), cursors.encode(0, -1, SOMEBODY, 1)])
def test_an_id_that_no_event_had_is_refused(project: Project, id_: str) -> None:
    answer = project.api.get(f"{project.path}/events", Accept="text/event-stream", Last_Event_ID=id_)

    assert is_problem(answer, 422, "validation_error")
    assert answer.json["errors"][0]["field"] == "Last-Event-ID"  # type: ignore[index]


def test_streams_hold_no_thread_and_too_many_are_sent_away(secluded: Project, own: str) -> None:
    key = {"Authorization": f"Bearer {secluded.api.key}"}
    events, asked = f"/api/v1/{secluded.path}/events", {"Accept": "text/event-stream"}
    with httpx2.Client(base_url=own, headers=key) as client, ExitStack() as open_:
        for _ in range(10):  # half of all places are one user's
            open_.enter_context(follow(own, secluded))
        eventually(lambda: streams(own) == 10)

        refused = client.get(events, headers=asked)

        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
        assert client.get(f"/api/v1/{secluded.path}").status_code == 200
        head = client.head(events, headers=asked)
        assert (head.status_code, head.headers["Content-Type"], head.content) == (200, "application/json", b"")


def test_a_head_of_the_consoles_stream_is_answered_and_begins_none(secluded: Project, own: str) -> None:
    signed_in = httpx2.post(f"{own}/login", data={"key": secluded.api.key}, headers={"Sec-Fetch-Site": "same-origin"})
    address = urlsplit(own)
    more = f"Host: localhost\r\nCookie: {signed_in.headers['Set-Cookie'].partition(';')[0]}\r\n\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(f"HEAD /live HTTP/1.1\r\n{more}".encode())
        head = connection.recv(1 << 16)
        connection.sendall(f"GET /healthz HTTP/1.1\r\n{more}".encode())
        next_ = connection.recv(1 << 16)

        assert streams(own) == 0
    assert (head[:15], head[-4:]) == (b"HTTP/1.1 200 OK", b"\r\n\r\n")
    assert b"Content-Type: text/event-stream" in head
    assert next_.startswith(b"HTTP/1.1 200 OK")


def test_one_that_does_not_read_holds_up_nobody_and_misses_nothing(secluded: Project, own: str) -> None:
    agent = secluded.born()
    memory = {"short_term_memory": {"seen": "x" * 10_000}}
    address = urlsplit(own)
    with socket.socket() as lazy, follow(own, secluded) as stream:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect((address.hostname, address.port))
        asked = f"GET /api/v1/{secluded.path}/events HTTP/1.0\r\nAuthorization: Bearer {secluded.api.key}\r\n"
        lazy.sendall(f"{asked}Accept: text/event-stream\r\n\r\n".encode())
        assert lazy.recv(15) == b"HTTP/1.0 200 OK"
        for number in range(600):
            secluded.send(agent, "update", short_term_memory={"seen": f"{number} {memory}"})
        eventually(drained, PATIENCE)
        told(stream, 600)

        lazy.settimeout(10)
        heard = bytearray()  # which grows: to copy the megabytes for each piece takes seconds
        while b'"version":601' not in heard[-20_000:]:
            heard += lazy.recv(1 << 16)
    assert heard.count(b"\ndata: ") == 600


def drained() -> bool:
    """Whether nothing waits, after one more drain."""
    drain()
    return not sql("SELECT 1 FROM commands WHERE state = 'queued' LIMIT 1")
