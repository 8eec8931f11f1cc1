"""Being an agent: `run_agent` finds or spawns it, takes its lease, and hands out a Run to work with."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import Any, ParamSpec, TypeVar
from uuid import uuid4

from orchestrator.sdk import arrival
from orchestrator.sdk.connection import Connection
from orchestrator.sdk.crew import Crew, Task, carried
from orchestrator.sdk.delivery import deliver_left
from orchestrator.sdk.ending import ended_by_sigterm
from orchestrator.sdk.errors import Forked, OrchestratorError, Terminated
from orchestrator.sdk.forks import Kept
from orchestrator.sdk.outbox import Outbox
from orchestrator.sdk.place import Place
from orchestrator.sdk.pulse import Pulse
from orchestrator.sdk.shapes import Told
from orchestrator.sdk.usage import Cost, entry
from orchestrator.sdk.waits import Waits, as_task

P = ParamSpec("P")
T = TypeVar("T")

RELEASE_SECONDS = 5.0


class Run:
    """A process acting as an agent. Several threads, or asyncio tasks, may work with one Run, if each does so inside a
    `task` of its own: the process stands still when all of them do. To forks of the process everything raises Forked,
    but to leave the blocks they find themselves in."""

    _pulse, _crew, _open = Kept[Pulse](), Kept[Crew](), Kept[Waits]()

    def __init__(self, name: str, place: Place, pulse: Pulse) -> None:
        self.id, self.name = place.agent_id, name
        self._place, self._pulse, self._crew = place, pulse, Crew(pulse)
        self._open = Waits(pulse, self._crew)

    @property
    def told(self) -> Told | None:
        """What the process was told last."""
        return self._pulse.told

    def on_directive(self, listener: Callable[[Told], None]) -> Callable[[], None]:
        """Have this called, from the beating thread, whenever the directive or its mode has changed, and when the lease
        is lost (an immediate pause). What is returned ends it."""
        self._pulse.listeners.append(listener)
        return partial(self._pulse.listeners.remove, listener)

    def checkpoint(self) -> None:
        """Where the agent may be stopped: blocks while it is paused, or while the lease is lost and not regained.

        Raises Terminated when it is to end, LeaseHeld when another process has become the agent.
        """
        self._crew.go_on()

    async def acheckpoint(self) -> None:
        """The same with asyncio."""
        await self._crew.ago_on()

    @contextmanager
    def task(self, what: str | None = None) -> Iterator[None]:
        """Work on something: the agent is working, and then idle with one task more, if it ends well.

        Of several that work on it together, as with `asyncio.gather`, each must open a task of its own inside it.
        """
        task = Task(as_task(what))
        self._crew.go_on(lambda: self._crew.begin(task))
        with self._at(task):
            yield

    @asynccontextmanager
    async def atask(self, what: str | None = None) -> AsyncIterator[None]:
        """The same with asyncio."""
        task = Task(as_task(what))
        await self._crew.ago_on(lambda: self._crew.begin(task))
        with self._at(task):
            yield

    def carry(self, work: Callable[P, T]) -> Callable[P, T]:
        """The same for another thread, such as one of a pool: what it does there is part of the task that is open here.
        asyncio carries its tasks' by itself, and so does `asyncio.to_thread`."""
        return carried(work)

    @contextmanager
    def waiting(self, what: str | None = None) -> Iterator[None]:
        """Wait for something: the agent is waiting, and then working again, or idle where no task is open."""
        with self._waits(what):
            yield
        with suppress(Forked):
            self.checkpoint()

    @asynccontextmanager
    async def awaiting(self, what: str | None = None) -> AsyncIterator[None]:
        """The same with asyncio."""
        with self._waits(what):
            yield
        with suppress(Forked):
            await self.acheckpoint()

    def usage(
        self,
        *,
        provider: str | None = None,
        model: str | None = None,
        input_tokens: int = 0,
        output_tokens: int = 0,
        cache_read_tokens: int = 0,
        cache_write_tokens: int = 0,
        cost: Cost = None,
        tasks_completed: int = 0,
        note: str | None = None,
        report_id: str | None = None,
    ) -> None:
        """Report what was used; `cost` in USD. It is kept until the server has it, and counted once.

        Raises TypeError and ValueError for what no server would take.
        """
        used = entry(
            provider=provider,
            model=model,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cache_read_tokens=cache_read_tokens,
            cache_write_tokens=cache_write_tokens,
            cost=cost,
            tasks_completed=tasks_completed,
            note=note,
            report_id=report_id,
        )
        self._pulse.outbox.put(used)

    def flush(self) -> None:
        """Have what was used sent now, not with the next beat."""
        self._pulse.wake()

    def close(self) -> None:
        """Say what there is to say, and give the lease back."""
        with suppress(OrchestratorError):  # it ends by itself, too; and in a fork it is the parent's
            self._pulse.stop()
            if self._pulse.lease is not None:
                self._place.release(self._pulse.lease, RELEASE_SECONDS)

    @contextmanager
    def _at(self, task: Task) -> Iterator[None]:
        self._pulse.say(status="working", current_task=task.what)
        try:
            yield
            with suppress(Forked):  # it is the parent's task
                self.usage(tasks_completed=1)
        finally:
            with suppress(Forked):
                self._end(task)

    def _end(self, task: Task) -> None:
        with self._pulse.changed:
            self._crew.end(task)
            if not self._crew.works:
                self._pulse.say(status="idle", current_task=None)
            elif self._pulse.task == task.what:  # and neither a later task nor what is waited for
                self._pulse.say(current_task=self._crew.task)

    @contextmanager
    def _waits(self, what: str | None) -> Iterator[None]:
        wait = object()
        self._open.begin(wait, what)
        try:
            yield
        finally:
            with suppress(Forked):
                self._open.end(wait)


