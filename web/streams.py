"""Event streams: everybody who follows the feed over HTTP, served by one thread of this process.

A request that asks for `text/event-stream` gives its thread back at once; `web.worker` hands its connection over to the
hub, which reads the feed once for all of them. So hundreds of listeners cost the API a statement every 0.2 s.
"""

import socket
import time
from collections.abc import Iterable
from functools import cache
from threading import Event, Lock, Thread
from typing import Any

from flask import Response, g, request
from prometheus_client import Counter, Gauge
from sqlalchemy import Connection

from orchestrator import access, feed, logs
from orchestrator.db import autocommit
from orchestrator.errors import Unavailable
from orchestrator.feed import Position, Scope, Wanted
from orchestrator.settings import settings
from web.listener import Listener, Telling

EVENT_STREAM = "text/event-stream"
HANDED_OVER = "orchestrator.listener"
"""Where a request's environ has the listener to whom its connection is to be given."""

LOOK_SECONDS, CHECK_SECONDS, REST_SECONDS = 0.2, 1.0, 1.0
"""How often the feed is read, and it is asked whether listeners may still listen; how long a database that is away is
left alone."""

PIECE = 2_000
"""Events at a time."""

log = logs.logger("streams")

STREAMS = Gauge("orchestrator_event_streams", "Event streams that are open.", multiprocess_mode="livesum")
CUT_OFF = Counter("orchestrator_event_streams_cut_off_total", "Event streams ended by us, by reason.", ["reason"])


class Hub:
    """All listeners of this process."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        self._listeners: list[Listener] = []
        self._somebody = Event()
        self._at: Position | None = None
        self._checked = 0.0

    def start(self) -> None:
        """Begin to read, in a thread that ends with the process."""
        Thread(target=self._run, name="streams", daemon=True).start()

    @property
    def is_full(self) -> bool:
        """Whether it takes nobody any more."""
        return len(self._listeners) >= self._most

    def add(self, listener: Listener, sock: socket.socket) -> None:
        """Serve it, too, through this socket."""
        listener.connect(sock)
        with self._lock:
            self._listeners.append(listener)
        STREAMS.inc()
        self._somebody.set()

    def _run(self) -> None:
        while True:
            self._somebody.wait()
            began = time.monotonic()
            try:
                self._look()
            except Unavailable as error:
                log.warning("look_failed", **logs.cause(error))
                time.sleep(REST_SECONDS)
            except Exception:  # whatever else it is: were this thread to end, every stream here would stand still
                log.exception("streams_failed")
                time.sleep(REST_SECONDS)
            self._flush()
            time.sleep(max(LOOK_SECONDS / 4, LOOK_SECONDS - (time.monotonic() - began)))

    def _look(self) -> None:
        with self._lock:
            listeners = list(self._listeners)
        with autocommit() as db:
            self._check(db, listeners)
            self._read(db, listeners)
        for listener in listeners:
            listener.beat()

    def _check(self, db: Connection, listeners: list[Listener]) -> None:
        """Cut off those whose key, user or project has changed so that they would not be let in again."""
        if time.monotonic() - self._checked > CHECK_SECONDS:
            good = access.still(db, [(listener.caller, listener.project_id) for listener in listeners])
            for number in range(len(listeners) - 1, -1, -1):
                if number not in good:
                    self._cut_off(listeners.pop(number), "refused")
            self._checked = time.monotonic()

    def _read(self, db: Connection, listeners: list[Listener]) -> None:
        """Bring everybody to the same place: those who are late each by itself, then all together."""
        now = feed.now(db)
        if self._at is None or self._at.era != now.era:
            self._at = now
        for listener in listeners:
            self._catch_up(db, listener, self._at)
        if now.xid <= self._at.xid:
            return
        events = feed.read(db, _union(listeners), self._at, PIECE, now)
        self._at = now if len(events) < PIECE else feed.position(events[-1])
        telling = Telling(events)
        for listener in listeners:
            listener.is_late |= listener.is_busy  # it gets no more before it has read that, and then by itself
            if not listener.is_late:
                listener.tell(telling)
                listener.at = self._at

    def _catch_up(self, db: Connection, listener: Listener, until: Position) -> None:
        if listener.at.era != until.era:
            listener.begin_anew(until)
        if not listener.is_late or listener.is_busy or listener.at > until:  # the others will come by there
            return
        events = feed.read(db, listener.scope, listener.at, PIECE, until)
        listener.tell(Telling(events))
        listener.is_late = len(events) == PIECE
        listener.at = feed.position(events[-1]) if listener.is_late else until

    def _flush(self) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            if reason := listener.flush():
                self._cut_off(listener, reason)

    def _cut_off(self, listener: Listener, reason: str) -> None:
        with self._lock:
            self._listeners.remove(listener)
            if not self._listeners:
                self._somebody.clear()
                self._at = None
        listener.close()
        STREAMS.dec()
        CUT_OFF.labels(reason).inc()


def is_asked_for() -> bool:
    """Whether this request would rather have a stream than a page."""
    best = request.accept_mimetypes.best_match(["application/json", EVENT_STREAM])
    return best == EVENT_STREAM and request.method == "GET"  # a HEAD has no body to come


def begin(scope: Scope, wanted: Wanted, at: Position) -> Response:
    """The beginning of a stream, whose connection the worker will hand over. Raises Unavailable where there are as many
    as this process takes."""
    if hub().is_full:
        raise Unavailable("this process has as many event streams as it takes; try again", retry_after=5)
    request.environ[HANDED_OVER] = Listener(g.caller, scope, wanted, at)
    more = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    start = b"retry: 1000\nid: %b\n\n" % at.cursor().encode()  # one that is cut before anything happens knows its place
    return Response(iter([start]), headers=more, content_type=EVENT_STREAM)  # of a list the length would be told


@cache
def hub() -> Hub:
    """The hub of this process, at work."""
    made = Hub(settings().streams)
    made.start()
    return made


def _union(listeners: Iterable[Listener]) -> Scope:
    """All that somebody of them follows."""
    projects: set[Any] = set()
    for listener in listeners:
        if listener.scope.project_ids is None:
            return Scope()
        projects.update(listener.scope.project_ids)
    return Scope(tuple(projects))
