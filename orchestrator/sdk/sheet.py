"""A file of lines that one process at a time owns: its lock ends with the process, however that ends."""

import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Self


class Sheet:
    """The lines. Written without a buffer: what could not be written is not written later, either."""

    def __init__(self, path: Path, number: int) -> None:
        self.path, self._number = path, number

    @classmethod
    def own(cls, path: Path) -> Self | None:
        """The file of this name, made where there is none; None where somebody else owns it. Raises OSError."""
        while True:
            number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            if not _lock(number):
                os.close(number)
                return None
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(number), path.stat()):
                    return cls(path, number)
            os.close(number)  # its owner has just replaced or removed it

    def lines(self) -> list[str]:
        """All of them; what is no text is no line of ours, and looks broken."""
        return self.path.read_text(errors="replace").splitlines()

    def add(self, line: str) -> None:
        """One more, at the end; raises OSError, and then part of it may be there."""
        _write(self._number, line + "\n")

    def replace(self, lines: Iterable[str]) -> None:
        """These instead, in one piece; raises OSError."""
        half = self.path.with_suffix(".new")
        half.unlink(missing_ok=True)
        number = os.open(half, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            _lock(number)
            _write(number, "".join(line + "\n" for line in lines))
            half.replace(self.path)
        except OSError:
            os.close(number)
            raise
        os.close(self._number)
        self._number = number

    def close(self, *, remove: bool) -> None:
        """Own it no more, or have it be no more; raises OSError."""
        try:
            if remove:
                self.path.unlink(missing_ok=True)
        finally:
            os.close(self._number)


def _lock(number: int) -> bool:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(number: int, text: str) -> None:
    left = text.encode()
    while left:
        left = left[os.write(number, left) :]