@dataclass
class Role:
    """Which agent to be, where, and how."""

    project_id: str
    name: str
    kind: str | None
    ttl: int
    holder: str | None
    over: Event = field(default_factory=Event)
    """Set when nobody waits for the lease any more."""


def _holder() -> str:
    """Of this run alone: host and process id are the same in many containers, and for all runs of a process."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:12]}"


@contextmanager
def running(connection: Connection, role: Role) -> Iterator[Run]:
    """Be the agent of this name; a Terminated that is raised inside ends the block quietly."""
    agent_id = arrival.find_or_spawn(connection, role.project_id, role.name, role.kind)
    place = Place(connection, role.project_id, agent_id, role.holder or _holder(), role.ttl)
    file = arrival.outbox_file(agent_id)
    with ended_by_sigterm(), Outbox.open(file) as outbox:  # before the lease, or trouble here would leave one behind
        deliver_left(place, outbox, file.parent)
        lease = arrival.lease(place, role.over)
        outbox.adopt()  # whoever had the lease until now may have died of it
        pulse = Pulse(place, lease, outbox)
        run = Run(role.name, place, pulse)
        pulse.start()
        try:
            yield run
        except Terminated:
            pass
        finally:
            run.close()


class RunningLater(AbstractAsyncContextManager[Run]):
    """The same with asyncio: a thread of its own enters and leaves."""

    def __init__(self, connection: Connection, role: Role) -> None:
        self._role, self._block = role, running(connection, role)
        self._thread = ThreadPoolExecutor(1, f"run-{role.name}")

    async def __aenter__(self) -> Run:
        entering = self._start(self._block.__enter__)
        try:
            return await asyncio.shield(entering)
        except asyncio.CancelledError:
            self._role.over.set()
            await asyncio.wait([entering])
            if entering.exception() is None:
                await self.__aexit__(None, None, None)
            raise

    async def __aexit__(self, *ended: Any) -> bool | None:
        try:
            return await self._start(self._block.__exit__, *ended)
        finally:
            self._thread.shutdown(wait=False)

    def _start(self, step: Callable[..., T], *given: Any) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, step, *given)
