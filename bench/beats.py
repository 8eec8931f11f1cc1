"""Beats: what a thousand leased agents cost that say every ten seconds that they live."""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import quantiles
from uuid import UUID

from bench.load import poster
from bench.stack import Stack, cpu_seconds
from bench.world import Fleet
from orchestrator.keys import TENURE_CACHE_SECONDS

LEASED = 1_000
PERIOD_SECONDS = 10.0
AT_ONCE = 500
SENDERS = 8
DUE = round(TENURE_CACHE_SECONDS / PERIOD_SECONDS)
"""Beats of one agent from one look at its token to the next."""

Lease = tuple[UUID, str]
"""An agent and the token of its lease."""


def grant(stack: Stack, url: str, agents: Fleet) -> list[Lease]:
    """A lease for each of a thousand agents, of the longest term."""
    post = poster(url, stack.key)

    def one(agent: UUID) -> Lease:
        status, answer = post(f"{agents.path}/agents/{agent}/lease", {"holder": "bench", "ttl": 300})
        if status != 201:
            raise RuntimeError(f"{status} {answer!r}")
        return agent, json.loads(answer)["token"]

    return [one(agent) for agent in agents.agents(LEASED)]


def one_by_one(url: str, agents: Fleet, leases: list[Lease], seconds: float) -> dict[str, float]:
    """Percent of a core that all processes of the stack use together, and milliseconds a beat takes, at one request for
    each beat. As when they have beaten for minutes: each keeps its connection, and one token of six is due to be looked
    up within these ten seconds, for each is good for a minute."""
    took: list[float] = []

    def beat(number: int) -> None:
        agent, token = leases[number % LEASED]
        status, answer = posters[number % SENDERS](f"{agents.path}/agents/{agent}/beat", {"epoch": 1}, token)
        if status != 200:
            raise RuntimeError(f"{status} {answer!r}")

    def on_time(number: int) -> None:
        time.sleep(max(0.0, began + number * PERIOD_SECONDS / LEASED - time.monotonic()))
        asked = time.monotonic()
        beat(number)
        took.append(1000 * (time.monotonic() - asked))

    def all_of(one: Callable[[int], None], numbers: Sequence[int]) -> None:
        def from_one_sender(sender: int) -> None:
            for number in numbers:
                if number % SENDERS == sender:
                    one(number)

        list(pool.map(from_one_sender, range(SENDERS)))

    posters = [poster(url, "") for _ in range(SENDERS)]
    with ThreadPoolExecutor(SENDERS) as pool:
        all_of(beat, [number for number in range(LEASED) if number // SENDERS % DUE])
        began, used = time.monotonic(), cpu_seconds()
        all_of(on_time, range(round(seconds * LEASED / PERIOD_SECONDS)))
    percent = 100 * (cpu_seconds() - used) / (time.monotonic() - began)
    return {"1,000 beating agents, % of a core": percent, "a beat, p99 ms": quantiles(took, n=100)[-1]}


def hollow(url: str, agents: Fleet, leases: list[Lease], seconds: float) -> dict[str, float]:
    """The same requests where each is answered by a view that does nothing: what they cost before anything is done."""
    percent, _ = one_by_one(url, agents, leases, seconds).values()
    return {"1,000 empty requests instead, % of a core": percent}


def together(stack: Stack, url: str, agents: Fleet, leases: list[Lease], seconds: float) -> dict[str, float]:
    """The same with 500 beats in a request."""
    post, began, used = poster(url, stack.key), time.monotonic(), cpu_seconds()
    for round_ in range(round(seconds / PERIOD_SECONDS * LEASED / AT_ONCE)):
        time.sleep(max(0.0, began + round_ * PERIOD_SECONDS * AT_ONCE / LEASED - time.monotonic()))
        some = leases[round_ % 2 * AT_ONCE :][:AT_ONCE]
        status, answer = post(f"{agents.path}/beats", {"beats": [{"agent_id": str(a), "epoch": 1} for a, _ in some]})
        if status != 200:
            raise RuntimeError(f"{status} {answer!r}")
    percent = 100 * (cpu_seconds() - used) / (time.monotonic() - began)
    return {"1,000 agents beating together, % of a core": percent}


def idle(seconds: float) -> dict[str, float]:
    """The same where nobody beats."""
    used = cpu_seconds()
    time.sleep(seconds)
    return {"an idle stack, % of a core": 100 * (cpu_seconds() - used) / seconds}
