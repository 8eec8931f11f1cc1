"""Usage that is not counted yet: kept in a file, so that neither an absent server nor a killed process loses it."""

import json
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from itertools import accumulate, count, takewhile
from pathlib import Path
from threading import Lock
from typing import Any, Self

from orchestrator.sdk.errors import Forked
from orchestrator.sdk.forks import Kept
from orchestrator.sdk.sheet import Sheet

log = logging.getLogger("orchestrator.sdk")

BYTES = 500_000
"""Of entries that are sent together, as JSON, more or less: the server takes a megabyte with a beat."""

MOST = 50_000
"""Entries kept while the server is away; what comes on top is dropped, and said so."""


class Outbox(AbstractContextManager["Outbox"]):
    """The entries of one agent, oldest first, each with its `report_id`: sent twice, it is counted once.

    Where another process owns the file, as while it waits for that one's lease, it has a file of its own beside it.
    Only opening it raises OSError: an entry that cannot be written is kept in memory, and sent from there.
    """

    _lock = Kept[Lock]()

    def __init__(self, sheet: Sheet, file: Path, most: int = MOST) -> None:
        self._file, self._most = file, most
        self._lock = Lock()
        self._sheet: Sheet | None = sheet
        self._is_closed = False
        self._entries = _read(sheet)
        self.dropped = 0
        self._behind = True  # a line that broke off must not run into the next one
        """Whether the file lacks something, or has a broken line."""

    @classmethod
    def open(cls, file: Path, most: int = MOST) -> Self:
        """An agent's, with all that its processes left that are no more."""
        file.parent.mkdir(parents=True, exist_ok=True)
        outbox = cls(_own(file), file, most)
        outbox.adopt()
        return outbox

    @classmethod
    def left(cls, file: Path) -> Self | None:
        """What is in this file alone; None where another process owns it."""
        sheet = Sheet.own(file)
        return cls(sheet, file) if sheet else None

    def __len__(self) -> int:
        return len(self._entries)

    def __exit__(self, *_: object) -> None:
        with suppress(Forked):  # the file is the parent's
            self.close()

    def put(self, entry: dict[str, Any]) -> None:
        """Keep an entry; it is in the file before this returns, if it can be written."""
        with self._lock:
            if len(self._entries) >= self._most:
                self.dropped += 1
                log.error("usage dropped: %d entries wait already in %s", self._most, self._file)
                return
            self._entries.append(entry)
            self._write(entry)
            if self._is_closed:  # somebody had more to say
                self._shut()

    def first(self, most: int) -> list[dict[str, Any]]:
        """The oldest entries: so many, if they are not too large to be sent together; one, where there is any."""
        with self._lock:
            oldest = self._entries[:most]
        sizes = accumulate(len(json.dumps(entry)) for entry in oldest)
        fitting = sum(1 for size in takewhile(lambda size: size <= BYTES, sizes))
        return oldest[: max(1, fitting)]

    def forget(self, sent: Sequence[dict[str, Any]]) -> None:
        """These have been taken by the server, or never will be."""
        if not sent:
            return
        gone = {entry["report_id"] for entry in sent}
        with self._lock:
            self._entries = [entry for entry in self._entries if entry["report_id"] not in gone]
            self._write()

    def adopt(self) -> None:
        """Take over what other processes of this agent have left that are no more."""
        try:
            for path in sorted(self._file.parent.glob(f"{self._file.stem}*{self._file.suffix}")):
                if left := Sheet.own(path):
                    self._take(left)
        except OSError:
            log.exception("usage that was left beside %s is not sent", self._file)

    def close(self) -> None:
        """Leave the file to whoever comes next, if there is something in it."""
        with self._lock:
            self._is_closed = True
            self._shut()

    def _shut(self) -> None:
        (sheet, self._sheet), (entries, self._entries) = (self._sheet, None), (self._entries, [])
        try:
            if sheet is not None:
                sheet.close(remove=not entries)
        except OSError:
            log.exception("%s is not removed", self._file)

    def _take(self, left: Sheet) -> None:
        with self._lock:
            found = _read(left)
            takes = len(self._entries) + len(found) <= self._most
            if takes:
                self._entries = found + self._entries
                self._write()
            left.close(remove=takes and not self._behind)

    def _write(self, new: dict[str, Any] | None = None) -> None:
        """What there is, all of it in one piece where it is not just one entry more."""
        try:
            if self._sheet is None:
                self._sheet = _own(self._file)
                self._entries = _read(self._sheet) + self._entries
            if new is not None and not self._behind:
                self._behind = True
                self._sheet.add(json.dumps(new))
            else:
                self._behind = True
                self._sheet.replace(json.dumps(entry) for entry in self._entries)
            self._behind = False
        except OSError:
            log.exception("usage is kept in memory alone: %s cannot be written", self._file)


def _own(file: Path) -> Sheet:
    """The first of these names that nobody else owns."""
    paths = (file.with_suffix(f".{number}{file.suffix}") if number else file for number in count())
    return next(sheet for path in paths if (sheet := Sheet.own(path)))


def _read(sheet: Sheet) -> list[dict[str, Any]]:
    """What an earlier process left; a line that broke off is nobody's entry."""
    found = [_entry(line) for line in sheet.lines()]
    if None in found:
        log.warning("a broken line in %s is left out", sheet.path)
    return [entry for entry in found if entry is not None]


def _entry(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("report_id"), str) else None
