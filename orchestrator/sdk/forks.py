"""Forks: threads and locks do not come along into them, so what needs these stays with the process that has made it."""

import os
from typing import Any, Generic, TypeVar

from orchestrator.sdk.errors import Forked

T = TypeVar("T")


class Kept(Generic[T]):
    """An attribute for the process alone that has set it; a fork of that one which asks for it gets Forked."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __set__(self, instance: Any, value: T) -> None:
        vars(instance)[self._name] = os.getpid(), value

    def __get__(self, instance: Any, owner: type | None = None) -> T:
        if instance is None:
            raise AttributeError(self._name)  # what inspects the class goes on without it
        process, value = vars(instance)[self._name]
        if process != os.getpid():
            raise Forked(f"this run is that of process {process}, which has begun it; forks begin runs of their own")
        return value  # type: ignore[no-any-return]
