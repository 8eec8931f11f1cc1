"""Usage on its way without a beat: while there is no lease, and where its own process is no more."""

import logging
import random
from pathlib import Path

from orchestrator.sdk.documents import is_id
from orchestrator.sdk.errors import Invalid, OrchestratorError
from orchestrator.sdk.outbox import Outbox
from orchestrator.sdk.place import Place

log = logging.getLogger("orchestrator.sdk")

ENTRIES = 1_000
"""Usage that goes with one beat or report, at most."""

PATIENCE = 10.0
"""Seconds an answer may take at the start."""

FILES = 100
"""Of other agents, looked at by one start: each is a request."""


def deliver(place: Place, outbox: Outbox, patience: float) -> None:
    """Send what goes with one report, one by one where it is refused together: what is refused alone is given up.

    Raises OrchestratorError, Invalid among them: the project knows no such agent.
    """
    if entries := outbox.first(ENTRIES):
        _send(place, outbox, entries, patience)


def _send(place: Place, outbox: Outbox, entries: list[dict[str, object]], patience: float) -> None:
    try:
        place.report(entries, patience)
    except Invalid as error:
        if all((field or "").endswith(".agent_id") for field in error.fields):
            raise
        if len(entries) > 1:
            for entry in entries:
                _send(place, outbox, [entry], patience)
            return
        if "occurred_at" in entries[0] and any((field or "").endswith(".occurred_at") for field in error.fields):
            timeless = {name: value for name, value in entries[0].items() if name != "occurred_at"}
            _send(place, outbox, [timeless], patience)  # this host's clock is wrong: it was spent all the same
            return
        log.warning("usage %s is refused and given up: %s", entries[0]["report_id"], error)
    outbox.forget(entries)


def deliver_left(place: Place, outbox: Outbox, folder: Path) -> None:
    """Send what earlier processes have left, of this agent and of others of the project: a terminated agent may have no
    process any more. What cannot be sent now is kept."""
    try:
        while outbox:
            deliver(place, outbox, PATIENCE)
        strangers = [path for path in folder.glob("*.jsonl") if is_id(_agent(path)) and _agent(path) != place.agent_id]
        for path in random.sample(strangers, min(len(strangers), FILES)):
            _deliver_file(place, path)
    except (OrchestratorError, OSError) as error:
        log.warning("usage that was left is not sent now: %s", error)


def _deliver_file(place: Place, path: Path) -> None:
    """Of another agent, if its process is no more; kept where it belongs to another project, or to another server."""
    if (outbox := Outbox.left(path)) is None:
        return
    with outbox:
        try:
            while outbox:
                deliver(place.of(_agent(path)), outbox, PATIENCE)
        except Invalid:
            log.debug("%s is another project's", path)


def _agent(path: Path) -> str:
    return path.name.split(".")[0]
