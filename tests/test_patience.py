"""Clients that take their time, and the others, who must not wait for them."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from time import monotonic, sleep

import pytest

from orchestrator.settings import settings
from tests.stage import busy, is_problem
from tests.surface import Scene
from tests.wire import Gunicorn, Reply

HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"


@pytest.fixture
def many(web: Gunicorn) -> Iterator[list[socket.socket]]:
    """Four connections for each thread of the server."""
    with ExitStack() as stack:
        yield [stack.enter_context(connection(web)) for _ in range(4 * settings().web_threads)]


def connection(web: Gunicorn) -> socket.socket:
    """A new one."""
    return socket.create_connection(("127.0.0.1", web.port), timeout=20)


def rest(client: socket.socket) -> bytes:
    """All that is said until it is closed."""
    with closing(client):
        return b"".join(iter(lambda: client.recv(65536), b""))


def is_served_at_once(web: Gunicorn) -> bool:
    """Whether somebody else gets an answer."""
    began = monotonic()
    return web.ask(b"GET /healthz HTTP/1.1", None).status_code == 200 and monotonic() - began < busy(1)


def test_connections_on_which_nothing_is_said_hold_up_nobody(web: Gunicorn, many: list[socket.socket]) -> None:
    assert is_served_at_once(web)
    for client in many:
        client.sendall(HEAD + b"\r\n")
    assert all(rest(client).startswith(b"HTTP/1.1 200") for client in many)


def test_heads_that_do_not_end_hold_up_nobody(web: Gunicorn, many: list[socket.socket]) -> None:
    for client in many:
        client.sendall(HEAD)

    assert is_served_at_once(web)
    for client in many:
        client.sendall(b"\r\n")
    assert all(rest(client).startswith(b"HTTP/1.1 200") for client in many)


def test_nor_do_those_on_connections_that_were_used_before(web: Gunicorn, many: list[socket.socket]) -> None:
    for client in many:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        said = client.recv(65536)
        while not said.endswith(b"}\n"):
            said += client.recv(65536)
        client.sendall(HEAD)

    assert is_served_at_once(web)
    for client in many:
        client.sendall(b"\r\n")
    assert all(rest(client).startswith(b"HTTP/1.1 200") for client in many)


def test_a_head_may_come_byte_by_byte(web: Gunicorn) -> None:
    client = connection(web)
    for byte in HEAD + b"\r\n":
        client.sendall(bytes([byte]))
        sleep(0.001)

    assert rest(client).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("head", [b"", b"G", HEAD, HEAD * 2000], ids=["nothing", "a byte", "most of it", "without end"])
def test_a_head_that_breaks_off_ends_the_connection(web: Gunicorn, head: bytes) -> None:
    began = monotonic()

    said = web.send(head, half_close=True)

    assert said == b"" or is_problem(Reply.read(said), 431 if len(head) > 8190 else 400)
    assert monotonic() - began < busy(2)


def test_a_long_head_that_stalls_is_a_408(web: Gunicorn) -> None:
    lines = b"".join(b"X-Filler-%d: %b\r\n" % (n, b"x" * 8000) for n in range(3))

    reply = Reply.read(web.send(HEAD + lines))

    assert is_problem(reply, 408, "validation_error"), reply.data
    assert reply.headers["Connection"] == "close"


def test_clients_that_do_not_close_their_side_hold_up_nobody(web: Gunicorn, many: list[socket.socket]) -> None:
    for client in many:
        client.sendall(HEAD + b"\r\n")

    assert is_served_at_once(web)


def test_bodies_that_stall_hold_up_others_for_seconds_only(
    scene: Scene, web: Gunicorn, many: list[socket.socket]
) -> None:
    head = f"POST {scene.address('/api/v1/projects/<project_id>/agents')} HTTP/1.1\r\nHost: x\r\n"
    head += f"Authorization: Bearer {scene.owner.key}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    stalled = many[: settings().web_threads]
    for client in stalled:
        client.sendall(head.encode() + b"{")

    began = monotonic()
    assert web.ask(b"GET /healthz HTTP/1.1", None).status_code == 200
    assert monotonic() - began < busy(10)
    replies = [Reply.read(rest(client)) for client in stalled]
    assert all(is_problem(reply, 400, "malformed_json") for reply in replies), replies[0].data
