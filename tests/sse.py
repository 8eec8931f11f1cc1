"""A client of event streams, which keeps all that it was told."""

import json
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from threading import Thread
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit


class Message(NamedTuple):
    """What came, as a browser would hand it on."""

    id: str
    event: str
    data: Any


class Stream:
    """An open stream; a thread reads it until one side hangs up."""

    def __init__(self, server: str, key: str | None, path: str, **headers: str) -> None:
        """`path` is below /api/v1; raises AssertionError where no stream begins. Header names are written with
        underscores."""
        self.messages: list[Message] = []
        self.last_id = ""
        self.is_open = True
        self._connection = HTTPConnection(urlsplit(server).netloc, timeout=60)
        given = {"Authorization": f"Bearer {key}", "Accept": "text/event-stream"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request("GET", f"/api/v1/{path}", headers=given)
        self.answer = self._connection.getresponse()
        assert self.answer.status == 200, self.answer.read()
        self._thread = Thread(target=self._read, args=(self.answer,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def data(self) -> list[Any]:
        """What the messages say."""
        return [message.data for message in self.messages]

    @property
    def events(self) -> list[tuple[str, int]]:
        """Agent and version of each event that was told."""
        return [(event["agent_id"], event["version"]) for event in self.data]

    def close(self) -> None:
        """Hang up."""
        if self._connection.sock is not None:
            with suppress(OSError):
                self._connection.sock.shutdown(2)
        self._thread.join(10)
        self._connection.close()

    def _read(self, answer: HTTPResponse) -> None:
        fields: dict[str, str] = {}
        with suppress(OSError, HTTPException, ValueError):
            while line := answer.readline():
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                    continue
                self.last_id = fields.get("id", self.last_id)
                if "data" in fields:
                    data = json.loads(fields["data"])
                    self.messages.append(Message(self.last_id, fields.get("event", "message"), data))
                fields = {}
        self.is_open = False
