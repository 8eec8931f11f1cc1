"""Being an agent: `run_agent` finds or spawns it, takes its lease, and hands out a Run to work with."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import platformdirs

from orchestrator.sdk import fleet, tenancy, world
from orchestrator.sdk.binding import pages
from orchestrator.sdk.commands import Commands
from orchestrator.sdk.connection import Connection
from orchestrator.sdk.documents import is_id
from orchestrator.sdk.errors import Conflict, Held, LeaseHeld, NotFound, OrchestratorError, Terminated
from orchestrator.sdk.outbox import Outbox
from orchestrator.sdk.pulse import STANDING_SECONDS, Place, Pulse
from orchestrator.sdk.shapes import Lease, Told
from orchestrator.sdk.usage import entry

BIRTH_SECONDS = 30.0
LONGEST_TASK = 2_000


_TASKS: ContextVar[int] = ContextVar("tasks", default=0)
"""How many tasks, one within the other, this thread or asyncio task is in the middle of."""


class Run:
    """A process acting as an agent. Several threads may work with one Run, if each does so inside `task`."""

    def __init__(self, name: str, place: Place, pulse: Pulse) -> None:
        self.id, self.name = place.agent_id, name
        self._place, self._pulse = place, pulse
        self._tasks = 0
        self._busy = 0
        """How many of those who work are in the middle of a task, and not at a checkpoint."""
        self._blocked = 0

    @property
    def told(self) -> Told | None:
        """What the process was told last."""
        return self._pulse.told

    def on_directive(self, listener: Callable[[Told], None]) -> None:
        """Have this called, from the beating thread, whenever the directive has changed."""
        self._pulse.listeners.append(listener)

    def checkpoint(self) -> None:
        """Where the agent may be stopped: blocks while it is paused, or while the lease is lost and not regained.

        Raises Terminated when it is to end, LeaseHeld when another process has become the agent.
        """
        pulse = self._pulse
        with pulse.changed:
            if not self._must_stop():
                return
            self._stand(1)
            try:
                while self._must_stop():
                    pulse.changed.wait()
            finally:
                self._stand(-1)

    async def acheckpoint(self) -> None:
        """The same with asyncio."""
        await asyncio.to_thread(self.checkpoint)

    @contextmanager
    def task(self, what: str | None = None) -> Iterator[None]:
        """Work on something: the agent is working, and then idle with one task more, if it ends well."""
        self.checkpoint()
        self._open(1)
        self._pulse.say(status="working", current_task=what and what[:LONGEST_TASK])
        try:
            yield
            self.usage(tasks_completed=1)
        finally:
            self._open(-1)
            if not self._tasks:
                self._pulse.say(status="idle", current_task=None)

    @asynccontextmanager
    async def atask(self, what: str | None = None) -> AsyncIterator[None]:
        """The same with asyncio."""
        await self.acheckpoint()
        with self.task(what):
            yield

    @contextmanager
    def waiting(self, what: str | None = None) -> Iterator[None]:
        """Wait for something in the middle of a task: the agent is waiting, and then working again. Where it is said
        what for, the agent shows it as its task."""
        self._pulse.say(status="waiting", **({"current_task": what[:LONGEST_TASK]} if what else {}))
        try:
            yield
        finally:
            self._pulse.say(status="working")
            self.checkpoint()

    def usage(self, **used: Any) -> None:
        """Report what was used: provider, model, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens,
        cost, tasks_completed, note, report_id. It is kept until the server has it, and counted once."""
        self._pulse.outbox.put(entry(**used))

    def flush(self) -> None:
        """Have what was used sent now, not with the next beat."""
        self._pulse.wake()

    def close(self) -> None:
        """Say what there is to say, and give the lease back."""
        self._pulse.stop()
        lease = self._pulse.lease
        if lease is not None:
            with suppress(OrchestratorError):  # it ends by itself, too
                self._place.connection.send(
                    tenancy.release(self._place.project_id, self.id, epoch=lease.epoch), token=lease.token
                )

    def _must_stop(self) -> bool:
        pulse = self._pulse
        if pulse.failure is not None:
            raise pulse.failure
        told = pulse.told
        if told is not None and told.directive == "terminate":
            raise Terminated(told.reason or "the agent was terminated")
        if pulse.lease is None or pulse.silent:
            return True
        finishing = told is not None and told.mode == "drain" and _TASKS.get() > 0
        return told is not None and told.directive == "pause" and not finishing

    def _open(self, by: int) -> None:
        with self._pulse.changed:
            outermost = max(_TASKS.get(), _TASKS.get() + by) == 1
            _TASKS.set(_TASKS.get() + by)
            self._tasks += by
            self._judge(by if outermost else 0)

    def _stand(self, by: int) -> None:
        self._blocked += by
        self._judge(-by if _TASKS.get() else 0)

    def _judge(self, busy: int) -> None:
        """Everybody stands still when somebody does and nobody is in the middle of a task."""
        self._busy += busy
        self._pulse.standing = self._blocked > 0 and self._busy == 0
        if self._pulse.standing:
            self._pulse.wake()


@contextmanager
def running(
    connection: Connection,
    project_id: str,
    name: str,
    *,
    kind: str | None,
    ttl: int,
    holder: str | None,
) -> Iterator[Run]:
    """Be the agent of this name; a Terminated that is raised inside ends the block quietly."""
    agent_id = _find_or_spawn(connection, project_id, name, kind)
    place = Place(connection, project_id, agent_id, holder or f"{socket.gethostname()}:{os.getpid()}", ttl)
    pulse = Pulse(place, _lease(place), Outbox(_outbox_file(agent_id)))
    run = Run(name, place, pulse)
    pulse.start()
    try:
        yield run
    except Terminated:
        pass
    finally:
        run.close()


def _find_or_spawn(connection: Connection, project_id: str, name: str, kind: str | None) -> str:
    """The id of the living agent of this name; of any that is named by its id."""
    if is_id(name):
        return name
    for agent in pages(connection, fleet.list_agents(project_id, q=name)):
        if agent.name == name and agent.status != "terminated":
            return agent.id
    if kind is None:
        raise OrchestratorError(f"there is no agent {name!r}; give its type to have it spawned")
    spawn = fleet.spawn(project_id, name, agent_type_id=_type_id(connection, kind), unique_name=True)
    try:
        command = connection.send(spawn)
    except Conflict as error:  # somebody else has just spawned it
        if "agent_id" not in error.problem:
            raise
        return str(error.problem["agent_id"])
    Commands(connection, project_id).wait(command, timeout=BIRTH_SECONDS)
    return command.agent_id


def _type_id(connection: Connection, name: str) -> str:
    for kind in pages(connection, world.list_types()):
        if name in (kind.slug, kind.id):
            return kind.id
    raise OrchestratorError(f"there is no agent type {name!r}")


def _lease(place: Place) -> Lease:
    """The lease, as soon as it can be had: a paused agent's when it is resumed, a lost process's when it is lost."""
    began = time.monotonic()
    while True:
        try:
            return place.lease()
        except Held:
            pass
        except Conflict as error:
            raise Terminated(str(error)) from None
        except (LeaseHeld, NotFound):
            if time.monotonic() - began > place.ttl * 4 / 3 + BIRTH_SECONDS:
                raise
        time.sleep(STANDING_SECONDS)


def _outbox_file(agent_id: str) -> Path:
    folder = os.environ.get("ORCH_OUTBOX") or Path(platformdirs.user_state_dir("orch")) / "outbox"
    return Path(folder) / f"{agent_id}.jsonl"
