"""Usage at volume: entries counted per second, in batches of 1,000, on one agent and spread over many."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import count
from uuid import UUID

from bench.load import poster
from bench.singles import PATIENCE_SECONDS
from bench.stack import Stack
from bench.world import Fleet, sql

BATCH = 1_000
SENDERS = 3

_NUMBERS = count()


def counted(stack: Stack, url: str, agents: Fleet, among: int, batches: int) -> float:
    """Entries counted per second, from the first request until the last one is in the counters."""
    ids, run = agents.agents(among), f"run-{next(_NUMBERS)}-"
    bodies = [_body(ids, run, number * BATCH) for number in range(batches)]
    began = sql("SELECT clock_timestamp() AS now")[0].now

    def send(body: bytes) -> None:
        status, answer = poster(url, stack.key)(f"{agents.path}/usage", body)
        if status != 202:
            raise RuntimeError(f"{status} {answer!r}")

    with ThreadPoolExecutor(SENDERS) as pool:
        list(pool.map(send, bodies))
    ended = _until_counted()
    return float(batches * BATCH / (ended - began).total_seconds())


def _body(ids: list[UUID], run: str, first: int) -> bytes:
    entries = [
        {
            "agent_id": str(ids[number % len(ids)]),
            "report_id": f"{run}{number}",
            "model": "gpt-5",
            "input_tokens": 812,
            "output_tokens": 90,
            "cost": "0.0021",
        }
        for number in range(first, first + BATCH)
    ]
    return json.dumps({"entries": entries}).encode()


def _until_counted() -> datetime:
    for _ in range(PATIENCE_SECONDS * 50):
        (left,) = sql("SELECT clock_timestamp() AS now, EXISTS (SELECT FROM usage_entries WHERE NOT folded) AS some")
        if not left.some:
            now: datetime = left.now
            return now
    raise RuntimeError("entries are still not counted")
