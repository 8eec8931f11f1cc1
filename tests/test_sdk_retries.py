"""How the SDK asks again: a server of the test's own fails, refuses, hangs up or says nothing, and keeps count."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from orchestrator.sdk import (
    ApiError,
    AsyncOrchestrator,
    ConnectionFailed,
    NoServer,
    Orchestrator,
    RateLimited,
    Unavailable,
    calls,
    connection,
)
from tests.stage import eventually, free_port

HANG_UP, SAY_NOTHING = "hang up", "say nothing"

PROJECT = {
    "id": "p",
    "slug": "p",
    "name": "P",
    "owner_id": "u",
    "status": "active",
    "created_at": "2026-01-01T00:00:00Z",
}
KEY = {"id": "k", "name": "laptop", "prefix": "orch_1", "user_id": "u", "expires_at": None} | {
    "created_at": "2026-01-01T00:00:00Z",
    "key": "orch_1_2",
}


@dataclass(frozen=True)
class Says:
    """An answer."""

    status: int = 201
    body: Any = field(default_factory=lambda: PROJECT)
    headers: dict[str, str] = field(default_factory=dict)


def problem(status: int, code: str = "unavailable", **headers: str) -> Says:
    """An answer that says what was wrong."""
    entry = {"code": code, "message": "no", "field": None}
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Says(status, {"status": status, "detail": "no", "errors": [entry]}, given)


@dataclass
class Server:
    """It answers as its script says, one entry a request, the last one for ever."""

    url: str = ""
    script: list[Says | str] = field(default_factory=lambda: [Says()])
    heard: list[dict[str, str]] = field(default_factory=list)
    over: Event = field(default_factory=Event)

    def next(self) -> Says | str:
        """What the script says now."""
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that answers as the test says."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            state.heard.append(dict(self.headers))
            says = state.next()
            if isinstance(says, str):
                if says == SAY_NOTHING:
                    state.over.wait(20)
                self.close_connection = True
                return
            body = says.body if isinstance(says.body, bytes) else json.dumps(says.body).encode()
            self.send_response(says.status)
            for name, value in (says.headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_DELETE = do  # noqa: N815  # the names it looks for

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        state.url = f"http://127.0.0.1:{http.server_port}"
        yield state
        state.over.set()
        http.shutdown()


@pytest.fixture(params=["threads", "asyncio"])
def make(request: pytest.FixtureRequest, server: Server) -> Callable[..., Any]:
    """Make a project through one of the two clients."""

    def now(**how: Any) -> Any:
        with Orchestrator(server.url, "key", **how) as orch:
            return orch.projects.create("P")

    async def later(**how: Any) -> Any:
        async with AsyncOrchestrator(server.url, "key", **how) as orch:
            return await orch.projects.create("P")

    return now if request.param == "threads" else lambda **how: asyncio.run(later(**how))


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds for which the clients would have waited."""
    seconds: list[float] = []

    async def sleep(pause: float) -> None:
        seconds.append(pause)

    monkeypatch.setattr(connection, "time", SimpleNamespace(sleep=seconds.append))
    monkeypatch.setattr(connection, "asyncio", SimpleNamespace(sleep=sleep))
    return seconds


def test_a_server_that_cannot_serve_is_asked_twice_more_under_one_key(
    make: Callable[..., Any], server: Server, slept: list[float]
) -> None:
    server.script = [problem(503), problem(503), Says()]

    assert make().slug == "p"

    assert len(server.heard) == 3
    assert len({heard["Idempotency-Key"] for heard in server.heard}) == 1
    assert 0.375 <= slept[0] <= 0.5
    assert 0.75 <= slept[1] <= 1


def test_two_calls_have_two_keys(make: Callable[..., Any], server: Server) -> None:
    make()
    make()

    assert len({heard["Idempotency-Key"] for heard in server.heard}) == 2


def test_it_gives_up_after_three_attempts(make: Callable[..., Any], server: Server) -> None:
    server.script = [problem(503, Retry_After="2")]

    with pytest.raises(Unavailable) as caught:
        make()

    assert (len(server.heard), caught.value.retry_after) == (3, 2)


def test_how_often_is_the_caller_s_to_say(make: Callable[..., Any], server: Server) -> None:
    server.script = [problem(503)]

    with pytest.raises(Unavailable):
        make(retries=0)

    assert len(server.heard) == 1


def test_it_waits_as_long_as_the_server_asks_for(make: Callable[..., Any], server: Server, slept: list[float]) -> None:
    server.script = [problem(429, "rate_limited", Retry_After="7"), problem(503, Retry_After="0"), Says()]

    make()

    assert slept == [7, 0]


def test_a_wait_of_more_than_a_minute_is_the_caller_s_to_decide(
    make: Callable[..., Any], server: Server, slept: list[float]
) -> None:
    server.script = [problem(429, "rate_limited", Retry_After="61")]

    with pytest.raises(RateLimited) as caught:
        make()

    assert (caught.value.retry_after, len(server.heard), slept) == (61, 1, [])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 422])
