"""Following the feed with the SDK and with `orch`: what happens arrives, after a restart too, and refusals are said."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from orchestrator.cli import top
from orchestrator.cli.agents import STATUSES
from orchestrator.sdk import AsyncOrchestrator, Invalid, NotFound, Orchestrator, ProjectClient, Resync
from orchestrator.sdk.following import Following
from orchestrator.sdk.shapes import Event
from tests.shell import Orch
from tests.stage import Api, Project, drain, eventually, free_port
from tests.test_eras import new_era
from tests.test_events import PATIENCE, SOMEBODY
from tests.wire import Gunicorn


class Follower:
    """Reads a stream in a thread: what comes, one after the other."""

    def __init__(self, stream: Iterator[Event]) -> None:
        self._come: Queue[Event | Exception] = Queue()
        Thread(target=self._read, args=(stream,), daemon=True).start()

    def next(self) -> Event:
        """What comes next; raises what the stream ends with."""
        try:
            found = self._come.get(timeout=PATIENCE)
        except Empty:
            raise AssertionError("nothing comes") from None
        if isinstance(found, Exception):
            raise found
        return found

    def _read(self, stream: Iterator[Event]) -> None:
        try:
            for event in stream:
                self._come.put(event)
        except Exception as error:  # noqa: BLE001  # handed over
            self._come.put(error)


@pytest.fixture
def cli(server: str, template: tuple[str, str], project: Project) -> Orch:
    """`orch` as the administrator."""
    return Orch({"ORCH_URL": server, "ORCH_API_KEY": template[1], "ORCH_PROJECT": project.id})


def last(demo: ProjectClient) -> Event:
    """The newest event that is shown."""
    return eventually(lambda: [*demo.events()], PATIENCE)[-1]  # type: ignore[no-any-return]


def test_a_stream_brings_what_happens_and_goes_on_after_the_server_was_started_again(
    quiet: Project, tmp_path: Path
) -> None:
    agent, port = quiet.born(), free_port()
    with (
        Gunicorn.start(tmp_path / "web.log", port=port) as running,
        Orchestrator(f"http://127.0.0.1:{port}", quiet.api.key) as orch,
    ):
        project = orch.project(quiet.id)
        born = last(project)
        follower = Follower(project.follow(after=born.cursor))
        for verb in ("pause", "resume"):
            quiet.send(agent, verb)
            drain()
        came = [follower.next(), follower.next()]
        running.process.terminate()
        running.process.wait(20)
        quiet.send(agent, "pause")
        drain()
        with Gunicorn.start(tmp_path / "again.log", port=port):
            came.append(follower.next())
            history = [*project.events()]

    assert came == history[1:]
    assert [event.verb for event in came] == ["pause", "resume", "pause"]


def test_pages_and_streams_are_of_an_agent_a_verb_or_a_status(
    orch: Orchestrator, demo: ProjectClient, project: Project
) -> None:
    agent, other = project.spawn()["id"], project.spawn()["id"]
    follower = Follower(orch.feed.follow(after=last(demo).cursor, agent_id=agent, verb="pause"))
    for one in (other, agent):
        demo.commands.wait(demo.agents.pause(one))

    assert follower.next().agent_id == agent
    eventually(lambda: len([*demo.events()]) == 4, PATIENCE)
    assert [event.version for event in demo.events(agent_id=agent, status="paused")] == [2]
    assert [event.agent_id for event in orch.feed.list(agent_id=other, verb="spawn")] == [other]


def test_asyncio_follows_too(server: str, template: tuple[str, str], project: Project) -> None:
    agent = project.spawn()["id"]
    eventually(lambda: project.api.get(f"{project.path}/events").json["data"], PATIENCE)  # type: ignore[index]

    async def follow() -> list[str]:
        async with AsyncOrchestrator(server, template[1]) as orch:
            demo = await orch.project(project.id)
            first = [event async for event in demo.events()]
            stream = demo.follow(after=first[-1].cursor, agent_id=agent)
            await demo.agents.pause(agent)
            await demo.agents.resume(agent)
            seen: list[str] = []
            async for event in stream:
                seen += [event.verb] if event.version > 1 else []
                if len(seen) == 2:
                    return seen
            raise AssertionError

    assert asyncio.run(asyncio.wait_for(follow(), PATIENCE)) == ["pause", "resume"]


def test_what_cannot_be_followed_is_said(orch: Orchestrator, demo: ProjectClient) -> None:
    with pytest.raises(Invalid):
        next(demo.follow(after="nonsense"))
    with pytest.raises(Invalid) as caught:
        next(demo.follow(verb="fly"))
    assert caught.value.fields == ["verb"]
    with pytest.raises(NotFound):
        next(ProjectClient(orch.connection, "00000000-0000-4000-8000-000000000000").follow())


def test_a_restored_database_ends_a_stream_with_a_word(quiet: Project, tmp_path: Path) -> None:
    quiet.born()
    with (
        Gunicorn.start(tmp_path / "web.log") as running,
        Orchestrator(f"http://127.0.0.1:{running.port}", quiet.api.key) as orch,
    ):
        project = orch.project(quiet.id)
        born = last(project)
        new_era()
        with pytest.raises(Resync, match="restored") as caught:
            next(project.follow(after=born.cursor))
        quiet.born()
        assert next(project.follow(after=caught.value.cursor)).verb == "spawn"


def test_orch_events_shows_what_happened_and_what_happens(cli: Orch, project: Project, demo: ProjectClient) -> None:
    agent = project.spawn()["id"]
    demo.commands.wait(demo.agents.pause(agent, reason="night\x1b\nshift"))
    eventually(lambda: len([*demo.events()]) == 2, PATIENCE)

    events = cli.json("events")
    assert [event["verb"] for event in events] == ["spawn", "pause"]
    assert cli.json("events", "--limit", "1") == events[:1]
    assert cli.json("events", "--verb", "pause") == cli.json("events", "--after", events[0]["cursor"]) == events[1:]
    assert cli.json("events", "--all-projects", "--agent", agent, "--status", "paused") == events[1:]
    assert "paused" in cli.table("events")

    with cli.start("events", "--follow", "--after", events[0]["cursor"], "-o", "json") as following:
        assert following.stdout
        assert json.loads(following.stdout.readline()) == events[1]
        following.terminate()
    with cli.start("events", "-f", "--after", events[0]["cursor"], "-o", "table") as following:
        assert following.stdout
        line = following.stdout.readline()
        following.terminate()
    assert "idle → paused" in line
    assert "“night\\x1b\\nshift”" in line


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        (("events", "--verb", "fly"), 1, "verb"),
        (("events", "-f", "--verb", "fly"), 1, "verb"),
        (("events", "-f", "--after", "nonsense"), 1, "after: is not a cursor"),
        (("events", "-f", "--agent", "nobody"), 3, "nobody"),
        (("events", "-f", "--agent", "00000000-0000-4000-8000-000000000000"), 3, "no agent"),
        (("events", "-f", "-p", "nowhere"), 3, "nowhere"),
        (("events", "-f", "--url", "http://127.0.0.1:9"), 7, "no server"),
        (("agent", "watch", "00000000-0000-4000-8000-000000000000"), 3, "no agent"),
        (("top", "-p", "nowhere"), 3, "nowhere"),
    ],
)
def test_what_cannot_be_shown_is_said(cli: Orch, line: tuple[str, ...], code: int, says: str) -> None:
    result = cli(*line)

    assert (result.exit_code, result.stdout) == (code, "")
    assert says in result.stderr


def test_a_server_that_takes_no_more_streams_says_so(cli: Orch, tmp_path: Path) -> None:
    with Gunicorn.start(tmp_path / "web.log", ORCH_STREAMS="0") as full:
        lines = ("events", "-f"), ("agent", "watch", SOMEBODY)
        results = [cli(*line, "--url", f"http://127.0.0.1:{full.port}") for line in lines]

    assert [(result.exit_code, result.stdout) for result in results] == [(1, "")] * 2
    assert all("event streams" in result.stderr for result in results)


def test_the_next_attempt_is_not_put_off_for_a_day() -> None:
    stream = Following("/events", {})
    stream.refused = httpx2.Response(503, headers={"Retry-After": "86400"})

    assert stream.pause() < 90
    assert [stream.pause() < 12 for _ in range(20)] == [True] * 20


def test_an_agent_is_watched_to_its_end(cli: Orch, project: Project, demo: ProjectClient) -> None:
    agent = project.spawn()["id"]
    with cli.start("agent", "watch", agent, "-o", "json") as watching:
        assert watching.stderr
        assert watching.stdout
        assert watching.stderr.readline() == "scout is idle, at version 1.\n"
        demo.agents.pause(agent)
        demo.agents.terminate(agent)
        told: list[Any] = [json.loads(line) for line in watching.stdout]
        assert watching.wait(PATIENCE) == 0

    assert [event["verb"] for event in told] == ["pause", "terminate"]
    assert "is terminated" in cli("agent", "watch", agent).stderr


def test_top_shows_the_fleet_once_or_live(cli: Orch, project: Project, demo: ProjectClient) -> None:
    project.spawn()
    paused = project.spawn()["id"]
    demo.commands.wait(demo.agents.pause(paused))

    [row] = cli.json("top")
    assert (row["id"], row["agents"], row["idle"], row["paused"]) == (project.id, 2, 1, 1)
    assert any(row["id"] == project.id for row in cli.json("top", "--most", "100", "-A"))

    seen = [("nothing has happened yet", lambda: demo.agents.resume(paused)), ("paused → idle", lambda: None)]
    code, shown = cli.on_terminal("top", once=seen)
    assert code == 130
    assert "2 agents" in shown


def test_top_outlives_a_server_that_is_started_again(quiet: Project, template: tuple[str, str], tmp_path: Path) -> None:
    agent, port = quiet.born(), free_port()
    cli = Orch({"ORCH_URL": f"http://127.0.0.1:{port}", "ORCH_API_KEY": template[1], "ORCH_PROJECT": quiet.id})
    with ExitStack() as life:
        first = life.enter_context(Gunicorn.start(tmp_path / "web.log", port=port))

        def end() -> None:
            first.process.kill()
            first.process.wait(20)

        def begin_again() -> None:
            life.enter_context(Gunicorn.start(tmp_path / "again.log", port=port))
            quiet.send(agent, "pause")
            drain()

        seen = [("1 agents", end), ("reconnecting", begin_again), ("idle → paused", lambda: None)]
        code, shown = cli.on_terminal("top", once=seen)

    assert code == 130
    assert "no server answers" not in shown


def test_top_says_of_how_many_projects_its_sums_are() -> None:
    sums = {"total_instances": 3, "by_status": dict.fromkeys(STATUSES, 0), "total_tasks_completed": 0}
    sums |= {"total_tokens_used": 0, "total_cost_incurred": "0.1"}
    session: Any = SimpleNamespace(client=SimpleNamespace(get=lambda _: sums))
    fleet = top.Fleet(session, [{"id": str(number), "slug": f"p{number}"} for number in range(3)])

    def caption() -> Any:
        return fleet.screen().renderables[0].caption  # type: ignore[attr-defined]

    fleet._look("0", top.PASSING)
    fleet._look("1", top.PASSING)
    assert caption().startswith("6 agents, 0.2 USD in 2 of 3 projects so far, ")
    fleet._look("2", top.PASSING)
    assert caption().startswith("9 agents, 0.3 USD, ")


def test_top_says_that_there_are_more_projects_than_it_shows(cli: Orch, project: Project, admin: Api) -> None:
    Project.make(admin)
    project.spawn()

    code, shown = cli.on_terminal("top", "-A", "--most", "1", once=[("in the newest 1 projects", lambda: None)])

    assert code == 130
    assert "of more (--most)" in shown
