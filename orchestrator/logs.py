"""Structured logs: one JSON object a line, with the ids bound for the request or task. Never secrets or e-mails."""

import logging
import sys
from typing import Any

import structlog

from orchestrator.settings import settings

_SHARED: list[structlog.types.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure(process: str) -> None:
    """Send every log line of this process, ours and the libraries', to standard error as JSON, with its name."""

    def name(_: Any, __: str, line: structlog.types.EventDict) -> structlog.types.EventDict:
        line["process"] = process
        return line

    shared = [*_SHARED, name]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
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


def cause(error: BaseException) -> dict[str, Any]:
    """The class of what lies at the bottom of an error, and its SQLSTATE; never its text, which may quote a row."""
    while error.__cause__ is not None:
        error = error.__cause__
    return {"cause": type(error).__name__, "sqlstate": getattr(error, "sqlstate", None)}


def logger(room: str) -> structlog.stdlib.BoundLogger:
    """The logger of a room, below `orchestrator`."""
    made: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(f"orchestrator.{room}")
    return made
