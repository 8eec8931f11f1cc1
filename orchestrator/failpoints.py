"""Named points at which a test makes a process die, stand still, wait or fail: to see that nothing is lost by it.

Out of reach but where ORCH_TESTING says that this is a test and ORCH_FAILPOINTS names a folder: with the second alone
no program starts. A file in the folder arms the point it is named after (see `Fault`), until it is removed.
"""

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from orchestrator.settings import settings


class Point(StrEnum):
    """Where a process can be when it fails."""

    ACCEPTED = "accepted"
    """A door has committed, and has not rung."""
    FLAGGED = "flagged"
    """The bell's flag is up, and its message not sent."""
    GRANTED = "granted"
    """A lease is granted and committed, and nobody has looked whether a stop was accepted meanwhile."""
    SWEPT = "swept"
    """What had become due is sent, and nobody has rung for it."""
    CLAIMED = "claimed"
    """A batch has locked its agents."""
    DECIDED = "decided"
    """It knows what becomes of them, and has written nothing."""
    WRITTEN = "written"
    """It has written everything, and not committed."""
    COMMITTED = "committed"
    """It is committed, and nobody has been told."""
    DRAINED = "drained"
    """A drain is over, and its message not acknowledged."""


class Failed(RuntimeError):
    """What a point raises that is armed to."""


class Fault(BaseModel):
    """What a file in the folder says, as JSON."""

    do: Literal["kill", "freeze", "delay", "raise"]
    """SIGKILL, SIGSTOP, a sleep, or `Failed`."""
    seconds: float = 0.0
    """How long the delay is."""
    once: bool = False
    """Whether the first process that comes by is the only one; its number is then added to the file's name."""
    only: frozenset[UUID] | None = None
    """Where one of these commands or agents is concerned, and nowhere else."""


def reach(point: Point, ids: Iterable[UUID] = ()) -> None:
    """Do what is armed at this point. `ids` are the commands, or the agents, that it is about."""
    folder = settings().failpoints
    if folder is not None:
        _reach(folder / point, ids)


def _reach(file: Path, ids: Iterable[UUID]) -> None:
    with suppress(FileNotFoundError):  # not armed, or another was here first
        fault = Fault.model_validate_json(file.read_text())
        if fault.only is not None and fault.only.isdisjoint(ids):
            return
        if fault.once:
            file.rename(file.with_suffix(f".{os.getpid()}"))
        _act(fault)


def _act(fault: Fault) -> None:
    if fault.do == "raise":
        raise Failed
    if fault.do == "delay":
        time.sleep(fault.seconds)
    else:
        os.kill(os.getpid(), signal.SIGKILL if fault.do == "kill" else signal.SIGSTOP)
