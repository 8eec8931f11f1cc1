"""Structured logs: one JSON object a line, with the ids bound for the request or task. Never secrets or e-mails."""

import logging
import sys

import structlog

from orchestrator.settings import settings

_SHARED: list[structlog.types.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure(process: str) -> None:
    """Send every log line of this process, ours and the libraries', to standard error as JSON."""
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("orchestrator").setLevel(settings().log_level.upper())
    structlog.contextvars.bind_contextvars(process=process)


def logger(room: str) -> structlog.stdlib.BoundLogger:
    """The logger of a room, below `orchestrator`."""
    made: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(f"orchestrator.{room}")
    return made
