"""The hub of a process: whoever listens is told everything once, whenever it came and whatever went wrong meanwhile."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from itertools import count
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from orchestrator import feed
from orchestrator.db import Guard, begin
from tests.stage import Api, Project, drain, eventually
from tests.test_events import PATIENCE, names
from tests.test_streams import whole
from web import gate, listener, streams
from web.listener import Listener, Telling
from web.streams import Hub


class Ear:
    """A listener in this process, and the other end of its connection."""

    def __init__(self, hub: Hub, project: Project, at: feed.Position) -> None:
        with begin(Guard.TOOL) as db:
            caller = gate.ring.look_up(db, project.api.key or "")
        self.listener = Listener(caller, feed.Scope((UUID(project.id),)), feed.EVERYTHING, at)
        ours, self.sock = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.sock.setblocking(False)
        self._heard = b""
        hub.add(self.listener, ours)

    def close(self) -> None:
        """Close both ends."""
        self.listener.close()
        self.sock.close()

    def heard(self) -> list[tuple[str, int]]:
        """Agent and version of each event so far."""
        with suppress(BlockingIOError):
            while read := self.sock.recv(1 << 20):
                self._heard += read
        said = [json.loads(line[6:]) for line in self._heard.decode().splitlines() if line.startswith("data: ")]
        return names(said)


Listen = Callable[[Project, feed.Position], Ear]


@pytest.fixture
def listen(hub: Hub) -> Iterator[Listen]:
    """Lets somebody listen to a project's events, from a place on."""
    with ExitStack() as open_:
        yield lambda project, at: open_.enter_context(closing(Ear(hub, project, at)))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """One whose rounds are for the test to make, two events at a time."""
    monkeypatch.setattr(streams, "PIECE", 2)
    monkeypatch.setattr(streams, "BUDGET_SECONDS", 0)
    monkeypatch.setattr(feed, "EACH", 3)
    return Hub(10)


def place() -> feed.Position:
    """Where the feed has come to."""
    with begin(Guard.TOOL) as db:
        return feed.now(db)


def in_one_transaction(project: Project, count: int) -> list[str]:
    """So many agents, born at once."""
    born = [project.spawn(wait=False)["agent_id"] for _ in range(count)]
    drain()
    eventually(lambda: len(whole(project)) >= count, PATIENCE)
    return born


def test_a_piece_may_end_within_a_transaction(quiet: Project, hub: Hub, listen: Listen) -> None:
    first = place()
    early = listen(quiet, first)
    hub.look()
    in_one_transaction(quiet, 9)
    late = listen(quiet, first)
    ears = [early, late]
    for _ in range(3):
        hub.look()
        ears.append(listen(quiet, ears[-1].listener.at))

    for _ in range(30):
        hub.look()

    expected = names(whole(quiet))
    assert early.heard() == late.heard() == expected
    for ear in ears[2:]:
        heard = ear.heard()
        assert heard == expected[len(expected) - len(heard) :]
    assert len({ear.listener.at for ear in ears}) == 1


