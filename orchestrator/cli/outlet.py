"""Where a command's words go: standard output, standard error, or nowhere, as whoever called it has arranged."""

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from orchestrator.cli.failures import Failure


def open_to_all() -> None:
    """Let standard output show every character: what it has no code for is written out, and never an error after the
    work is done."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        sys.stdout.reconfigure(errors="backslashreplace")


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person is there; None is a stream that was closed before we started."""
    return stream is not None and stream.isatty()


def is_unicode() -> bool:
    """Whether standard output has a code for every character."""
    return sys.stdout is None or codecs.lookup(sys.stdout.encoding).name.startswith("utf")


@contextmanager
def printing(went_through: bool = False) -> Iterator[None]:
    """What is printed inside the block has left us at its end; raises Failure where it cannot be written, which says
    whether something was done by then. A reader that has gone is told nothing: he has enough."""
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        discard()
        why = f"cannot be written to standard output ({error.strerror})"
        if went_through:
            raise Failure(f"the command went through, so do not repeat it, but its answer {why}.") from None
        raise Failure(f"the answer {why}; write it to where there is room.") from None


def discard() -> None:
    """Let what is still to be written go nowhere: Python would try once more at its end, and say so in its words."""
    if sys.stdout is not None:
        with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def say(line: str) -> None:
    """A line for people, on standard error, if that can be written."""
    if sys.stderr is not None:  # where it is None, print would take standard output
        with suppress(OSError):
            print(line, file=sys.stderr, flush=True)
