"""Those who work in one process, as threads or as asyncio tasks: who may go on, and whether all stand still."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from threading import current_thread
from typing import ParamSpec, TypeVar

from orchestrator.sdk.errors import OrchestratorError, Terminated
from orchestrator.sdk.pulse import Pulse

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Task:
    """One piece of work, and what it is called."""

    what: str | None


_TASKS: ContextVar[tuple[Task, ...]] = ContextVar("tasks", default=())
"""The tasks, one within the other, that this thread or asyncio task is in the middle of."""


def carried(work: Callable[P, T]) -> Callable[P, T]:
    """The same for another thread: there, too, it is in the middle of what we are in the middle of.

    A thread does not say who started it. To guess would be to take one thread's word for another that works on.
    """
    tasks = _TASKS.get()

    @wraps(work)
    def there(*args: P.args, **kwargs: P.kwargs) -> T:
        before = _TASKS.set(tasks)
        try:
            return work(*args, **kwargs)
        finally:
            _TASKS.reset(before)

    return there


def nothing() -> None:
    """What is begun at a checkpoint: nothing new."""


class Crew:
    """All stand still when somebody does, and somebody does in every task that is open. Guarded by `pulse.changed`."""

    def __init__(self, pulse: Pulse) -> None:
        self._pulse = pulse
        self._open: dict[Task, int] = {}
        """The open tasks, and how many stand still in each, or in a task within it."""
        self._standing = 0

    @property
    def works(self) -> bool:
        """Whether any task is open."""
        return bool(self._open)

    @property
    def task(self) -> str | None:
        """What is worked on: of the tasks that are open, the one that was begun last."""
        return next((task.what for task in reversed(self._open)), None)

    def go_on(self, begin: Callable[[], None] = nothing) -> None:
        """Stand still for as long as one must; then begin, before anything can forbid it."""
        with self._pulse.changed:
            since = self._pulse.ask()
            while not self._pulse.knows(since):
                self._pulse.changed.wait()
            with self._still() if self._must_stop() else nullcontext():
                while self._must_stop():
                    self._pulse.changed.wait()
            begin()

    async def ago_on(self, begin: Callable[[], None] = nothing) -> None:
        """The same with asyncio: its waiting costs no thread."""
        with self._pulse.changed:
            since = self._pulse.ask()
            while not self._pulse.knows(since):
                await self._pulse.changed.later()
            with self._still() if self._must_stop() else nullcontext():
                while self._must_stop():
                    await self._pulse.changed.later()
            begin()

    def begin(self, task: Task) -> None:
        """Open a task."""
        with self._pulse.changed:
            _TASKS.set((*_TASKS.get(), task))
            self._open[task] = 0
            self._judge()

    def end(self, task: Task) -> None:
        """Close it."""
        with self._pulse.changed:
            _TASKS.set(tuple(each for each in _TASKS.get() if each is not task))
            del self._open[task]
            self._judge()

    def _must_stop(self) -> bool:
        pulse = self._pulse
        if pulse.failure is not None:
            raise pulse.failure
        told = pulse.told
        finishing = told is not None and told.mode == "drain" and bool(self._mine())
        if told is not None and told.directive == "terminate" and not finishing:
            raise Terminated(told.reason or "the agent was terminated")
        if pulse.lease is None or pulse.silent:
            return True
        return told is not None and told.directive == "pause" and not finishing

    def _mine(self) -> list[Task]:
        """The open tasks of whoever asks; those of other runs in this process are not ours."""
        return [task for task in _TASKS.get() if task in self._open]

    @contextmanager
    def _still(self) -> Iterator[None]:
        if current_thread() is self._pulse:
            raise OrchestratorError("a listener must not wait at a checkpoint: it is called from the thread that beats")
        mine = self._mine()
        self._stand(mine, 1)
        try:
            yield
        finally:
            self._stand(mine, -1)

    def _stand(self, mine: list[Task], by: int) -> None:
        with self._pulse.changed:
            self._standing += by
            for task in mine:
                if task in self._open:  # it may have been closed over our heads
                    self._open[task] += by
            self._judge()

    def _judge(self) -> None:
        before, self._pulse.standing = self._pulse.standing, self._standing > 0 and all(self._open.values())
        if self._pulse.standing and not before:
            self._pulse.wake()
