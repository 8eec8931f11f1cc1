"""Event streams: everybody who follows the feed over HTTP, served by one thread of this process.

A request that asks for `text/event-stream` gives its thread back at once; `web.worker` hands its connection over to the
hub, which reads the feed once for all of them. So hundreds of listeners cost the API a few statements every 0.2 s.
"""

import socket
import time
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from operator import attrgetter
from threading import Event, Lock, Thread
from typing import Any

from flask import Response, g, request
from prometheus_client import Counter, Gauge
from sqlalchemy import Connection

from orchestrator import access, feed, logs
from orchestrator.db import autocommit
from orchestrator.errors import Unavailable
from orchestrator.feed import Position, Scope, Wanted
from orchestrator.keys import Caller
from orchestrator.settings import settings
from web.listener import Listener, Telling

EVENT_STREAM = "text/event-stream"
HANDED_OVER = "orchestrator.listener"
"""Where a request's environ has the listener to whom its connection is to be given."""

LOOK_SECONDS, CHECK_SECONDS, REST_SECONDS = 0.2, 1.0, 1.0
"""How often the feed is read, and it is asked whether listeners may still listen; how long a database that is away is
left alone."""

PIECE = 500
"""Events at a time: so much may be kept for a listener that does not read."""

BUDGET_SECONDS = 0.1
"""Of a round, for those who are where the others are, and as much for those who are late."""

log = logs.logger("streams")

STREAMS = Gauge("orchestrator_event_streams", "Event streams that are open.", multiprocess_mode="livesum")
ENDED = Counter("orchestrator_event_streams_ended_total", "Event streams that ended, by reason.", ["reason"])


class Hub:
    """All listeners of this process. Most are where the hub is, and are told together what comes after. Those who are
    behind, because they came with an id or read slowly, are told what they miss until they are there as well; those who
    are ahead, because they came after the hub's last event, wait for it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        self._listeners: list[Listener] = []
        self._somebody = Event()
        self._at: Position | None = None
        self._nothing_after: Position | None = None
        self._checked = 0.0

    def start(self) -> None:
        """Begin to read, in a thread that ends with the process."""
        Thread(target=self._run, name="streams", daemon=True).start()

    def is_full(self, caller: Caller) -> bool:
        """Whether it takes nobody any more, or nobody of this user's, who has half of all places."""
        with self._lock:
            mine = sum(listener.caller.user_id == caller.user_id for listener in self._listeners)
            return len(self._listeners) >= self._most or mine >= max(1, self._most // 2)

    def add(self, listener: Listener, sock: socket.socket) -> None:
        """Serve one more, through this socket."""
        listener.connect(sock)
        with self._lock:
            self._listeners.append(listener)
            self._somebody.set()
        STREAMS.inc()

    def _run(self) -> None:
        while True:
            self._somebody.wait()
            began = time.monotonic()
            for work in (self.look, self.keep):
                try:
                    work()
                except Unavailable as error:
                    log.warning("look_failed", **logs.cause(error))
                    time.sleep(REST_SECONDS)
                except Exception:  # whatever else it is: were this thread to end, every stream here would stand still
                    log.exception("streams_failed")
                    time.sleep(REST_SECONDS)
            time.sleep(max(LOOK_SECONDS / 4, LOOK_SECONDS - (time.monotonic() - began)))

    def look(self) -> None:
        """One round: tell everybody what has happened. Raises Unavailable."""
        with self._lock:
            listeners = list(self._listeners)
        with autocommit() as db:
            listeners = self._check(db, listeners)
            if not listeners:
                return
            stand = feed.stand(db)
            now = stand.now
            if self._at is None or not stand.knows(self._at):
                self._at, self._nothing_after = now, None
            for listener in listeners:
                if not stand.knows(listener.at):
                    listener.begin_anew(now)
            ready = [listener for listener in listeners if not listener.is_busy]
            self._tell_together(db, [listener for listener in ready if listener.at >= self._at], now)
            self._tell_late(db, [listener for listener in ready if listener.at < self._at])

    def keep(self) -> None:
        """Keep up what is said when nothing happens, and let go who has gone."""
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener.beat()
            if reason := listener.flush():
                self._let_go(listener, reason)

    def _check(self, db: Connection, listeners: list[Listener]) -> list[Listener]:
        """Those who would be let in again; others are cut off: their key, user or project has changed."""
        if time.monotonic() - self._checked < CHECK_SECONDS:
            return listeners
        good = access.still(db, [(listener.caller, listener.project_id) for listener in listeners])
        for number, listener in enumerate(listeners):
            if number not in good:
                self._let_go(listener, "refused")
        self._checked = time.monotonic()
        return [listener for number, listener in enumerate(listeners) if number in good]

    def _tell_together(self, db: Connection, listeners: list[Listener], now: Position) -> None:
        """What comes after the hub's place, piece by piece. Who is not told, for whatever reason, is behind then."""
        assert self._at is not None  # noqa: S101
        ends, is_whole = time.monotonic() + BUDGET_SECONDS, now == self._nothing_after
        while not is_whole:
            events, is_whole = feed.read(db, _union(listeners), self._at, PIECE, now)
            begin, self._at = self._at, feed.position(events[-1]) if events else self._at
            telling = Telling(events)
            for listener in listeners:
                if listener.at == begin and not listener.is_busy:
                    listener.tell(telling, self._at)
            if time.monotonic() > ends:
                break
        self._nothing_after = now if is_whole else None

    def _tell_late(self, db: Connection, listeners: list[Listener]) -> None:
        """What they have missed: those first who have waited longest."""
        assert self._at is not None  # noqa: S101
        ends = time.monotonic() + BUDGET_SECONDS
        places: dict[Position, list[Listener]] = defaultdict(list)
        for listener in sorted(listeners, key=attrgetter("served")):
            places[listener.at].append(listener)
        for at, group in places.items():
            for listener in group:
                listener.served = time.monotonic()
            events, is_whole = feed.read(db, _union(group), at, PIECE, self._at, feed.EACH)
            telling, end = Telling(events), self._at if is_whole else feed.position(events[-1])
            for listener in group:
                listener.tell(telling, end)
            self._nothing_after = None  # for those who are with the others now, nobody has looked yet
            if time.monotonic() > ends:
                break

    def _let_go(self, listener: Listener, reason: str) -> None:
        with self._lock:
            self._listeners.remove(listener)
            if not self._listeners:
                self._somebody.clear()
                self._at = None  # whoever comes next need not wait until all that happens meanwhile is read
        listener.close()
        STREAMS.dec()
        ENDED.labels(reason).inc()


def is_asked_for() -> bool:
    """Whether this request would rather have a stream than a page."""
    best = request.accept_mimetypes.best_match(["application/json", EVENT_STREAM])
    return best == EVENT_STREAM and request.method == "GET"  # a HEAD has no body to come


def begin(scope: Scope, wanted: Wanted, at: Position) -> Response:
    """The beginning of a stream, whose connection the worker will hand over. Raises Unavailable where there are as many
    as this process takes."""
    if hub().is_full(g.caller):
        raise Unavailable("there are as many event streams, or of yours, as this process takes", retry_after=5)
    if request.method == "GET":  # after a HEAD no body may come: it would be read as the next request's answer
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
