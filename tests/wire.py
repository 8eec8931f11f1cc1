"""The web server as production runs it, as a process: requests over HTTP, and what no client would say: bytes."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from typing import Any, Self

import httpx2

from orchestrator.sdk.address import needs_certificates
from tests import nursery
from tests.stage import eventually

GUNICORN = ["-c", "python:web.serve", "web:create_app()", "--log-level", "info"]


@dataclass(frozen=True)
class Reply:
    """An answer as it came over the wire."""

    status_code: int
    headers: Message
    data: bytes

    @classmethod
    def read(cls, raw: bytes) -> Self:
        """The first answer in these bytes."""
        head, _, data = raw.partition(b"\r\n\r\n")
        line, _, fields = head.partition(b"\r\n")
        return cls(int(line.split()[1]), BytesParser().parsebytes(fields), data)

    @property
    def mimetype(self) -> str:
        """The content type."""
        return self.headers.get_content_type()

    @property
    def json(self) -> Any:
        """The body's value."""
        return json.loads(self.data)


@dataclass
class Gunicorn:
    """The web server as a process, with one worker."""

    process: nursery.Started
    log: Path
    port: int
    http: httpx2.Client

    @classmethod
    @contextmanager
    def start(cls, log: Path, port: int = 0, **environment: str) -> Iterator[Self]:
        """Start one, on a free port where none is given, and wait until it serves; it ends with the block."""
        log.write_bytes(b"")
        process = nursery.start("gunicorn", [*GUNICORN, "-b", f"127.0.0.1:{port}"], log, environment)
        try:
            found = eventually(lambda: re.search(r"Listening at: (http://127\.0\.0\.1:(\d+))", log.read_text()), 30)
            with httpx2.Client(base_url=found[1], timeout=60, verify=needs_certificates(found[1])) as http:
                assert http.get("/healthz").status_code == 200, log.read_text()  # it listens before it can answer
                yield cls(process, log, int(found[2]), http)
        finally:
            process.terminate()
            process.wait(timeout=40)

    def __call__(self, method: str, path: str, key: str | None, body: Any = None, **headers: str) -> httpx2.Response:
        """One well-formed request; path and header names as in `stage.Api`."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        given |= {} if key is None else {"Authorization": f"Bearer {key}"}
        more = {} if body is None else {"json": body}
        return self.http.request(method, path if path.startswith("/") else f"/api/v1/{path}", headers=given, **more)

    def send(self, *pieces: bytes, half_close: bool = False) -> bytes:
        """All that the server says to these bytes, until it closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            try:
                for piece in pieces:
                    connection.sendall(piece)
                if half_close:
                    connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it has answered already, and will hear no more
            return _all(connection)

    def ask(self, line: bytes, key: str | None, *headers: bytes, body: bytes = b"", **how: bool) -> Reply:
        """The answer to a request with this request line."""
        lines = [line, b"Host: localhost", b"Connection: close", *headers]
        lines += [b"Authorization: Bearer " + key.encode()] if key else []
        return Reply.read(self.send(b"\r\n".join(lines) + b"\r\n\r\n", body, **how))


def _all(connection: socket.socket) -> bytes:
    said = b""
    try:
        while more := connection.recv(65536):
            said += more
    except OSError:
        pass  # reset after its answer, since it did not read all of ours
    return said
