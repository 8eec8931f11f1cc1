"""Prometheus metrics: requests by route, and the queue as the database sees it. Never an agent's id as a label."""

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Row

from orchestrator import inspection, logs, queries
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
    "orchestrator_verify_violations",
    "Rows that violated each invariant when all of it was last verified.",
    ["invariant"],
    multiprocess_mode="mostrecent",
)
VERIFIED = Gauge(
    "orchestrator_verified_timestamp_seconds", "When the invariants were last verified.", multiprocess_mode="mostrecent"
)


class Seen(NamedTuple):
    """What the database knows."""

    queue: Row[Any]
    latency: Row[Any]
    inspected: Sequence[Row[Any]]


class Database(Collector):
    """What waits and how old it is, how long the commands of the last minute took, and what inspections have found."""

    def collect(self) -> list[Metric]:
        """None while the database is away."""
        seen = _look()
        return [] if seen is None else [*_of_the_queue(seen), *_of_inspections(seen.inspected)]


def _of_the_queue(seen: Seen) -> list[Metric]:
    took = GaugeMetricFamily(
        "orchestrator_command_seconds",
        "Accepted to closed, commands closed in the last minute, by the database's clock.",
        labels=["quantile"],
    )
    for quantile in ("p50", "p95", "p99"):
        took.add_metric([quantile], getattr(seen.latency, quantile))
    return [
        GaugeMetricFamily("orchestrator_queue_depth", "Queued commands, counted up to 10,000.", seen.queue.depth),
        GaugeMetricFamily("orchestrator_queue_age_seconds", "Age of the oldest queued command.", seen.queue.age),
        took,
    ]


def _of_inspections(inspected: Sequence[Row[Any]]) -> list[Metric]:
    if not inspected:
        return []
    violations = CounterMetricFamily(
        "orchestrator_invariant_violations",
        "Rows found to violate each invariant, added up over all inspections of what changed last.",
        labels=["invariant"],
    )
    for row in inspected:
        violations.add_metric([row.invariant], row.violations)
    last = max(row.at for row in inspected)
    return [
        violations,
        GaugeMetricFamily("orchestrator_inspected_timestamp_seconds", "When the last inspection ended.", last),
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
def _look() -> Seen | None:
    try:
        with autocommit() as db:
            return Seen(queries.queue(db), queries.latency(db), inspection.totals(db))
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
        return generate_latest(registry) + generate_latest(_DATABASE)
    return generate_latest(REGISTRY) + generate_latest(_DATABASE)


_DATABASE = CollectorRegistry()
_DATABASE.register(Database())


def _begin() -> None:
    g.began = time.perf_counter()


def _count(response: Response) -> Response:
    endpoint = request.endpoint or "none"
    SECONDS.labels(endpoint).observe(time.perf_counter() - g.get("began", time.perf_counter()))
    ANSWERS.labels(endpoint, response.status_code).inc()
    return response
