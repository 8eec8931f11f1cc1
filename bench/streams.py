"""Event streams: hundreds of listeners beside a steady flow of commands."""

import selectors
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from statistics import quantiles
from urllib.parse import urlsplit

from bench.load import pace
from bench.singles import now, until_applied
from bench.stack import Stack
from bench.world import Fleet, sql

LISTENERS, RATE = 200, 200.0
PATIENCE_SECONDS = 20.0
"""For the last event on each stream."""

_EVENT = b"\ndata: {"
_EVENTS = """
    SELECT count(*) AS n FROM events e JOIN commands c ON c.id = e.command_id
    WHERE c.project_id = :project AND c.seq > :mark
"""


def listened(stack: Stack, url: str, agents: Fleet, seconds: float) -> dict[str, float]:
    """Milliseconds of an answer at 200 commands a second while 200 streams are open, the events that these should have
    brought and did not, and seconds from the end of the last command until the last event had come."""
    ids, mark = agents.agents(2_000), now(agents)
    paths = [f"{agents.path}/agents/{id_}/{verb}" for verb in ("pause", "resume") for id_ in ids]
    with _listeners(url, stack.key, f"{agents.path}/events") as reader:
        took = pace(url, stack.key, paths, RATE, seconds)
        until_applied(agents)
        applied, events = time.monotonic(), int(sql(_EVENTS, project=agents.project_id, mark=mark)[0].n)
        reader.send(events)
        counts: list[int] = reader.recv()
        behind = time.monotonic() - applied
    cuts = quantiles(took, n=100)
    return {
        "an answer beside 200 streams, p50 ms": 1000 * cuts[49],
        "an answer beside 200 streams, p99 ms": 1000 * cuts[98],
        "events lost or doubled on 200 streams": sum(abs(count - events) for count in counts),
        "the last event on 200 streams, s": behind,
    }


@contextmanager
def _listeners(url: str, key: str, path: str) -> Iterator[Connection]:
    """A process with so many open streams: told how many events there are, it answers how many have come on each."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_listen, args=(url, key, path, theirs), daemon=True)
    process.start()
    theirs.close()  # or the end of the process would not be heard
    try:
        if (opened := ours.recv()) != LISTENERS:
            raise RuntimeError(f"only {opened} of {LISTENERS} streams were opened")
        yield ours
    finally:
        process.terminate()
        process.join()


def _listen(url: str, key: str, path: str, told: Connection) -> None:
    address = urlsplit(url)
    request = f"GET {path} HTTP/1.0\r\nAuthorization: Bearer {key}\r\nAccept: text/event-stream\r\n\r\n".encode()
    counts: list[int] = [0] * LISTENERS
    tails = [b""] * LISTENERS
    wanted = sys.maxsize
    with ExitStack() as open_, selectors.DefaultSelector() as selector:
        for number in range(LISTENERS):
            sock = open_.enter_context(socket.create_connection((address.hostname, address.port)))
            sock.sendall(request)
            if b" 200 " not in sock.recv(15):
                told.send(number)
                return
            selector.register(sock, selectors.EVENT_READ, number)
        selector.register(told, selectors.EVENT_READ, None)
        told.send(LISTENERS)
        deadline = float("inf")
        while min(counts) < wanted and time.monotonic() < deadline:
            for key_, _ in selector.select(0.1):
                if key_.data is None:
                    wanted, deadline = told.recv(), time.monotonic() + PATIENCE_SECONDS
                    continue
                read = tails[key_.data] + key_.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                counts[key_.data] += read.count(_EVENT)
                tails[key_.data] = read[-len(_EVENT) + 1 :]
    told.send(counts)
