"""A disk so small that it can be filled: for a server of a test's own, and seen by no other process of this machine."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CLONE_NEWNS = 0x20000

LIBC = ctypes.CDLL(None, use_errno=True)


class NoDisk(Exception):
    """This machine lets nobody mount one."""


class SmallDisk:
    """A file system of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Until nothing fits any more, not a byte."""
        with suppress(OSError), self._ballast.open("ab", buffering=0) as ballast:
            while True:
                ballast.write(bytes(2**16))

    def free(self) -> None:
        """Give back what was filled."""
        self._ballast.unlink()

    @property
    def is_full(self) -> bool:
        """Whether nothing fits."""
        return os.statvfs(self.folder).f_bfree == 0


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """One at this folder, for the length of the block, for this thread and for the processes that it starts meanwhile.
    However they end, it ends with them. Raises NoDisk."""
    before = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY)
    here = Path.cwd()
    try:
        _must(LIBC.unshare(CLONE_NEWNS))
        try:
            _mount("--make-rprivate", "/")
            _mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder))
            yield SmallDisk(folder)
        finally:
            _must(LIBC.setns(before, CLONE_NEWNS))
            os.chdir(here)  # it was another's root for a moment
    finally:
        os.close(before)


def _mount(*words: str) -> None:
    try:
        subprocess.run(["mount", *words], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoDisk(getattr(error, "stderr", error)) from None


def _must(failed: int) -> None:
    if failed:
        raise NoDisk(os.strerror(ctypes.get_errno()))
