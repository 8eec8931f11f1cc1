"""Bad input no client library would send, to the web server as production runs it."""

import json
from collections.abc import Iterator
from time import monotonic

import pytest
from flask_openapi3 import OpenAPI

from tests.stage import busy, fields, is_problem
from tests.surface import EXAMPLES, WITH_BODY, Scene, holdings, routes
from tests.wire import Gunicorn, Reply

MIB = 1 << 20
JSON = b"Content-Type: application/json"
CHUNKED = b"Transfer-Encoding: chunked"


@pytest.fixture(autouse=True)
def unharmed(scene: Scene, web: Gunicorn) -> Iterator[None]:
    """Nothing in the database changes during the test, and the server serves on."""
    before = holdings()
    yield
    assert holdings() == before
    assert web.ask(b"GET /healthz HTTP/1.1", None).status_code == 200


def line(scene: Scene, app: OpenAPI, operation: str) -> bytes:
    """The request line of an operation."""
    method, rule = routes(app)[operation]
    return f"{method} {scene.address(rule)} HTTP/1.1".encode()


def length(size: int) -> bytes:
    """A header that claims a body of this size."""
    return f"Content-Length: {size}".encode()


def chunked(data: bytes, size: int = 65536) -> bytes:
    """The data in chunks."""
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def padded(size: int) -> bytes:
    """An object of this size with an unknown field."""
    return b'{"no_such_field": "' + b"x" * (size - 21) + b'"}'


@pytest.mark.parametrize("operation", WITH_BODY)
def test_a_large_body_in_chunks_is_a_413(app: OpenAPI, scene: Scene, web: Gunicorn, operation: str) -> None:
    most = 4 * MIB if operation.startswith("report_") or operation in ("beat_many", "send_commands") else MIB

    fits, over = (
        web.ask(line(scene, app, operation), scene.admin.key, JSON, CHUNKED, body=chunked(padded(size)))
        for size in (most, 2 * most)
    )

    assert is_problem(fits, 422, "validation_error"), fits.data
    assert is_problem(over, 413, "payload_too_large"), over.data


@pytest.mark.parametrize("claimed", [2 * MIB, 10**12, 10**30])
def test_a_claim_of_a_large_body_is_a_413_before_it_is_sent(
    app: OpenAPI, scene: Scene, web: Gunicorn, claimed: int
) -> None:
    reply = web.ask(line(scene, app, "spawn_agent"), scene.owner.key, JSON, length(claimed), body=b"{}")

    assert is_problem(reply, 413, "payload_too_large"), reply.data


def test_a_body_shorter_than_it_claims_is_a_400(app: OpenAPI, scene: Scene, web: Gunicorn) -> None:
    body = json.dumps({"agent_type_id": scene.project.type_id, "name": "scout"}).encode()
    claim = length(len(body) + 10)

    reply = web.ask(line(scene, app, "spawn_agent"), scene.owner.key, JSON, claim, body=body, half_close=True)

    assert is_problem(reply, 400, "malformed_json"), reply.data


def test_a_body_longer_than_it_claims_is_cut(app: OpenAPI, scene: Scene, web: Gunicorn) -> None:
    body = json.dumps({"agent_type_id": scene.project.type_id, "name": "scout"}).encode()

    reply = web.ask(line(scene, app, "spawn_agent"), scene.owner.key, JSON, length(len(body) - 5), body=body)

    assert is_problem(reply, 400, "malformed_json"), reply.data


def test_what_lies_beyond_the_limit_is_not_cut_off_unseen(app: OpenAPI, scene: Scene, web: Gunicorn) -> None:
    whole = json.dumps({"agent_type_id": scene.project.type_id, "name": "scout"}).encode()
    body = chunked(whole + b" " * (MIB - len(whole)) + b"x")

    reply = web.ask(line(scene, app, "spawn_agent"), scene.owner.key, JSON, CHUNKED, body=body)

    assert is_problem(reply, 413, "payload_too_large"), reply.data


@pytest.mark.parametrize(
    "claims",
    [[b"Content-Length: -1"], [b"Content-Length: x"], [b"Content-Length: 1_0"], [length(2), length(3)],
     [length(2), CHUNKED], [b"Transfer-Encoding: x"], [CHUNKED, CHUNKED]],
)  # fmt: skip
def test_a_contradictory_length_is_refused(app: OpenAPI, scene: Scene, web: Gunicorn, claims: list[bytes]) -> None:
    reply = web.ask(line(scene, app, "update_agent"), scene.owner.key, JSON, *claims, body=b"0\r\n\r\n")

    assert reply.status_code in (400, 501), reply.data


