"""Somebody who follows the project's feed of events from its beginning, page after page by its cursor."""

import time

from tests.chaos.client import Caller, Request
from tests.chaos.workload import World


class Follower:
    """Goes on until it is told to stop, whatever it is answered."""

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
