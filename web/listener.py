"""Somebody who follows the feed over HTTP: where it stands, what it may hear, and the connection to it."""

import json
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from orchestrator import feed
from orchestrator.feed import Position, Scope, Wanted
from orchestrator.keys import Caller
from web import answers, schemas

BEAT_SECONDS, STUCK_SECONDS = 15.0, 60.0
"""How often something is said at least; and after how long one that reads nothing is cut off. It goes on where it was
when it comes back."""

AT_ONCE = 16
"""Texts that are handed to the socket together."""

_RESYNC = b"event: resync\nid: %b\ndata: " + json.dumps({"detail": feed.NOT_OURS}).encode() + b"\n\n"


class Listener:
    """Somebody who follows the feed: who it is, whose events it may hear and which it wants, how far it has been told
    them (`at`), and the connection to it."""

    def __init__(self, caller: Caller, scope: Scope, wanted: Wanted, at: Position) -> None:
        self.caller, self.scope, self.wanted, self.at = caller, scope, wanted, at
        self.is_chunked = False
        self.served = 0.0
        self._sock: socket.socket | None = None
        self._waiting: deque[memoryview] = deque()
        self._spoke = self._sent = time.monotonic()

    @property
    def project_id(self) -> UUID | None:
        """The one it follows; None for all."""
        return self.scope.project_ids[0] if self.scope.project_ids else None

    @property
    def is_busy(self) -> bool:
        """Whether it has not yet read what it was told."""
        return bool(self._waiting)

    def connect(self, sock: socket.socket) -> None:
        """Speak through this socket from now on; in chunks, where the answer's headers have said so."""
        sock.setblocking(False)
        with suppress(OSError):  # it is no TCP socket
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * STUCK_SECONDS))
        self._sock = sock

    def tell(self, telling: "Telling", at: Position) -> None:
        """Say those of the events that it wants, which are all until there."""
        if text := telling.to(self.scope, self.wanted):
            self.say(text)
        self.at = at

    def say(self, text: bytes) -> None:
        """Send it, or keep it until there is room. The text is shared with others, and not copied."""
        parts = (b"%x\r\n" % len(text), text, b"\r\n") if self.is_chunked else (text,)
        self._waiting.extend(map(memoryview, parts))
        self._spoke = time.monotonic()
        self.flush()

    def begin_anew(self, at: Position) -> None:
        """Say that what it knows may never have happened, and go on from here."""
        self.say(_RESYNC % at.cursor().encode())
        self.at = at

    def beat(self) -> None:
        """Say where it stands, if nothing was said for long: it comes back there, and need not read all since."""
        if time.monotonic() - self._spoke > BEAT_SECONDS:
            self.say(b": beat\nid: %b\n\n" % self.at.cursor().encode())

    def flush(self) -> str | None:
        """Send what waits, as far as there is room; why it must be cut off, if so."""
        assert self._sock is not None  # noqa: S101  # whoever is in the hub is connected
        try:
            while self._waiting:
                self._take_off(self._sock.sendmsg([*islice(self._waiting, AT_ONCE)]))
                self._sent = time.monotonic()
        except BlockingIOError:
            return "stuck" if time.monotonic() - self._sent > STUCK_SECONDS else None
        except OSError:
            return "gone"
        self._sent = time.monotonic()
        return "gone" if self._has_hung_up() else None

    def close(self) -> None:
        """Hang up."""
        if self._sock is not None:
            self._sock.close()

    def _take_off(self, sent: int) -> None:
        while sent:
            first = self._waiting.popleft()
            if sent < len(first):
                self._waiting.appendleft(first[sent:])
            sent -= min(sent, len(first))

    def _has_hung_up(self) -> bool:
        assert self._sock is not None  # noqa: S101
        try:
            return not self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True


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