@pytest.mark.parametrize(
    "body",
    [b"zz\r\n{}\r\n0\r\n\r\n", b"2\r\n{}", b"2\r\n{}}}\r\n0\r\n\r\n", b"-2\r\n{}\r\n0\r\n\r\n", b"", b"9\r\n{}",
     b"2\r\n{}\r\n", b"2;\x00\r\n{}\r\n0\r\n\r\n"],
)  # fmt: skip
def test_broken_chunks_are_a_400(app: OpenAPI, scene: Scene, web: Gunicorn, body: bytes) -> None:
    reply = web.ask(line(scene, app, "update_agent"), scene.owner.key, JSON, CHUNKED, body=body, half_close=True)

    assert is_problem(reply, 400, "malformed_json"), reply.data


def test_a_small_body_in_chunks_is_as_good_as_any(app: OpenAPI, scene: Scene, web: Gunicorn) -> None:
    body = chunked(json.dumps({"status": "sleeping"}).encode(), 3)

    reply = web.ask(line(scene, app, "update_agent"), scene.owner.key, JSON, CHUNKED, body=body)

    assert is_problem(reply, 422, "validation_error"), reply.data
    assert fields(reply) == ["status"]


@pytest.mark.parametrize(
    ("path", "status"),
    [(b"/api/v1/projects/%ff%00", 404), (b"/api/v1/projects/%", 404), (b"/api/v1/projects/%zz", 404),
     (b"/api/v1/../v1/me", 404), (b"/api/v1/./me", 404), (b"/api/v1/me;x", 404), (b"/api/v1/me%23", 404),
     (b"/api/v1/me/", 404), (b"/api/v1//me", 404), (b"//api/v1/me", 200), (b"http://elsewhere/api/v1/me", 200),
     (b"/api%2fv1%2fme", 200), (b"/api/v1/me?%ff=%00", 200)],
)  # fmt: skip
def test_no_spelling_of_an_address_gets_round_the_key(scene: Scene, web: Gunicorn, path: bytes, status: int) -> None:
    known = web.ask(b"GET " + path + b" HTTP/1.1", scene.owner.key)
    anonymous = web.ask(b"GET " + path + b" HTTP/1.1", None)

    assert known.status_code == status, known.data
    assert status == 200 or is_problem(known, 404, "not_found"), known.data
    assert is_problem(anonymous, 401, "unauthenticated"), anonymous.data


@pytest.mark.parametrize(
    "path", [b"/api/v1/projects/\xff", b"/api/v1/projects/\xc3\xa4", b"/api/v1/me?a=\xff", b"*", b"x"]
)
def test_raw_bytes_in_a_request_line_do_not_even_reach_us(scene: Scene, web: Gunicorn, path: bytes) -> None:
    reply = web.ask(b"GET " + path + b" HTTP/1.1", scene.owner.key)

    assert is_problem(reply, 400, "validation_error"), reply.data


@pytest.mark.parametrize("body", [b'{"name": "\xff"}', b"\xff\xfe", b'{"name": "\xed\xa0\x80"}', b"\x00" * 100])
def test_bytes_that_are_no_text_are_a_400(app: OpenAPI, scene: Scene, web: Gunicorn, body: bytes) -> None:
    reply = web.ask(line(scene, app, "update_agent"), scene.owner.key, JSON, length(len(body)), body=body)

    assert is_problem(reply, 400, "malformed_json"), reply.data


@pytest.mark.parametrize(
    ("header", "field"),
    [(b"If-Match: \xff", "If-Match"), (b"If-Match: 1", "If-Match"), (b"Idempotency-Key: \xe4", "Idempotency-Key"),
     (b"Idempotency-Key: " + b"x" * 256, "Idempotency-Key"), (b"Idempotency-Key:", "Idempotency-Key"),
     (b"X-Reason: " + b"x" * 501, "X-Reason")],
)  # fmt: skip
def test_an_absurd_header_is_a_422_that_names_it(
    app: OpenAPI, scene: Scene, web: Gunicorn, header: bytes, field: str
) -> None:
    reply = web.ask(line(scene, app, "terminate_agent"), scene.owner.key, header)

    assert is_problem(reply, 422, "validation_error"), reply.data
    assert fields(reply) == [field]


