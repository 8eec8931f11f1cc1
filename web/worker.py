"""gunicorn's worker, with five promises more: no request is lost behind a body, every error has our form, an event
stream costs no thread, neither does a request that has yet to come, and who waits is answered before it ends."""

import json
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from gunicorn.http.errors import ParseException
from gunicorn.workers.gthread import _DEFER, ThreadWorker

from orchestrator import logs
from orchestrator.errors import Invalid, Problem
from web.listener import Listener
from web.patience import BODY_SECONDS, MOST, Hasty, Late, Patient, is_ready
from web.streams import HANDED_OVER, hub
from web.waiters import waiters

PATIENCE = 3.0
"""Seconds within which the rest of a body must come that nobody asked for, for its connection to be kept."""

SEND_SECONDS = 30.0
"""Within which a client must take a piece of its answer."""

LINGER, LINGERING = 2.0, 64 << 20
"""The same for what is thrown away after a last answer: a client still sending would be reset before it reads that."""

_PIECE = 1 << 16

_SENTENCES = {
    408: "the request did not come to its end in time; send it again",
    414: "the request line is too long; it may have 8,190 bytes, so ask for less in one query",
    417: "only `Expect: 100-continue` can be expected here; leave the header out",
    431: "the headers are too long; send fewer, of at most 8,190 bytes each",
    501: "the body's transfer coding is unknown; send Content-Length, or `Transfer-Encoding: chunked`",
}
_NO_HTTP = "this is not well-formed HTTP; look for raw bytes and control characters in the address and the headers"

log = logs.logger("web")


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn ships no type information
    """Threads; see the top of the file."""

    wsgi: Callable[..., Iterable[bytes]]

    def load_wsgi(self) -> None:
        """Put the rest of each body before the start of its answer."""
        super().load_wsgi()
        self.wsgi = _after_the_body(self.wsgi)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin to end, as SIGTERM asks: those who wait are answered what is known, in the time that is left."""
        super().handle_exit(sig, frame)
        waiters().end()

    def handle(self, conn: Any) -> Any:
        """Serve the connection's next request once its head is there; until then it costs no thread. (gunicorn's own
        lets a thread wait for the first byte of a connection, and for the rest of a head.)"""
        if not is_ready(conn):
            return _DEFER
        conn.init()
        conn.parser.unreader.sock = Hasty(conn.sock)
        kept = super().handle(conn)
        if not kept:
            _hang_up(conn)
        return kept

    def handle_request(self, req: Any, conn: Any) -> bool:
        """Answer it; whether the connection is kept. A client that has more to say is heard out first, for a while; one
        that listens is handed over."""
        req.unreader.sock = Patient(conn.sock, BODY_SECONDS)
        try:
            kept = bool(super().handle_request(req, conn))
        except TimeoutError:
            log.info("answer_not_taken")
            return False
        listener: Listener | None = getattr(req, "listener", None)
        if listener is not None:
            conn.sock, sock = socket.socket(), conn.sock  # the new one may be closed
            hub().add(listener, sock)
            return False
        if not kept and _unread(req.body):
            _linger(conn.sock)
        return kept

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Say in our form what gunicorn says in HTML: its status, and what to do."""
        draft = _Draft()
        super().handle_error(req, draft, addr, exc)
        status = 408 if isinstance(exc, Late) else int(draft.text.split(b" ", 2)[1])
        request_id = uuid4().hex
        log.warning("refused", status=status, cause=type(exc).__name__, request_id=request_id)
        path = getattr(req or getattr(exc, "req", None), "path", None)
        with suppress(OSError):  # it is gone, or reads nothing
            client.settimeout(LINGER)
            client.sendall(_answer(status, path or "", request_id))
            _linger(client)


class _Draft:
    """A socket that keeps what is written to it: gunicorn's own answer, of which only the status is wanted."""

    text = b""

    def gettimeout(self) -> float:
        """Says that it never blocks."""
        return 0.0

    def sendall(self, data: bytes) -> None:
        """Keep it."""
        self.text += data


def _after_the_body(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """The app, with each answer held back until its request is read to the end; or else it says `Connection: close`."""

    def serve(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        response = start_response.__self__

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            sock: socket.socket = environ["gunicorn.socket"]
            last = response.must_close or response.req.should_close()
            if not last and not _finish(response.req, sock):
                response.force_close()
            sock.settimeout(SEND_SECONDS)
            return start_response(status, headers, exc_info)

        answer = app(environ, start)
        listener: Listener | None = environ.get(HANDED_OVER)
        if listener is not None and response.status_code == HTTPStatus.OK:
            listener.is_chunked = response.chunked
            response.req.listener, response.close = listener, lambda: None  # the last chunk is not for us to send
        return answer

    return serve


def _finish(req: Any, sock: socket.socket) -> bool:
    """Read what is left of the request's body; whether the next request begins behind it."""
    body = req.body
    if body.failed or getattr(body.reader, "length", 0) > MOST:
        return False
    req.unreader.sock = Patient(sock, PATIENCE)
    try:
        while body.read(_PIECE):
            pass
    except (OSError, ParseException):
        return False
    return True


def _unread(body: Any) -> bool:
    return bool(getattr(body.reader, "length", 0) or getattr(body.reader, "parser", None))


def _linger(sock: socket.socket) -> None:
    patient = Patient(sock, LINGER, LINGERING)
    try:
        sock.shutdown(socket.SHUT_WR)
        while patient.recv(_PIECE):
            pass
    except OSError:
        pass  # it has gone on too long, or is gone
    finally:
        sock.settimeout(None)


def _hang_up(conn: Any) -> None:
    """Close a connection here. gunicorn does it in the one loop in which all others are accepted, and waits there for
    the client to close its side; it is left one that is closed."""
    conn.sock, sock = socket.socket(), conn.sock
    sock.setblocking(False)
    with suppress(OSError):
        if sock.recv(1, socket.MSG_PEEK):
            _linger(sock)
    sock.close()


def _answer(status: int, path: str, request_id: str) -> bytes:
    """The whole answer, as `web.problems` would render it where there is a request."""
    ours = status == Problem.status
    kind = Problem if ours else Invalid
    sentence = "something went wrong on our side; the request id finds it in the logs"
    sentence = sentence if ours else _SENTENCES.get(status, _NO_HTTP)
    document = {
        "type": "about:blank",
        "title": kind.title,
        "status": status,
        **({} if ours else {"detail": sentence}),
        "instance": path,
        "request_id": request_id,
        "success": False,
        "errors": [{"code": kind.code, "message": sentence, "field": None}],
    }
    data = json.dumps(document).encode()
    lines = [
        f"HTTP/1.1 {status} {kind.title}",
        "Connection: close",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(data)}",
        f"X-Request-ID: {request_id}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + data
