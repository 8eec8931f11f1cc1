"""The Celery app, its log context, and what a process does at its birth."""

import gc
import socket
import sys
import zlib
from os import getpid
from typing import Any

import structlog
from celery import Celery, signals
from kombu import Queue

import orchestrator.loading  # noqa: F401  # before all that is large
from orchestrator import logs, pulse
from orchestrator.db import Guard, engine, forget_connections
from orchestrator.settings import settings
from workers import distrust

SLOTS = 32
"""Rows per project in project_counters; two processes that share one wait for each other, nothing worse."""

GARBAGE_AFTER = 50_000
"""Objects made before the garbage collector looks: some ten batches."""

distrust.install()
app = Celery("orchestrator", config_source="celeryconfig", include=["workers.tasks", "workers.sweeper"])


def slot() -> int:
    """This process's row in each project's counters."""
    return zlib.crc32(f"{socket.gethostname()}:{getpid()}".encode()) % SLOTS


@signals.setup_logging.connect
def _configure_logs(**_: Any) -> None:
    programs = {"worker", "beat", "flower"}  # all of them Celery's, started through the same command line
    logs.configure(next((word for word in sys.argv if word in programs), "celery"))


@signals.celeryd_init.connect
def _check_settings(**_: Any) -> None:
    """Here a worker without a database ends with a sentence; in its children it would be a traceback."""
    engine(Guard.DRAIN)


@signals.worker_process_init.connect
def _after_fork(**_: Any) -> None:
    forget_connections()
    # A batch makes thousands of objects, none of them in a circle: not to be looked through while it is at work, nor
    # what is loaded and stays.
    gc.freeze()
    gc.set_threshold(GARBAGE_AFTER)


@signals.worker_init.connect
def _take_canaries(**_: Any) -> None:
    folder = settings().pulse
    if folder is not None:  # not declared: a binding in Redis would outlive the worker
        app.amqp.queues.select_add(Queue(pulse.own_queue(folder), no_declare=True))


@signals.task_prerun.connect
def _bind(task_id: str, task: Any, **_: Any) -> None:
    structlog.contextvars.bind_contextvars(task_id=task_id, task=task.name)


@signals.task_postrun.connect
def _unbind(**_: Any) -> None:
    structlog.contextvars.unbind_contextvars("task_id", "task")
