"""What takes messages for a worker, where it does otherwise than Celery's."""

from collections.abc import Callable
from functools import partial
from typing import Any

from celery.worker.consumer import Consumer as CelerysConsumer

from workers.distrust import OUT_OF_SHAPE

RECONNECT_SECONDS = 5
"""Within which work goes on once Redis is back."""


class Consumer(CelerysConsumer):  # type: ignore[misc]
    """It rejects for good what it cannot make sense of, and looks for Redis often."""

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
