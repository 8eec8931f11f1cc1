"""Requests that wait for their command: woken by the workers' word, or by a look at the rows once a second."""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import Event, Lock, Thread
from typing import Any
from uuid import UUID

import redis
from prometheus_client import Gauge

from orchestrator import logs, queries
from orchestrator.db import autocommit
from orchestrator.errors import Unavailable
from orchestrator.link import CANCELLED_CHANNEL, CLOSED_CHANNEL, PATIENCE_SECONDS, REST_SECONDS, link
from orchestrator.settings import settings

LOOK_SECONDS = 1.0

FIRST_LOOK_SECONDS = 0.05
"""When a request looks by itself: the word may have come before it listened. Not at once: that would hold up the bell,
which rings from another thread of this process at this very moment."""

log = logs.logger("waiters")

WAITING = Gauge("orchestrator_waiting_requests", "Requests that wait for a command.", multiprocess_mode="livesum")


class Waiters:
    """The waiting requests of this process, by the id (of a command or an agent) whose word they wait for."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        self._waiting: dict[str, set[Event]] = defaultdict(set)
        self._ending = False
        self.heard = Event()
        """Set once a worker was heard: somebody drains."""

    def start(self) -> None:
        """Begin to listen, in a thread that ends with the process."""
        Thread(target=self._listen, name="waiters", daemon=True).start()

    def wait(self, id_: UUID, seconds: float, done: Callable[[], bool]) -> bool:
        """Wait until `done()`, which is asked soon for the first time, after each word about `id_`, and at the end;
        whether it came true in time. What cannot be asked, because the database is away, is not true yet.

        With as many waiting as this process allows, the answer is False at once; and where it is about to end, soon.
        """
        deadline = time.monotonic() + seconds
        with self._place(str(id_)) as word:
            if word is None:
                return False
            word.wait(min(seconds, FIRST_LOOK_SECONDS))
            while True:
                word.clear()  # before the look: a word that comes during it is about something newer
                if _ask(done):
                    return True
                if self._ending:
                    return False
                if not word.wait(deadline - time.monotonic()):
                    return _ask(done)

    def end(self) -> None:
        """Let nobody wait for long any more: the process is told to end, and who waited would be cut off unanswered."""
        self._ending = True
        with self._lock:
            words = [word for words in self._waiting.values() for word in words]
        for word in words:
            word.set()

    @contextmanager
    def _place(self, id_: str) -> Iterator[Event | None]:
        word = Event()
        with self._lock:
            full = sum(map(len, self._waiting.values())) >= self._most
            if not full:
                self._waiting[id_].add(word)
        if full:
            yield None
            return
        WAITING.inc()
        try:
            yield word
        finally:
            WAITING.dec()
            self._leave(id_, word)

    def _leave(self, id_: str, word: Event) -> None:
        with self._lock:
            self._waiting[id_].discard(word)
            if not self._waiting[id_]:
                del self._waiting[id_]

    def _wake(self, ids: Iterable[str]) -> None:
        with self._lock:
            for id_ in ids:
                for word in self._waiting.get(id_, ()):
                    word.set()

    def _listen(self) -> None:
        while True:
            try:
                self._hear(link().client.pubsub(ignore_subscribe_messages=True))
            except (redis.RedisError, OSError):
                self._look()
                time.sleep(REST_SECONDS)
            except Exception:  # whatever else it is: were this thread to end, every request here would wait in vain
                log.exception("listening_failed")
                time.sleep(REST_SECONDS)

    def _hear(self, channel: Any) -> None:
        channel.subscribe(CLOSED_CHANNEL, CANCELLED_CHANNEL)
        looked = time.monotonic()
        while True:
            message = channel.get_message(timeout=PATIENCE_SECONDS)
            if message is not None:
                if message["channel"] == CLOSED_CHANNEL.encode():
                    self.heard.set()
                self._wake(_ids(message["data"]))
            if time.monotonic() - looked > LOOK_SECONDS:
                self._look()
                looked = time.monotonic()

    def _look(self) -> None:
        """Redis may have lost a word: ask the database once for all who wait for a command. Who waits for usage, under
        an agent's id, is woken to look for himself."""
        with self._lock:
            ids = list(self._waiting)
        if not ids:
            return
        try:
            with autocommit() as db:
                due = queries.not_queued(db, map(UUID, ids))
        except Unavailable as error:
            log.warning("look_failed", **logs.cause(error))
            return
        self._wake(map(str, due))


def _ask(done: Callable[[], bool]) -> bool:
    try:
        return done()
    except Unavailable as error:
        log.warning("look_failed", **logs.cause(error))
        return False


def _ids(data: bytes) -> list[str]:
    """The ids in a worker's message; none in one that is garbage, which must not end the listening."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(id_, str) for id_ in found):
        log.warning("garbage_heard")
        return []
    return found


@cache
def waiters() -> Waiters:
    """The waiters of this process, listening."""
    made = Waiters(settings().waiters)
    made.start()
    return made
