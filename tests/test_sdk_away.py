"""Usage while nobody can take it: it is kept, and counted once when the server is back; what is refused is given up."""

import json
import logging
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from threading import Event
from time import sleep

import psutil
import pytest

from orchestrator.sdk import ConnectionFailed, Orchestrator, ProjectClient, arrival
from orchestrator.sdk.connection import Connection
from orchestrator.sdk.outbox import Outbox
from orchestrator.sdk.place import Place
from orchestrator.sdk.usage import LENGTHS, entry
from tests.looping import Looping, looping
from tests.stage import Project, eventually, free_port, violations
from tests.wire import Gunicorn

pytestmark = pytest.mark.usefixtures("worker")

AWAY = float(os.environ.get("ORCH_TEST_AWAY", "8"))
"""Seconds for which the server is away: a lease of five seconds is lost meanwhile. The contract speaks of a minute."""


class Own:
    """A web server of the test's own, that can be away."""

    def __init__(self, folder: Path) -> None:
        self._life, self._log, self._port = ExitStack(), folder / "web.log", free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.begin()

    def begin(self) -> None:
        """Start it, where it was."""
        self._running = self._life.enter_context(Gunicorn.start(self._log, self._port))

    def stop(self) -> None:
        """End it."""
        self._life.close()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It takes connections and says nothing."""
        master = psutil.Process(self._running.process.pid)
        everybody = [master, *master.children(recursive=True)]
        for process in everybody:
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in everybody:
                process.send_signal(signal.SIGCONT)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It is not there."""
        self.stop()
        yield
        self.begin()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Own]:
    """Such a server, at work."""
    own = Own(tmp_path)
    yield own
    own.stop()


def stands_still_meanwhile(agent: Looping, away: AbstractContextManager[None]) -> None:
    """While the server is away it goes on until its lease is lost, and then not until it has another."""
    with away:
        before = agent.steps()
        sleep(AWAY)
        eventually(lambda: agent.agent.status == "idle")  # its lease is lost
        during = agent.steps()
        sleep(0.5)  # in which it could go on
        assert agent.steps() == during
    assert during > before + 10, "it went on while it could"
    eventually(lambda: agent.steps() > during, 20)


def test_what_was_used_while_the_server_was_frozen_and_while_it_was_stopped_is_counted_once(
    own: Own, template: tuple[str, str], demo: ProjectClient, project: Project, tmp_path: Path
) -> None:
    with looping(own.url, template[1], project, tmp_path) as running:
        running.project = demo  # we look through a server that is there
        agent_id = running.working().agent_id

        stands_still_meanwhile(running, own.frozen())
        stands_still_meanwhile(running, own.stopped())
        demo.commands.wait(demo.agents.pause(agent_id), until="quiesced")

        done = running.steps()
        assert demo.agents.explain(agent_id)["lease"]["epoch"] == 3
        eventually(lambda: demo.agents.get(agent_id).tokens_used == done * 110)
        assert demo.metrics().total_tokens_used == done * 110
    assert violations() == {}


def test_who_waits_for_a_paused_agent_waits_on_while_the_server_is_away(
    own: Own,
    template: tuple[str, str],
    demo: ProjectClient,
    project: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ORCH_OUTBOX", str(tmp_path / "outbox"))
    agent_id = project.in_status("paused")

    def arrive() -> str:
        with Orchestrator(own.url, template[1]) as orch, orch.run_agent(agent_id, project=project.id, ttl=5) as me:
            return me.id

    with ThreadPoolExecutor(1) as pool:
        arrival = pool.submit(arrive)
        sleep(1)  # by now it has heard that the agent is held
        with own.stopped():
            sleep(2.5)
        demo.agents.resume(agent_id)

        assert arrival.result(15) == agent_id


def test_a_first_request_for_a_lease_outlives_a_short_absence_and_no_long_one(
    own: Own, template: tuple[str, str], project: Project
) -> None:
    agent_id = project.in_status("idle")
    with Connection(own.url, template[1], None, retries=2) as connection, ThreadPoolExecutor(1) as pool:
        place = Place(connection, project.id, agent_id, "a host", ttl=5)
        with own.stopped():
            asked = pool.submit(arrival.lease, place, Event())
            sleep(0.5)
        assert asked.result(15).epoch == 1
        with own.stopped(), pytest.raises(ConnectionFailed):
            arrival.lease(place, Event())


def test_a_full_outbox_drops_what_comes_on_top_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outbox = Outbox.open(tmp_path / "agent.jsonl", most=2)

    with caplog.at_level(logging.ERROR, "orchestrator.sdk"):
        for number in range(4):
            outbox.put(entry(report_id=f"call-{number}"))

    assert (len(outbox), outbox.dropped) == (2, 2)
    assert [record.getMessage() for record in caplog.records] == [
        f"usage dropped: 2 entries wait already in {tmp_path / 'agent.jsonl'}"
    ] * 2
    assert [kept["report_id"] for kept in outbox.first(9)] == ["call-0", "call-1"]
    outbox.forget(outbox.first(1))
    outbox.put(entry(report_id="call-9"))
    outbox.close()
    with Outbox.open(tmp_path / "agent.jsonl") as again:
        assert [kept["report_id"] for kept in again.first(9)] == ["call-1", "call-9"]


def test_an_entry_that_the_server_refuses_is_given_up_and_the_others_arrive(
    orch: Orchestrator,
    demo: ProjectClient,
    project: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("ORCH_OUTBOX", str(tmp_path))
    agent_id = project.spawn(name="scout")["id"]
    monkeypatch.setitem(LENGTHS, "note", 10**6)  # as if this server took less than others

    with caplog.at_level(logging.WARNING, "orchestrator.sdk"), orch.run_agent("scout", project=project.id) as me:
        me.usage(input_tokens=1)
        me.usage(input_tokens=10, note="long" * 10_000, report_id="too-long")
        me.usage(input_tokens=100)
        me.flush()
        eventually(lambda: demo.agents.get(agent_id).tokens_used == 101)
        eventually(lambda: not [file for file in tmp_path.iterdir() if file.stat().st_size])

    assert "usage too-long is refused and given up" in caplog.text
    assert demo.agents.get(agent_id).tokens_used == 101


@pytest.mark.parametrize(
    "junk",
    [
        b'{"report_id": "half',
        b"\xff\xfe\x00",
        b"\x00" * 100,
        b"17\n",
        b'{"no": "id"}\n',
        b'{"report_id": ["a list"]}\n',
        b'{"report_id": "half-a-character", "note": "\\ud83d"}\n',
        b'{"report_id": "no-number", "cost": NaN}\n',
    ],
    ids=["half", "bytes", "zeros", "number", "nameless", "list", "half character", "no number"],
)
def test_a_broken_line_in_the_outbox_does_no_harm(
    orch: Orchestrator,
    demo: ProjectClient,
    project: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    junk: bytes,
) -> None:
    monkeypatch.setenv("ORCH_OUTBOX", str(tmp_path))
    agent_id = project.spawn(name="scout")["id"]
    left = json.dumps(entry(input_tokens=10)).encode() + b"\n"
    (tmp_path / f"{agent_id}.jsonl").write_bytes(left + junk)

    with orch.run_agent("scout", project=project.id) as me:
        me.usage(input_tokens=1)

    eventually(lambda: demo.agents.get(agent_id).tokens_used == 11)
    assert not list(tmp_path.iterdir())