def test_a_refusal_is_final(make: Callable[..., Any], server: Server, status: int) -> None:
    server.script = [problem(status, "conflict", Retry_After="1")]

    with pytest.raises(ApiError):
        make()

    assert len(server.heard) == 1


@pytest.mark.parametrize("fault", [HANG_UP, SAY_NOTHING])
def test_an_answer_that_was_lost_is_asked_for_again(
    make: Callable[..., Any], server: Server, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(calls, "PATIENCE", 1.0)
    server.script = [fault, fault, Says()]

    assert make().slug == "p"

    assert len(server.heard) == 3
    assert len({heard["Idempotency-Key"] for heard in server.heard}) == 1


@pytest.mark.parametrize("fault", [HANG_UP, SAY_NOTHING])
def test_no_answer_at_all_is_one_error(
    make: Callable[..., Any], server: Server, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(calls, "PATIENCE", 1.0)
    server.script = [fault]

    with pytest.raises(ConnectionFailed, match="POST /projects: "):
        make()

    eventually(lambda: len(server.heard) == 3)  # the last one, perhaps, only after its client has gone


def test_where_nobody_listens_no_connection_is_made(slept: list[float]) -> None:
    with Orchestrator(f"http://127.0.0.1:{free_port()}", "key") as orch, pytest.raises(ConnectionFailed):
        orch.me()

    assert len(slept) == 2


@pytest.mark.parametrize("fault", [HANG_UP, problem(503), problem(500)])
def test_a_new_key_is_not_asked_for_twice(server: Server, fault: Says | str) -> None:
    server.script = [fault, Says(201, KEY)]

    with Orchestrator(server.url, "key") as orch, pytest.raises((ConnectionFailed, ApiError)):
        orch.keys.create("laptop")

    assert len(server.heard) == 1
    assert "Idempotency-Key" not in server.heard[0]


def test_a_new_key_is_asked_for_again_where_there_is_none_for_certain(server: Server) -> None:
    server.script = [problem(429, "rate_limited"), Says(201, KEY)]

    with Orchestrator(server.url, "key") as orch:
        assert orch.keys.create("laptop").key == "orch_1_2"


@pytest.mark.parametrize(
    "says",
    [
        Says(200, b"<html>It works!</html>"),
        Says(200, []),
        Says(200, {"hello": "world"}),
        Says(204, b""),
        Says(302, b"", {"Location": "/login"}),
        Says(404, b"not here"),
        Says(404, {"status": 404, "error": "Not Found", "path": "/api/v1"}),
        Says(404, {"errors": "none"}),
        Says(502, b"<html>Bad gateway</html>"),
        Says(200, b"[" * 100_000),
        Says(400, b"", {"Retry-After": "²"}),
    ],
)
def test_what_is_no_orchestrator_is_called_so(make: Callable[..., Any], server: Server, says: Says) -> None:
    server.script = [says]

    with pytest.raises(NoServer, match=f"no orchestrator .status {says.status}.") as caught:
        make()

    assert server.url in str(caught.value)


def test_nor_is_what_cannot_even_be_decoded(make: Callable[..., Any], server: Server) -> None:
    server.script = [Says(200, b"no gzip", {"Content-Encoding": "gzip"})]

    with pytest.raises(NoServer, match=f"{server.url}.* is no orchestrator"):
        make()


@pytest.mark.parametrize("kind", [Orchestrator, AsyncOrchestrator])
@pytest.mark.parametrize("url", ["http://[::1", "http://127.0.0.1:abc", "http://a..b", f"http://{'x' * 100}.org"])
def test_what_is_no_address_is_called_so(kind: Callable[[str, str], object], url: str) -> None:
    with pytest.raises(NoServer, match="no address of a server"):
        kind(url, "key")


def test_a_wait_is_asked_of_the_server_and_granted_by_the_client(server: Server) -> None:
    server.script = [Says(200, {"data": [], "pagination": {"next_cursor": None}}), problem(404, "not_found")]

    with Orchestrator(server.url, "key") as orch:
        demo = orch.project(str(uuid4()))
        assert list(demo.commands.list()) == []
        with pytest.raises(ApiError):
            demo.commands.get("c", wait=100)

    assert [heard.get("Prefer") for heard in server.heard] == [None, "wait=30"]
    assert all("Idempotency-Key" not in heard for heard in server.heard)


@pytest.mark.parametrize("knows", ["the SDK", "the client"])
def test_an_http_client_of_the_caller_s_own_is_used(server: Server, knows: str) -> None:
    given = {"base_url": server.url} if knows == "the client" else {}
    url = server.url if knows == "the SDK" else None
    with httpx2.Client(headers={"X-Proxy": "yes"}, **given) as http:  # type: ignore[arg-type]
        assert Orchestrator(url, "key", http_client=http).projects.create("P").slug == "p"

    assert server.heard[0]["X-Proxy"] == "yes"


def test_what_has_no_streams_is_named(server: Server) -> None:
    """A server of before there were any, say, or a proxy's page."""
    server.script = [Says(200, {"data": []}, {"Content-Type": "application/json"})]

    with Orchestrator(server.url, "key") as orch, pytest.raises(NoServer, match="it sends application/json"):
        next(orch.feed.follow())