@pytest.mark.parametrize("header", [b"Bearer \xff", b"\x80", b"Bearer a b", b"Bearer", b"Basic Og=="])
def test_a_garbled_key_is_a_401(web: Gunicorn, header: bytes) -> None:
    reply = web.ask(b"GET /api/v1/me HTTP/1.1", None, b"Authorization: " + header)

    assert is_problem(reply, 401, "unauthenticated"), reply.data
    assert reply.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "raw",
    [b"\r\n\r\n", b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01", b"G" * 100_000,
     b"GET / HTTP/1.1\r\nA\x00: b\r\n\r\n", b"GET /" + b"x" * 100_000],
    ids=["blank", "binary", "word", "version", "TLS", "endless word", "NUL", "endless path"],
)  # fmt: skip
def test_what_is_no_http_ends_the_connection(web: Gunicorn, raw: bytes) -> None:
    said = web.send(raw, half_close=True)

    assert not said or Reply.read(said).status_code in (400, 404, 414, 431, 501, 505), said


@pytest.mark.parametrize("operation", EXAMPLES)
def test_a_refusal_that_left_the_body_unread_does_not_garble_the_next_answer(
    app: OpenAPI, scene: Scene, web: Gunicorn, operation: str
) -> None:
    first = [line(scene, app, operation), b"Host: x", JSON, length(7), b"", b'{"a":1}']
    then = [b"GET /healthz HTTP/1.1", b"Host: x", b"Connection: close", b"", b""]

    said = web.send(b"\r\n".join(first) + b"\r\n".join(then))

    assert said.startswith(b"HTTP/1.1 401")
    assert said.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 200" in said


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize(
    ("first", "status", "size"),
    [(b"POST /api/v1/projects", 401, 100_000), (b"POST /api/v1/me/no_such", 401, 5 * MIB),
     (b"GET /healthz", 200, 100_000), (b"POST /no_such", 404, 100_000), (b"PUT /healthz", 405, 2 * MIB)],
)  # fmt: skip
def test_an_answer_that_left_a_large_body_unread_keeps_the_connection(
    web: Gunicorn, first: bytes, status: int, size: int, framing: str
) -> None:
    claim, body = (length(size), b"x" * size) if framing == "length" else (CHUNKED, chunked(b"x" * size))
    head = b"\r\n".join([first + b" HTTP/1.1", b"Host: x", b"Authorization: Bearer wrong", JSON, claim, b"", b""])

    said = web.send(head, body, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

    reply = Reply.read(said)
    assert (reply.status_code, reply.headers["Connection"]) == (status, "keep-alive")
    assert said.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 200" in said


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_an_answer_to_a_body_without_bounds_is_the_last_of_its_connection_and_says_so(
    app: OpenAPI, scene: Scene, web: Gunicorn, framing: str
) -> None:
    size = 20 * MIB
    claim, body = (length(size), b"x" * size) if framing == "length" else (CHUNKED, chunked(b"x" * size))
    key = b"Authorization: Bearer " + scene.owner.key.encode()

    said = web.send(b"\r\n".join([line(scene, app, "spawn_agent"), b"Host: x", key, JSON, claim, b"", b""]), body)

    reply = Reply.read(said)
    assert is_problem(reply, 413, "payload_too_large"), said
    assert reply.headers["Connection"] == "close"


def test_a_body_that_does_not_come_is_not_waited_for_long(web: Gunicorn) -> None:
    began = monotonic()

    said = web.send(b"POST /no_such HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", b"x")

    reply = Reply.read(said)
    assert (reply.status_code, reply.headers["Connection"]) == (404, "close")
    assert monotonic() - began < busy(10)


def test_a_request_line_may_have_8190_bytes(scene: Scene, web: Gunicorn) -> None:
    fits, over = (web.ask(b"GET /api/v1/me?x=" + b"x" * size + b" HTTP/1.1", scene.owner.key) for size in (8160, 8190))

    assert fits.status_code == 200, fits.data
    assert is_problem(over, 414, "validation_error"), over.data
    assert over.headers["Connection"] == "close"


@pytest.mark.parametrize(
    ("header", "status"),
    [(b"X-Reason: a\x01b", 400), (b"X-Reason\x00: a", 400), (b"Content-Length: x", 400),
     (b"X-Reason: " + b"x" * 9000, 431), (b"Transfer-Encoding: x", 501), (b"Expect: x", 417)],
)  # fmt: skip
def test_what_is_no_http_is_answered_as_any_other_error(
    scene: Scene, web: Gunicorn, header: bytes, status: int
) -> None:
    reply = web.ask(b"GET /api/v1/me HTTP/1.1", scene.owner.key, header)

    assert is_problem(reply, status, "validation_error"), reply.data
    assert scene.owner.key.encode() not in reply.data
