"""How gunicorn serves the app, whoever starts it: `gunicorn -c python:web.serve "web:create_app()"`."""

import gc
import os
import resource
from typing import Any

from prometheus_client import multiprocess

import orchestrator.loading  # noqa: F401  # before all that is large
import web  # noqa: F401  # before the fork: once for all processes, and one that died is back at once
from orchestrator.settings import address, settings

bind = address(settings().host, settings().port)
worker_class = "web.worker.Worker"
logger_class = "web.server_log.ServerLog"
workers = settings().web_processes
threads = settings().web_threads
limit_request_line = 8190  # as long as gunicorn allows: filters of lists are in it
graceful_timeout = 5
keepalive = 75  # longer than clients keep idle connections: or a request meets the end of the one it is sent through
control_socket_disable = True
loglevel = "warning"

# Each stream is a connection more than gunicorn counts; a process that cannot accept one ends.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
_enough = 2_000 + settings().streams
resource.setrlimit(resource.RLIMIT_NOFILE, (max(_soft, _enough if _hard < 0 else min(_enough, _hard)), _hard))

# What is loaded stays: to look for garbage in all of it, later or now, takes a tenth of a second.
gc.freeze()


def child_exit(server: Any, worker: Any) -> None:
    """A process that is gone has no requests that wait: its gauges go as well."""
    del server
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
