"""The ticks of beat: no more of them wait than workers that come back can see to."""

from typing import Any

from celery.beat import PersistentScheduler, ScheduleEntry

from orchestrator.link import link

MOST_WAITING = 20
"""Messages in a tick's queue beside which it is not sent. An expiry would be for two hosts' clocks to agree on: where
the worker's is ahead of beat's, every tick would have expired on its arrival."""


class Ticks(PersistentScheduler):  # type: ignore[misc]
    """Celery's, but for ticks that would wait behind many others."""

    def apply_async(self, entry: ScheduleEntry, *given: Any, **named: Any) -> Any:
        """Send it, or let it pass; None where it has passed."""
        queue = entry.options["queue"]
        if link().attempt(lambda client: client.llen(queue), otherwise=0) >= MOST_WAITING:
            return None
        return super().apply_async(entry, *given, **named)
