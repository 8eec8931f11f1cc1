"""What was asked of a project's agents, and waiting for it."""

import time

from orchestrator.sdk import fleet
from orchestrator.sdk.binding import Part, all_later, all_now, later, now, placed
from orchestrator.sdk.documents import LONGEST_WAIT
from orchestrator.sdk.errors import Timeout, from_command
from orchestrator.sdk.shapes import Command


class Commands(Part):
    """What was asked of a project's agents."""

    list = all_now(placed(fleet.list_commands))
    get = now(placed(fleet.get_command))
    cancel = now(placed(fleet.cancel))

    def wait(self, command: Command | str, *, timeout: float = 30.0, until: str = "applied") -> Command:
        """The command as soon as it is closed or, with `until="quiesced"`, its agent's process stands still.

        Raises the error it was refused with, Timeout after so many seconds.
        """
        deadline = time.monotonic() + timeout
        id_ = command if isinstance(command, str) else command.id
        while not _reached(found := self.get(id_, wait=_rest(deadline), until=until), until):
            if time.monotonic() >= deadline:
                raise Timeout(f"command {id_} is {found.state}, not {until}, after {timeout:g} s")
        return found


class AsyncCommands(Part):
    """What was asked of a project's agents."""

    list = all_later(placed(fleet.list_commands))
    get = later(placed(fleet.get_command))
    cancel = later(placed(fleet.cancel))

    async def wait(self, command: Command | str, *, timeout: float = 30.0, until: str = "applied") -> Command:
        """The command as soon as it is closed or, with `until="quiesced"`, its agent's process stands still.

        Raises the error it was refused with, Timeout after so many seconds.
        """
        deadline = time.monotonic() + timeout
        id_ = command if isinstance(command, str) else command.id
        while not _reached(found := await self.get(id_, wait=_rest(deadline), until=until), until):
            if time.monotonic() >= deadline:
                raise Timeout(f"command {id_} is {found.state}, not {until}, after {timeout:g} s")
        return found


def _rest(deadline: float) -> float:
    return max(0.0, min(deadline - time.monotonic(), LONGEST_WAIT))


def _reached(command: Command, until: str) -> bool:
    """Whether the stage has come; raises the error of a command that was not applied."""
    if command.state == "queued":
        return False
    if command.state != "applied":
        raise from_command(command.id, command.state, command.error)
    stops = command.verb in ("pause", "terminate")
    return until == "applied" or not stops or command.quiesced_at is not None
