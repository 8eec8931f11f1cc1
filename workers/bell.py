"""The doorbell: one coalesced Celery message that says "there is mail". Losing it costs milliseconds."""

import time
from threading import Event, Thread
from typing import Any

from kombu.exceptions import OperationalError
from prometheus_client import Counter

from orchestrator import failpoints, logs
from orchestrator.failpoints import Point
from orchestrator.link import link
from workers.app import app

FLAG = "orch:bell"
FLAG_MILLISECONDS = 2_000
"""How long a bell that was lost between flag and message keeps others from ringing; the sweep does not look at it."""

SWEPT_SECONDS = 2

log = logs.logger("bell")

RINGS = Counter("orchestrator_bell_rings_total", "Doorbells, by what became of them.", ["outcome"])


def ring() -> None:
    """Tell the workers that there is mail; returns at once and never raises."""
    failpoints.reach(Point.ACCEPTED)
    _Ringer.of_this_process().wake()
    time.sleep(0)  # gives way: the ringer would have to wait until this thread waits for something


def ring_now() -> None:
    """The same, from this thread: publishes unless an unanswered bell is already out."""
    raised = link().attempt(_raise_flag, otherwise=None)
    if raised is None:
        RINGS.labels("failed").inc()
    elif not raised:
        RINGS.labels("coalesced").inc()
    else:
        _publish_or_lower_flag()


def publish(**options: Any) -> None:
    """One drain message, without a look at the flag; raises kombu's OperationalError when Redis is away."""
    app.send_task("orchestrator.drain", retry=False, **options)


def answer() -> None:
    """The worker's side: clear the flag first, then look; mail that comes after the look rings again."""
    link().attempt(_lower_flag, otherwise=0)


def _raise_flag(client: Any) -> bool:
    return bool(client.set(FLAG, 1, nx=True, px=FLAG_MILLISECONDS))


def _publish_or_lower_flag() -> None:
    failpoints.reach(Point.FLAGGED)
    try:
        publish()
    except (OperationalError, OSError):
        RINGS.labels("failed").inc()
        link().attempt(_lower_flag, otherwise=0)  # before the rest, in which nothing is tried
        link().rest()
    else:
        RINGS.labels("rung").inc()


def _lower_flag(client: Any) -> int:
    return int(client.delete(FLAG))


class _Ringer(Thread):
    """One thread per process rings, so that no request waits for Redis; rings in quick succession become one."""

    _instance: "_Ringer | None" = None

    @classmethod
    def of_this_process(cls) -> "_Ringer":
        if cls._instance is None or not cls._instance.is_alive():  # not alive: we are a fork of the process it was in
            cls._instance = cls()
            cls._instance.start()
        return cls._instance

    def __init__(self) -> None:
        super().__init__(name="bell", daemon=True)
        self._wanted = Event()

    def wake(self) -> None:
        self._wanted.set()

    def run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            ring_now()
