"""What a process waits for, in several places at once: the agent is waiting as long as any of them is."""

from orchestrator.sdk.crew import Crew
from orchestrator.sdk.pulse import Pulse

LONGEST_TASK = 2_000


def as_task(what: str | None) -> str | None:
    """As the server takes it: not too long, and what is no character, such as half of one, written out."""
    return what and what.encode(errors="backslashreplace").decode().replace("\0", r"\0")[:LONGEST_TASK]


class Waits:
    """Those that are open. The agent shows the last of them, and afterwards what it is at without them."""

    def __init__(self, pulse: Pulse, crew: Crew) -> None:
        self._pulse, self._crew = pulse, crew
        self._open: dict[object, str | None] = {}
        self._before: str | None = None

    def begin(self, wait: object, what: str | None) -> None:
        """Wait for something more; for what is worked on, where it has no name of its own."""
        with self._pulse.changed:
            if not self._open:
                self._before = self._pulse.task
                if not self._crew.works:
                    self._pulse.say(status="working")  # the lifecycle has no other way from idle to waiting
            self._open[wait] = self._before if what is None else as_task(what)
            self._pulse.say(status="waiting", current_task=self._open[wait])

    def end(self, wait: object) -> None:
        """It is over."""
        with self._pulse.changed:
            shown = self._pulse.task in self._open.values()  # and no task that was begun meanwhile
            del self._open[wait]
            if self._open:
                self._pulse.say(status="waiting", current_task=next(reversed(self._open.values())))
            elif not self._crew.works:
                self._pulse.say(status="idle", current_task=None)
            else:
                self._pulse.say(status="working", current_task=self._before if shown else self._pulse.task)