def test_whoever_could_not_be_told_is_told_later(
    quiet: Project, hub: Hub, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    ears = [listen(quiet, place()) for _ in range(3)]
    hub.look()
    in_one_transaction(quiet, 3)
    tell, calls = Listener.tell, count()

    def stumble(self: Listener, *given: Any) -> None:
        if next(calls) == 1:
            raise MemoryError
        tell(self, *given)

    monkeypatch.setattr(Listener, "tell", stumble)
    with pytest.raises(MemoryError):
        hub.look()
    for _ in range(10):
        hub.look()

    assert [ear.heard() for ear in ears] == [names(whole(quiet))] * 3


def test_those_who_have_caught_up_are_told_with_the_others(
    quiet: Project, hub: Hub, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = place()
    agents = in_one_transaction(quiet, 2)
    early = listen(quiet, begun)
    for _ in range(5):
        hub.look()
    late = listen(quiet, begun)
    together = []
    for verb in ("pause", "resume") * 4:  # something happens before each round
        before = place()
        quiet.send(agents[0], verb)
        drain()
        eventually(lambda b=before: place() > b, PATIENCE)  # type: ignore[misc]
        hub.look()
        together.append(early.listener.at == late.listener.at)
    eventually(lambda: hub.look() or early.heard() == late.heard() == names(whole(quiet)), PATIENCE)

    told: list[int] = []
    monkeypatch.setattr(streams, "Telling", lambda events: told.append(len(events)) or Telling(events))
    quiet.send(agents[0], "pause")
    drain()
    eventually(lambda: hub.look() or early.heard() == late.heard() == names(whole(quiet)), PATIENCE)
    assert together[-1], "there was no need to wait until nothing happens"
    assert [count for count in told if count] == [1], "both at once"


def test_one_who_comes_after_the_last_event_is_told_the_next(
    admin: Api, quiet: Project, hub: Hub, listen: Listen
) -> None:
    other = Project.make(admin)
    first = listen(quiet, place())
    in_one_transaction(quiet, 1)
    for _ in range(4):
        hub.look()
    second = listen(other, place())
    in_one_transaction(other, 3)

    eventually(lambda: hub.look() or second.heard() == names(whole(other)), PATIENCE)
    assert first.heard() == names(whole(quiet))


def test_whoever_comes_when_all_have_left_does_not_wait_for_what_was_before(
    quiet: Project, hub: Hub, listen: Listen
) -> None:
    first = listen(quiet, place())
    hub.look()
    first.sock.close()
    hub.keep()
    in_one_transaction(quiet, 9)
    next_ = listen(quiet, place())
    hub.look()
    quiet.born()
    eventually(lambda: len(whole(quiet)) == 10, PATIENCE)
    hub.look()

    assert next_.heard() == names(whole(quiet))[9:]


def test_a_stream_on_which_nothing_happens_says_where_it_stands(
    quiet: Project, hub: Hub, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    ear = listen(quiet, place())
    hub.keep()
    with pytest.raises(BlockingIOError):
        ear.sock.recv(1000)
    monkeypatch.setattr(listener, "BEAT_SECONDS", 0)
    hub.keep()
    assert ear.sock.recv(1000) == f": beat\nid: {ear.listener.at.cursor()}\n\n".encode()

    ear.listener.say(b"x" * 10_000_000)
    assert (ear.listener.flush(), ear.listener.is_busy) == (None, True)
    monkeypatch.setattr(listener, "STUCK_SECONDS", -1)
    assert ear.listener.flush() == "stuck"


def test_one_that_has_hung_up_is_let_go_at_once(quiet: Project, hub: Hub, listen: Listen) -> None:
    gone, stays = listen(quiet, place()), listen(quiet, place())
    gone.sock.close()
    hub.keep()
    assert hub._listeners == [stays.listener]
    in_one_transaction(quiet, 1)

    eventually(lambda: hub.look() or stays.heard(), PATIENCE)


def test_a_hub_that_is_ahead_of_its_database_begins_anew(quiet: Project, hub: Hub, listen: Listen) -> None:
    ear = listen(quiet, place())
    hub.look()
    hub._at = place()._replace(xid=2**62)  # as after a crash that lost transactions: their ids are given out again
    in_one_transaction(quiet, 3)

    eventually(lambda: hub.look() or len(ear.heard()) == 3, PATIENCE)
    assert hub._at < place()._replace(xid=2**62)


def test_an_event_of_another_project_owner_or_agent_is_not_heard() -> None:
    project, owner, agent = uuid4(), uuid4(), uuid4()
    event: Any = SimpleNamespace(project_id=project, owner_id=owner, agent_id=agent)
    for scope, hears in (
        (feed.Scope(), True),
        (feed.Scope((project,)), True),
        (feed.Scope((uuid4(),)), False),
        (feed.Scope(owner_id=owner), True),
        (feed.Scope(owner_id=uuid4()), False),
        (feed.Scope((project,), owner), True),
        (feed.Scope((project,), uuid4()), False),
        (feed.Scope((project,), owner, agent), True),
        (feed.Scope((project,), owner, uuid4()), False),
    ):
        assert scope.has(event) is hears, scope
