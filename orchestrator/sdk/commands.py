"""What was asked of a project's agents, and waiting for it."""

import asyncio
import time

from orchestrator.sdk import bulk, fleet
from orchestrator.sdk.binding import Part, all_later, all_now, later, now, placed
from orchestrator.sdk.bulk_shapes import BatchProgress
from orchestrator.sdk.calls import Call
from orchestrator.sdk.documents import LONGEST_WAIT
from orchestrator.sdk.errors import Timeout, from_command
from orchestrator.sdk.shapes import Agent, Command

LOOK_SECONDS = 0.5
"""Between two looks at a batch, whose commands the server counts for each, or at what the server does not hold."""


class Commands(Part):
    """What was asked of a project's agents."""

    list = all_now(placed(fleet.list_commands))
    get = now(placed(fleet.get_command))
    cancel = now(placed(fleet.cancel))
    send = now(placed(bulk.send_commands))
    send_matching = now(placed(bulk.send_matching))
    count_matching = now(placed(bulk.count_matching))
    batch = now(placed(bulk.get_batch))

    def wait(self, command: Command | str, *, timeout: float = 30.0, until: str = "applied") -> Command:
        """The command as soon as it is closed or, with `until="quiesced"`, its agent's process stands still, or goes on
        because the stop was lifted first: then `quiesced_at` is None.

        Raises the error it was refused with, Timeout after so many seconds.
        """
        deadline = time.monotonic() + timeout
        id_ = command if isinstance(command, str) else command.id
        while True:
            asked = time.monotonic()
            found = self.get(id_, wait=_rest(deadline), until=until)
            if _reached(found, until):
                return found
            if found.state == "applied" and _is_over(self._connection.send(_agent_of(found))):
                return self.get(id_)
            if time.monotonic() >= deadline:
                raise Timeout(f"command {id_} is {found.state}, not {until}, after {timeout:g} s")
            time.sleep(_breath(asked, deadline))

    def wait_batch(self, batch_id: str, *, timeout: float = 60.0) -> BatchProgress:
        """The batch as soon as all of its commands are closed, however each has ended.

        Raises Timeout after so many seconds.
        """
        deadline = time.monotonic() + timeout
        while not (found := self.batch(batch_id)).done:
            if time.monotonic() >= deadline:
                raise Timeout(_not_done(found, timeout))
            time.sleep(LOOK_SECONDS)
        return found


class AsyncCommands(Part):
    """What was asked of a project's agents."""

    list = all_later(placed(fleet.list_commands))
    get = later(placed(fleet.get_command))
    cancel = later(placed(fleet.cancel))
    send = later(placed(bulk.send_commands))
    send_matching = later(placed(bulk.send_matching))
    count_matching = later(placed(bulk.count_matching))
    batch = later(placed(bulk.get_batch))

    async def wait(self, command: Command | str, *, timeout: float = 30.0, until: str = "applied") -> Command:
        """The command as soon as it is closed or, with `until="quiesced"`, its agent's process stands still, or goes on
        because the stop was lifted first: then `quiesced_at` is None.

        Raises the error it was refused with, Timeout after so many seconds.
        """
        deadline = time.monotonic() + timeout
        id_ = command if isinstance(command, str) else command.id
        while True:
            asked = time.monotonic()
            found = await self.get(id_, wait=_rest(deadline), until=until)
            if _reached(found, until):
                return found
            if found.state == "applied" and _is_over(await self._connection.send(_agent_of(found))):
                return await self.get(id_)
            if time.monotonic() >= deadline:
                raise Timeout(f"command {id_} is {found.state}, not {until}, after {timeout:g} s")
            await asyncio.sleep(_breath(asked, deadline))

    async def wait_batch(self, batch_id: str, *, timeout: float = 60.0) -> BatchProgress:
        """The batch as soon as all of its commands are closed, however each has ended.

        Raises Timeout after so many seconds.
        """
        deadline = time.monotonic() + timeout
        while not (found := await self.batch(batch_id)).done:
            if time.monotonic() >= deadline:
                raise Timeout(_not_done(found, timeout))
            await asyncio.sleep(LOOK_SECONDS)
        return found


def _not_done(batch: BatchProgress, timeout: float) -> str:
    return f"{batch.states['queued']} of {batch.total} commands of batch {batch.id} are queued after {timeout:g} s"


def _rest(deadline: float) -> float:
    return max(0.0, min(deadline - time.monotonic(), LONGEST_WAIT))


def _reached(command: Command, until: str) -> bool:
    """Whether the stage is seen to have come; raises the error of a command that was not applied."""
    if command.state == "queued":
        return False
    if command.state != "applied":
        raise from_command(command.id, command.state, command.error)
    may_stop = command.verb in ("pause", "terminate", "update")
    return until == "applied" or not may_stop or command.quiesced_at is not None


def _agent_of(command: Command) -> Call[Agent]:
    return fleet.get_agent(command.project_id, command.agent_id)


def _is_over(agent: Agent) -> bool:
    """Whether no stop is under way: it has ended, or was lifted, or there was none. Only the agent shows that."""
    return agent.quiesced_at is not None or agent.status not in ("paused", "terminated")


def _breath(asked: float, deadline: float) -> float:
    """Seconds before the next look: none after an answer that the server has held."""
    now = time.monotonic()
    return 0 if now - asked >= LOOK_SECONDS else max(0.0, min(LOOK_SECONDS, deadline - now))
