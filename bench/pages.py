"""The console's pages at a fleet of any size: milliseconds until the server has made one, over one connection."""

import time
from statistics import quantiles

import httpx2

from bench.stack import Stack
from bench.world import Fleet

ROUNDS = 40
SAME = {"Sec-Fetch-Site": "same-origin"}


def pages(stack: Stack, url: str, agents: Fleet) -> dict[str, float]:
    """The 95th percentile of each page, in ms."""
    [agent] = agents.agents(1)
    paths = {
        "fleet": "/",
        "agents": f"/p/{agents.project_id}/agents",
        "agents, filtered": f"/p/{agents.project_id}/agents?status=idle&q=a-1",
        "agent": f"/a/{agent}",
        "commands": "/commands",
        "costs": "/costs",
        "audit": "/audit",
    }
    with httpx2.Client(base_url=url, timeout=30) as http:
        http.post("/login", data={"key": stack.key}, headers=SAME)
        return {f"console, {name}, p95 ms": _p95(http, path) for name, path in paths.items()}


def _p95(http: httpx2.Client, path: str) -> float:
    took = []
    for _ in range(ROUNDS):
        began = time.monotonic()
        assert http.get(path).status_code == httpx2.codes.OK, path  # noqa: S101
        took.append(1000 * (time.monotonic() - began))
    return quantiles(took[3:], n=20)[18]
