"""Commands sent one by one: how many a second, how soon they are applied, and what they cost."""

import time
from statistics import median

from bench.load import flood, pace, poster
from bench.stack import Stack, cpu_seconds
from bench.world import Fleet, sql, waiting
from orchestrator.errors import Problem

PATIENCE_SECONDS = 120

_SINCE = """
    SELECT count(*) AS closed, extract(epoch FROM max(closed_at) - min(created_at))::float AS seconds
    FROM commands WHERE project_id = :project AND seq > :mark AND state <> 'queued'
"""
_LATENCY = """
    SELECT percentile_cont(ARRAY[0.5, 0.95, 0.99])
        WITHIN GROUP (ORDER BY extract(epoch FROM pg_xact_commit_timestamp(xmin) - created_at)) AS took
    FROM commands WHERE project_id = :project AND seq > :mark AND lane = 0
"""

_COMMITTED = """
    SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin))::float AS at
    FROM commands WHERE project_id = :project AND seq > :mark ORDER BY seq
"""
IDLE_SECONDS = 0.1
"""Between an answer and the next request, where nothing else is to do."""


def rate(stack: Stack, url: str, agents: Fleet, seconds: float) -> float:
    """Commands accepted and applied per second, from the first request to the last one's end (database clock)."""
    mark = now(agents)
    flood(url, stack.key, agents.path, agents.agents(2_000), seconds, stack.home)
    until_applied(agents)
    (done,) = sql(_SINCE, project=agents.project_id, mark=mark)
    return float(done.closed / done.seconds)


def throughput(stack: Stack, url: str, agents: Fleet, seconds: float) -> dict[str, float]:
    """The same for ours, and the CPU it took, servers included."""
    began, mark = cpu_seconds(), now(agents)
    found = rate(stack, url, agents, seconds)
    (done,) = sql(_SINCE, project=agents.project_id, mark=mark)
    return {"ours": found, "CPU s per 1,000 single commands": (cpu_seconds() - began) / done.closed * 1000}


def latency(stack: Stack, url: str, agents: Fleet, rate: float, seconds: float) -> dict[str, float]:
    """Milliseconds from accepted to applied and committed at so many commands a second (database clock): p50, p95,
    p99."""
    ids, mark = agents.agents(2_000), now(agents)
    paths = [f"{agents.path}/agents/{id_}/{verb}" for verb in ("pause", "resume") for id_ in ids]
    pace(url, stack.key, paths, rate, seconds)
    until_applied(agents)
    return {f"{name} at {rate:.0f}/s, ms": value for name, value in percentiles(agents, mark).items()}


def idle(stack: Stack, url: str, agents: Fleet, count: int) -> dict[str, float]:
    """Median milliseconds of so many commands on a stack that has nothing else to do, from before the request (this
    machine's clock, which is the database's) until it is applied and committed, and until its answer is there."""
    post, ids, mark = poster(url, stack.key), agents.agents(count), now(agents)
    sent, answered = [], []
    for number in range(count):
        time.sleep(IDLE_SECONDS)
        path = f"{agents.path}/agents/{ids[number // 2]}/{('pause', 'resume')[number % 2]}"
        sent.append(time.time())
        status, answer = post(path, None, Prefer="wait=5")
        answered.append(time.time())
        if status != 200:
            raise RuntimeError(f"{path}: {status} {answer!r}")
    applied = [row.at for row in sql(_COMMITTED, project=agents.project_id, mark=mark)]
    return {
        f"idle, request to {end}, p50 ms": 1000 * median(until - at for at, until in zip(sent, ends, strict=True))
        for end, ends in (("applied", applied), ("answer", answered))
    }


def percentiles(agents: Fleet, mark: int) -> dict[str, float]:
    """The same of the single commands sent since the mark."""
    (found,) = sql(_LATENCY, project=agents.project_id, mark=mark)
    return {name: 1000 * took for name, took in zip(("p50", "p95", "p99"), found.took, strict=True)}


def now(agents: Fleet) -> int:
    """A mark: commands sent from now on have a higher number."""
    return int(sql("SELECT coalesce(max(seq), 0) AS n FROM commands WHERE project_id = :p", p=agents.project_id)[0].n)


def until_applied(agents: Fleet, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until nothing is queued; raises Problem where it takes too long."""
    asked = time.monotonic()
    deadline = asked + seconds
    while waiting():
        if time.monotonic() > deadline:
            raise Problem(f"commands of {agents.type_slug} are still queued")
        time.sleep(max(0.05, 20 * (time.monotonic() - asked)))  # to look costs much where a snapshot is old
        asked = time.monotonic()
