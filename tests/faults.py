"""What the tests make go wrong on purpose, in processes of their own."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from orchestrator.failpoints import Fault, Point

Do = Literal["kill", "freeze", "delay", "raise"]


class Failpoints:
    """The points that are armed for the processes which are started with `environment`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    @property
    def environment(self) -> dict[str, str]:
        """What lets a process fail at our points."""
        return {"ORCH_TESTING": "1", "ORCH_FAILPOINTS": str(self._folder)}

    def arm(
        self,
        point: Point,
        do: Do,
        only: Iterable[str] | None = None,
        **more: Any,
    ) -> None:
        """Have whoever comes by fail, or only who is about one of these commands or agents."""
        these = None if only is None else frozenset(map(UUID, only))
        draft = self._folder / f".{point}"
        draft.write_text(Fault(do=do, only=these, **more).model_dump_json())
        draft.rename(self._folder / point)

    def disarm(self, point: Point) -> bool:
        """Let everybody pass again; whether it was armed still."""
        try:
            (self._folder / point).unlink()
        except FileNotFoundError:
            return False
        return True

    def met(self, point: Point) -> int | None:
        """The number of the process that came by and was to fail once, told once; None where nobody did."""
        for file in self._folder.glob(f"{point}.*"):
            file.unlink()
            return int(file.suffix[1:])
        return None

    def armed(self, point: Point) -> bool:
        """Whether nobody came by who was to fail once."""
        return (self._folder / point).exists()
