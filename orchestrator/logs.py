"""Structured logs: one JSON object a line, with the ids bound for the request or task. Never secrets or e-mails."""

import logging
import sys
import traceback
from types import TracebackType
from typing import Any

import psycopg
import structlog
from sqlalchemy.exc import StatementError

from orchestrator.settings import settings

_SHARED: list[structlog.types.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]

_NAMING = ("23", "42")
"""Classes of SQLSTATE whose first sentence names tables, columns and constraints; that of others may quote a value."""


def configure(process: str) -> None:
    """Send every log line of this process, ours and the libraries', to standard error as JSON, with its name."""
    structlog.configure(
        processors=[*_shared(process), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("orchestrator").setLevel(settings().log_level.upper())


def formatter(process: str) -> logging.Formatter:
    """What makes a JSON object of a line, with the name of the process it is from."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared(process),
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.ExceptionRenderer(_trace),
            structlog.processors.JSONRenderer(),
        ],
    )


def _shared(process: str) -> list[structlog.types.Processor]:
    def name(_: Any, __: str, line: structlog.types.EventDict) -> structlog.types.EventDict:
        line["process"] = process
        return line

    return [*_SHARED, name]


def cause(error: BaseException) -> dict[str, Any]:
    """The class of what lies at the bottom of an error, and its SQLSTATE; never its text, which may quote a row."""
    while error.__cause__ is not None:
        error = error.__cause__
    return {"cause": type(error).__name__, "sqlstate": getattr(error, "sqlstate", None)}


def _trace(exc_info: tuple[type[BaseException], BaseException, TracebackType | None]) -> str:
    """Where an error and those that led to it were raised, the first one first, each with what may be told of it."""
    chain: list[BaseException] = []
    error: BaseException | None = exc_info[1]
    while error is not None and error not in chain:
        chain.insert(0, error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(
        "".join(traceback.format_tb(error.__traceback__)) + f"{type(error).__name__}: {_words(error)}"
        for error in chain
    )


def _words(error: BaseException) -> str:
    """An error's text; of the database's only what quotes no row."""
    if isinstance(error, StatementError):
        return error.statement or ""
    if isinstance(error, psycopg.Error) and error.sqlstate:
        return (error.diag.message_primary or "") if error.sqlstate.startswith(_NAMING) else error.sqlstate
    return str(error)


def logger(room: str) -> structlog.stdlib.BoundLogger:
    """The logger of a room, below `orchestrator`."""
    made: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(f"orchestrator.{room}")
    return made
