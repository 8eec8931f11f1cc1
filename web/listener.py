"""Somebody who follows the feed over HTTP: where it stands, what it may hear, and the connection to it."""

import json
import socket
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row

from orchestrator import feed
from orchestrator.feed import Position, Scope, Wanted
from orchestrator.keys import Caller
from web import answers, schemas

BEAT_SECONDS, STUCK_SECONDS = 15.0, 60.0
"""How often something is said at least; and after how long one that reads nothing is cut off. It goes on where it was
when it comes back."""

_RESYNC = b"event: resync\nid: %b\ndata: " + json.dumps({"detail": feed.RESTORED}).encode() + b"\n\n"


class Listener:
    """Somebody who follows the feed, and the connection to it."""

    def __init__(self, caller: Caller, scope: Scope, wanted: Wanted, at: Position) -> None:
        self.caller, self.scope, self.wanted, self.at = caller, scope, wanted, at
        self.is_late = True
        """Whether it is not yet where the others are."""
        self._sock: socket.socket | None = None
        self.is_chunked = False
        """Whether the answer's headers have said that it comes in chunks."""
        self._waiting = bytearray()
        self._spoke = self._sent = time.monotonic()

    @property
    def project_id(self) -> Any:
        """The one it follows; None for all."""
        return self.scope.project_ids[0] if self.scope.project_ids else None

    @property
    def is_busy(self) -> bool:
        """Whether it has not yet read what it was told."""
        return bool(self._waiting)

    def connect(self, sock: socket.socket) -> None:
        """Speak through this socket from now on."""
        sock.setblocking(False)
        self._sock = sock

    def tell(self, telling: "Telling") -> None:
        """Say those of the events that it wants."""
        if text := telling.to(self.scope, self.wanted):
            self.say(text)

    def say(self, text: bytes) -> None:
        """Write it, or keep it until there is room."""
        self._waiting += b"%x\r\n%b\r\n" % (len(text), text) if self.is_chunked else text
        self._spoke = time.monotonic()

    def begin_anew(self, at: Position) -> None:
        """Say that what it knows may never have happened, and go on from here."""
        self.say(_RESYNC % at.cursor().encode())
        self.at = at

    def beat(self) -> None:
        """Say where it stands, if nothing was said for long: it comes back there, and needs not read all since."""
        if time.monotonic() - self._spoke > BEAT_SECONDS:
            self.say(b": beat\nid: %b\n\n" % self.at.cursor().encode())

    def flush(self) -> str | None:
        """Send what waits, as far as there is room; why it must be cut off, if so."""
        assert self._sock is not None  # noqa: S101  # whoever is in the hub is connected
        try:
            while self._waiting:
                del self._waiting[: self._sock.send(self._waiting)]
                self._sent = time.monotonic()
        except BlockingIOError:
            return "stuck" if time.monotonic() - self._sent > STUCK_SECONDS else None
        except OSError:
            return "gone"
        self._sent = time.monotonic()
        return None

    def close(self) -> None:
        """Hang up."""
        if self._sock is not None:
            self._sock.close()


class Telling:
    """Some events, as they are told to any number of listeners: to all who want the same in the same words."""

    def __init__(self, events: Sequence[Row[Any]]) -> None:
        self._events = events
        self._frames: dict[int, bytes] = {}
        self._texts: dict[tuple[Scope, Wanted], bytes] = {}

    def to(self, scope: Scope, wanted: Wanted) -> bytes:
        """What is said to one who wants these."""
        if (scope, wanted) not in self._texts:
            numbers = (n for n, event in enumerate(self._events) if scope.has(event) and wanted.has(event))
            self._texts[scope, wanted] = b"".join(map(self._frame, numbers))
        return self._texts[scope, wanted]

    def _frame(self, number: int) -> bytes:
        if number not in self._frames:
            shape = schemas.Event.model_validate(answers.event(self._events[number]))
            self._frames[number] = b"id: %b\ndata: %b\n\n" % (shape.cursor.encode(), shape.model_dump_json().encode())
        return self._frames[number]
