"""Usage that is not counted yet: kept in a file, so that neither an absent server nor a killed process loses it."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

log = logging.getLogger("orchestrator.sdk")

MOST = 50_000
"""Entries kept while the server is away; what comes on top is dropped, and said so."""


class Outbox:
    """The entries of one agent, oldest first, each with its `report_id`: sent twice, it is counted once."""

    def __init__(self, file: Path, most: int = MOST) -> None:
        self._file, self._most = file, most
        self._lock = Lock()
        file.parent.mkdir(parents=True, exist_ok=True)
        self._entries = _read(file)
        self.dropped = 0
        self._write()  # a line that broke off must not run into the next one

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, entry: dict[str, Any]) -> None:
        """Keep an entry; it is in the file before this returns."""
        with self._lock:
            if len(self._entries) >= self._most:
                self.dropped += 1
                log.error("usage dropped: %d entries wait already in %s", self._most, self._file)
                return
            self._entries.append(entry)
            with self._file.open("a") as file:
                file.write(json.dumps(entry) + "\n")

    def first(self, most: int) -> list[dict[str, Any]]:
        """The oldest entries."""
        with self._lock:
            return self._entries[:most]

    def forget(self, sent: Sequence[dict[str, Any]]) -> None:
        """These have been taken by the server, or never will be."""
        if not sent:
            return
        gone = {entry["report_id"] for entry in sent}
        with self._lock:
            self._entries = [entry for entry in self._entries if entry["report_id"] not in gone]
            self._write()

    def _write(self) -> None:
        """The whole file, in one piece; none at all where there is nothing to keep."""
        if not self._entries:
            self._file.unlink(missing_ok=True)
            return
        half = self._file.with_suffix(".new")
        half.write_text("".join(json.dumps(entry) + "\n" for entry in self._entries))
        half.replace(self._file)


def _read(file: Path) -> list[dict[str, Any]]:
    """What an earlier process left; a line that broke off is nobody's entry."""
    try:
        lines = file.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    found = [_entry(line) for line in lines]
    if None in found:
        log.warning("a broken line in %s is left out", file)
    return [entry for entry in found if entry is not None]


def _entry(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "report_id" in entry else None
