"""The sweep's clock: a timer in each worker's main process, so that a fleet without beat heals itself too."""

from typing import Any

from celery import bootsteps

from workers.app import app
from workers.tasks import ring_for_overdue

PERIOD_SECONDS = 1.0


class Sweeper(bootsteps.StartStopStep):  # type: ignore[misc]
    """Looks once a second whether anything has been queued for more than a second."""

    requires = ("celery.worker.components:Timer",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._tick: Any = None

    def start(self, worker: Any) -> None:
        """Begin to tick, in the worker's event loop."""
        self._tick = worker.timer.call_repeatedly(PERIOD_SECONDS, ring_for_overdue)

    def stop(self, worker: Any) -> None:
        """Stop ticking."""
        del worker
        if self._tick is not None:
            self._tick.cancel()


app.steps["worker"].add(Sweeper)
