"""Those who follow the project's events from the beginning: page after page by a cursor, and by a stream that is opened
again, with its last id, whenever it is cut."""

import time
from contextlib import suppress
from http.client import HTTPException

from tests.chaos.client import Caller, Request
from tests.chaos.workload import World
from tests.sse import Stream


class Follower:
    """Asks for pages until it is told to stop, whatever it is answered."""

    def __init__(self, caller: Caller, world: World) -> None:
        self._caller, self._world = caller, world
        self._cursor = ""
        self.stopping = False
        self.seen: list[tuple[str, int]] = []
        """Agent and version of each event, as they came."""

    def work(self) -> None:
        """One page after the other."""
        while not self.stopping:
            if not self._page():
                time.sleep(0.05)

    def catch_up(self) -> None:
        """To the end of what there is."""
        while self._page():
            pass

    def _page(self) -> bool:
        after = f"&after={self._cursor}" if self._cursor else ""
        answered = self._caller.ask(Request("", "GET", f"{self._world.path}/events?limit=100{after}"))
        if answered is None or answered[0] != 200 or not answered[1]["data"]:
            return False
        events = answered[1]["data"]
        self.seen += [(event["agent_id"], event["version"]) for event in events]
        self._cursor = events[-1]["cursor"]
        return True


class Listener:
    """Keeps a stream open until it is told to stop, and the next one when it is cut."""

    def __init__(self, server: str, key: str, path: str) -> None:
        self._server, self._key, self._path = server, key, path
        self._last_id = ""
        self._before: list[tuple[str, int]] = []
        self._stream: Stream | None = None
        self.stopping = False

    @property
    def seen(self) -> list[tuple[str, int]]:
        """Agent and version of each event, as they came."""
        return self._before + (self._stream.events if self._stream else [])

    def open(self) -> None:
        """The first stream: nothing may have happened yet."""
        self._listen()

    def work(self) -> None:
        """One stream after the other."""
        while not self.stopping:
            self._listen()
            time.sleep(0.05)

    def catch_up(self, count: int, seconds: float) -> None:
        """Until so many events have come, or for so long."""
        deadline = time.monotonic() + seconds
        while len(self.seen) < count and time.monotonic() < deadline:
            self._listen()
            time.sleep(0.05)

    def close(self) -> None:
        """Hang up."""
        if self._stream is not None:
            self._stream.close()
            self._before, self._last_id, self._stream = self.seen, self._stream.last_id or self._last_id, None

    def _listen(self) -> None:
        if self._stream is None or not self._stream.is_open:
            self.close()
            last = {"Last_Event_ID": self._last_id} if self._last_id else {}
            with suppress(OSError, HTTPException, AssertionError):  # nobody there, or not able to serve
                self._stream = Stream(self._server, self._key, self._path, **last)
