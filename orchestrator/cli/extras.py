"""What is installed only where the server runs: those who only call it need none of it."""

from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.cli.failures import Failure


@contextmanager
def needed(what: str, *extras: str) -> Iterator[None]:
    """Import what comes with these extras inside the block; raises Failure where it is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(("orchestrator", "web", "workers")):
            raise
        named = f"orchestrator[{','.join(extras)}]"
        raise Failure(f"{what} needs more than the client has: install {named} ({error.name} is missing).") from None
