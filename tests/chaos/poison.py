"""A command that kills whoever decides about it, again and again, until it is given up."""

import random
from contextlib import suppress
from typing import Any

import psycopg

from orchestrator.failpoints import Point
from tests.chaos.hits import Hit, Missed, wait_until
from tests.chaos.servers import MOST_WANTED
from tests.chaos.stack import Stack

GIVEN_UP_SECONDS = 60.0
"""Within which it is, after five tries, each by a process that takes a while to start."""

_QUEUED = """
    SELECT id FROM commands
    WHERE agent_id = %s AND state = 'queued' AND verb = 'update' AND actor_type = 'user' LIMIT 1
"""
_IS_OPEN = "SELECT 1 FROM commands WHERE id = %s AND state = 'queued'"


def poisoned(stack: Stack, rng: random.Random) -> Hit:
    """Hold the agent that is asked for the most until it has got an update, and let that be the one."""
    del rng
    with stack.postgres.connected() as db:
        command = _armed(stack, db)
        try:
            with suppress(Missed):  # the checks will tell
                wait_until(lambda: db.execute(_IS_OPEN, (command,)).fetchone() is None, GIVEN_UP_SECONDS)
        finally:
            stack.failpoints.disarm(Point.DECIDED)
    return Hit(1, f"command {command}")


def _armed(stack: Stack, db: "psycopg.Connection[Any]") -> str:
    """While nobody can decide about it."""
    found: list[Any] = []
    with db.transaction():
        agent = db.execute(f"{MOST_WANTED} FOR NO KEY UPDATE").fetchone()
        if agent is None:
            raise Missed

        def has_one() -> bool:
            found[:] = db.execute(_QUEUED, agent).fetchone() or ()
            return bool(found)

        wait_until(has_one)
        stack.failpoints.arm(Point.DECIDED, "kill", only=[str(found[0])])
    return str(found[0])
