"""Prometheus metrics: requests by route, and the queue as the database sees it. Never an agent's id as a label."""

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flask import Flask, Response, g, request
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Row

from orchestrator import logs, queries
from orchestrator.db import autocommit
from orchestrator.errors import Unavailable
from orchestrator.verify import Finding
from web.glance import glance

log = logs.logger("web")

SECONDS = Histogram(
    "orchestrator_http_seconds",
    "Time to answer, waiting for commands included.",
    ["endpoint"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
ANSWERS = Counter("orchestrator_http_answers_total", "Answers, by endpoint and status.", ["endpoint", "status"])
VIOLATIONS = Gauge(
    "orchestrator_invariant_violations",
    "Rows that violated each invariant when it was last verified.",
    ["invariant"],
    multiprocess_mode="mostrecent",
)
VERIFIED = Gauge(
    "orchestrator_verified_timestamp_seconds", "When the invariants were last verified.", multiprocess_mode="mostrecent"
)


class Queue(Collector):
    """What waits and how old it is, and how long the commands of the last minute took."""

    def collect(self) -> list[GaugeMetricFamily]:
        """The gauges; none while the database is away."""
        seen = _look()
        if seen is None:
            return []
        queue, latency = seen
        took = GaugeMetricFamily(
            "orchestrator_command_seconds",
            "Accepted to closed, commands closed in the last minute, by the database's clock.",
            labels=["quantile"],
        )
        for quantile in ("p50", "p95", "p99"):
            took.add_metric([quantile], getattr(latency, quantile))
        return [
            GaugeMetricFamily("orchestrator_queue_depth", "Queued commands, counted up to 10,000.", queue.depth),
            GaugeMetricFamily("orchestrator_queue_age_seconds", "Age of the oldest queued command.", queue.age),
            took,
        ]


class Together(multiprocess.MultiProcessCollector):
    """What the processes that share PROMETHEUS_MULTIPROC_DIR have measured."""

    def collect(self) -> Iterable[Metric]:
        """Their sums. The files of a process that starts are empty for a moment; one that ends takes some away."""
        files = [str(file) for file in Path(self._path).glob("*.db") if _begun(file)]
        return self.merge(files)  # type: ignore[no-untyped-call, no-any-return]


def _begun(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:
        return False


@glance
def _look() -> tuple[Row[Any], Row[Any]] | None:
    try:
        with autocommit() as db:
            return queries.queue(db), queries.latency(db)
    except Unavailable as error:
        log.warning("queue_not_measured", **logs.cause(error))
        return None


def install(app: Flask) -> None:
    """Measure every request of the app."""
    app.before_request(_begin)
    app.after_request(_count)


def note_verdict(found: Iterable[Finding]) -> None:
    """Keep what a check of the invariants found: it reads all there is, far too much for a scrape."""
    for each in found:
        VIOLATIONS.labels(each.name).set(each.violations)
    VERIFIED.set_to_current_time()


def exposition() -> bytes:
    """The metrics as text, summed over the processes that share PROMETHEUS_MULTIPROC_DIR."""
    registry = CollectorRegistry()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        Together(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry) + generate_latest(_QUEUE)
    return generate_latest(REGISTRY) + generate_latest(_QUEUE)


_QUEUE = CollectorRegistry()
_QUEUE.register(Queue())


def _begin() -> None:
    g.began = time.perf_counter()


def _count(response: Response) -> Response:
    endpoint = request.endpoint or "none"
    SECONDS.labels(endpoint).observe(time.perf_counter() - g.get("began", time.perf_counter()))
    ANSWERS.labels(endpoint, response.status_code).inc()
    return response
