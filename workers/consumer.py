"""What takes messages for a worker, where it does otherwise than Celery's."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from celery.worker.consumer import Consumer as CelerysConsumer

from workers import squatters
from workers.distrust import OUT_OF_SHAPE

RECONNECT_SECONDS = 5
"""Within which work goes on once Redis is back."""


class Consumer(CelerysConsumer):  # type: ignore[misc]
    """It rejects for good what it cannot make sense of, keeps nobody's place in the pool for it, and looks for Redis
    often."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        at = self.controller  # which offers no other way in
        at._process_task = placed(at._process_task, at._quick_release)  # noqa: SLF001

    def create_task_handler(self, *given: Any, **named: Any) -> Callable[[Any], Any]:
        """Celery's handler, and what becomes of a message that it stumbles over."""
        handle = super().create_task_handler(*given, **named)

        def handle_or_reject(message: Any) -> Any:
            try:
                return handle(message)
            except OUT_OF_SHAPE as error:
                return self.on_invalid_task(None, message, error)

        return handle_or_reject

    def ensure_connected(self, conn: Any) -> Any:
        """Celery's, which waits two seconds longer after each try that fails, up to 30."""
        conn.ensure_connection = partial(conn.ensure_connection, interval_max=RECONNECT_SECONDS)
        return super().ensure_connected(conn)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Celery's, which begins anew; a key of the wrong kind would fail again, for ever."""
        super().on_connection_error_after_connected(exc)
        if "WRONGTYPE" in str(exc):
            squatters.set_aside()


def placed(process: Callable[[Any], None], release: Callable[[], None]) -> Callable[[Any], None]:
    """`process`, which hands a task to the pool, where a place was taken for it; where it fails the place is released,
    or nobody would have it until the next connection."""

    def process_or_release(request: Any) -> None:
        with ExitStack() as failed:
            failed.callback(release)
            process(request)
            failed.pop_all()

    return process_or_release
