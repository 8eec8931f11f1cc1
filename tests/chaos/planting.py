"""How a bug is planted into the processes of a campaign: to see that the checks would find it in the product.

The product knows nothing of it. A bug changes modules right after they have been imported, in a process whose
environment names the bug; what it needs is imported then, since this is loaded before everything else.
"""

import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import Any

RARELY = 0.02

Change = Callable[[Any], None]
"""What is done to a module."""


@dataclass(frozen=True)
class Bug:
    """What a bug changes, by module, and which check is to find it."""

    changes: Mapping[str, Change]
    found_by: str
    faults: tuple[str, ...] = ()
    """Without these it does not show."""


class Planter(MetaPathFinder):
    """Changes the modules of a bug when they have been imported."""

    def __init__(self, bug: Bug) -> None:
        self._left = dict(bug.changes)

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        """Whatever the others find, with a loader that changes the module afterwards."""
        change = self._left.pop(name, None)
        if change is None:
            return None
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = Changing(spec.loader, change)
        return spec


class Changing(Loader):
    """Loads a module as its own loader does, and then changes it."""

    def __init__(self, loader: Any, change: Change) -> None:
        self._loader, self._change = loader, change

    def create_module(self, spec: ModuleSpec) -> Any:
        """As its own loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        """Its own code, and then ours."""
        self._loader.exec_module(module)
        self._change(module)


def plant(bug: Bug) -> None:
    """From now on, in this process."""
    sys.meta_path.insert(0, Planter(bug))


def rarely() -> bool:
    """Once in fifty times."""
    return random.random() < RARELY  # noqa: S311


def wrapped(name: str, around: Callable[..., Any]) -> Change:
    """A change that puts something around a function: it is called with the function, and then what it is given."""

    def change(module: Any) -> None:
        original = getattr(module, name)
        setattr(module, name, lambda *given, **named: around(original, *given, **named))

    return change


def rewritten(name: str, *pairs: tuple[str, str]) -> Change:
    """A change of a statement's text."""

    def change(module: Any) -> None:
        from sqlalchemy import text  # noqa: PLC0415

        sql = str(getattr(module, name))
        for old, new in pairs:
            if old not in sql:
                raise LookupError(f"{name} has no {old!r}")
            sql = sql.replace(old, new)
        setattr(module, name, text(sql))

    return change


def all_of(*changes: Change) -> Change:
    """Several changes of one module."""

    def change(module: Any) -> None:
        for each in changes:
            each(module)

    return change
