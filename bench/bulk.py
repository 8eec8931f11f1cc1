"""Commands in bulk: lists, a filter that a hundred thousand match, and a backlog by itself."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from threading import Event

from bench import singles
from bench.load import CONNECTIONS, poster
from bench.stack import Stack
from bench.world import Fleet, sql
from workers import bell

LIST = 1_000
SENDERS = 4

_PROGRESS = """
    SELECT count(*) AS closed, extract(epoch FROM max(closed_at) - min(closed_at))::float AS draining,
        extract(epoch FROM max(closed_at) - min(created_at))::float AS whole
    FROM commands WHERE project_id = :project AND seq > :mark AND lane = 1 AND state <> 'queued'
"""


def lists(stack: Stack, url: str, agents: Fleet, requests: int) -> dict[str, float]:
    """Commands in lists of 1,000, from the first request to the last one's end, per second (database clock)."""
    ids, mark = agents.agents(LIST * SENDERS), singles.now(agents)
    bodies = [
        json.dumps({"commands": [{"verb": verb, "agent_id": str(id_)} for id_ in ids[n::SENDERS]]}).encode()
        for verb in ("pause", "resume")
        for n in range(SENDERS)
    ]

    def send(body: bytes) -> None:
        status, answer = poster(url, stack.key)(f"{agents.path}/commands", body)
        if status != 202:
            raise RuntimeError(f"{status} {answer!r}")

    with ThreadPoolExecutor(SENDERS) as pool:
        for _, round_ in zip(range(requests // SENDERS), cycle((bodies[:SENDERS], bodies[SENDERS:])), strict=False):
            list(pool.map(send, round_))
    singles.until_applied(agents)
    (done,) = sql(_PROGRESS, project=agents.project_id, mark=mark)
    return {"bulk lists": done.closed / done.whole}


def by_filter(stack: Stack, url: str, agents: Fleet, verb: str) -> dict[str, float]:
    """Seconds until a command by filter is accepted, and until all of it is applied."""
    mark, began = singles.now(agents), time.monotonic()
    send(stack, url, agents, verb)
    accepted = time.monotonic() - began
    singles.until_applied(agents)
    (done,) = sql(_PROGRESS, project=agents.project_id, mark=mark)
    return {"by filter, accepted, s": accepted, "by filter, applied, s": accepted + done.draining}


def send(stack: Stack, url: str, agents: Fleet, verb: str, **which: str) -> None:
    """One command for each agent that matches; raises RuntimeError where that is not accepted."""
    status, answer = poster(url, stack.key)(f"{agents.path}/commands/by-filter", {"verb": verb, "filter": which})
    if status != 202:
        raise RuntimeError(f"{status} {answer!r}")


def alone(stack: Stack, url: str, agents: Fleet, verb: str, processes: int) -> float:
    """Commands of a backlog drained per second, by so many processes, from the first commit to the last."""
    mark = singles.now(agents)
    send(stack, url, agents, verb)
    with stack.workers(processes):
        for _ in range(processes):
            bell.publish()
        singles.until_applied(agents)
    (done,) = sql(_PROGRESS, project=agents.project_id, mark=mark)
    return float(done.closed / done.draining)


def interactive(stack: Stack, url: str, small: Fleet, large: Fleet, verb: str) -> dict[str, float]:
    """Milliseconds from accepted to applied of single commands while a hundred thousand in bulk drain."""
    mark, over = singles.now(small), Event()
    send(stack, url, large, verb)
    with _single_commands(stack, url, small, over):
        singles.until_applied(large)
        over.set()
    singles.until_applied(small)
    found = singles.percentiles(small, mark)
    return {f"{name} beside a backlog, ms": value for name, value in found.items()}


@contextmanager
def _single_commands(stack: Stack, url: str, agents: Fleet, over: Event) -> Iterator[None]:
    ids = agents.agents(CONNECTIONS * 10)
    paths = cycle(f"{agents.path}/agents/{id_}/{verb}" for verb in ("pause", "resume") for id_ in ids)

    def work() -> None:
        post = poster(url, stack.key)
        while not over.wait(0.05):
            post(next(paths), None)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        yield
        done.result()
