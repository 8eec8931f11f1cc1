"""Clients that take their time: how long they may, and how few threads they cost."""

import socket
from time import monotonic
from typing import Any

HEAD = 16 << 10
"""Bytes in which nearly every head ends; a longer one is read by a thread."""

HEAD_SECONDS = 5.0
"""For what is left of such a longer one."""

BODY_SECONDS, PAUSE_SECONDS = 30.0, 5.0
"""For a body, and for any of it to come. A thread waits for it meanwhile, and there are few."""

MOST = 8 << 20
"""Bytes that are read of a body; twice the largest."""


class Late(Exception):
    """The head of a request did not come in time."""


class Patient:
    """A socket that is read for so long and so much, however it trickles; then it raises TimeoutError."""

    def __init__(self, sock: socket.socket, seconds: float, most: int = MOST) -> None:
        self._sock, self._until, self._left = sock, monotonic() + seconds, most

    def recv(self, size: int) -> bytes:
        """The next bytes, or none where the other side has ended."""
        seconds = min(self._until - monotonic(), PAUSE_SECONDS)
        if seconds <= 0 or self._left <= 0:
            raise TimeoutError
        self._sock.settimeout(seconds)
        data = self._sock.recv(size)
        self._left -= len(data)
        return data


class Hasty(Patient):
    """The same, for a head; it raises Late."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, HEAD_SECONDS)

    def recv(self, size: int) -> bytes:
        """The next bytes, or none where the other side has ended."""
        try:
            return super().recv(size)
        except TimeoutError:
            raise Late from None


def is_ready(conn: Any) -> bool:
    """Whether a thread should go on with gunicorn's connection: a whole head is there, or as much of one as will come.

    Else whoever polls the connection hears of it again when there is more than now.
    """
    read = conn.parser.unreader.buf.getvalue() if conn.parser else b""
    conn.sock.setblocking(False)
    try:
        head = read + conn.sock.recv(HEAD, socket.MSG_PEEK)
    except BlockingIOError:
        head = read
        if b"\r\n\r\n" not in head:
            return False
    except OSError:
        return True  # it is gone; reading it says so
    before, conn.heard = getattr(conn, "heard", -1), len(head)
    done = b"\r\n\r\n" in head or len(head) >= HEAD or len(head) in (0, before)
    conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1 if done else len(head) - len(read) + 1)
    if done:
        conn.heard = -1
    return done
