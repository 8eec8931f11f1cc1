"""What goes wrong with PostgreSQL and Redis: they crash, freeze, are wiped, filled, crowded, and told nonsense.

A crash is over when the server answers again: what it does until then is no work of ours.
"""

import random
import time
from contextlib import ExitStack, suppress
from uuid import uuid4

import psycopg

from tests.chaos.hits import BRIEF_SECONDS, FREEZE_SECONDS, Hit, Missed, wait_until
from tests.chaos.stack import Stack

MAX_CONNECTIONS = 200
"""As the embedded PostgreSQL is started with."""

_DOUBLE = """
    local waiting = redis.call('LRANGE', KEYS[1], 0, -1)
    for _, message in ipairs(waiting) do redis.call('RPUSH', KEYS[1], message) end
    return #waiting
"""

MOST_WANTED = """
    SELECT id FROM agents WHERE id = (
        SELECT agent_id FROM (SELECT agent_id FROM commands ORDER BY seq DESC LIMIT 100) latest
        GROUP BY agent_id ORDER BY count(*) DESC LIMIT 1)
"""

_WAITING = """
    SELECT (SELECT count(*) FROM commands WHERE agent_id = %s AND state = 'queued')
        + (SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid)))
"""


def redis_wiped(stack: Stack, rng: random.Random) -> Hit:
    """All keys are gone."""
    del rng
    with stack.redis.client.pipeline() as both:
        keys, _ = both.dbsize().flushall().execute()
    return Hit(keys, "keys")


def redis_restarted_empty(stack: Stack, rng: random.Random) -> Hit:
    """It is away for a while, and knows nothing when it is back."""
    hit = Hit(stack.to_redis.open, "connections")
    stack.redis.stop()
    stack.redis.lose()
    time.sleep(rng.uniform(*BRIEF_SECONDS))
    stack.redis.begin()
    return hit


def redis_frozen(stack: Stack, rng: random.Random) -> Hit:
    """It answers nothing for a while; hit is whoever asked."""
    with stack.to_redis.watched() as asked, stack.redis.frozen():
        time.sleep(rng.uniform(*FREEZE_SECONDS))
    return Hit(len(asked), "connections")


def redis_full(stack: Stack, rng: random.Random) -> Hit:
    """It takes nothing for a while; hit is what it has refused."""
    before = _refused(stack)
    stack.redis.client.config_set("maxmemory", 1)
    try:
        time.sleep(rng.uniform(*BRIEF_SECONDS))
    finally:
        stack.redis.client.config_set("maxmemory", 0)
    return Hit(_refused(stack) - before, "writes")


def _refused(stack: Stack) -> int:
    found: int = stack.redis.client.info("errorstats").get("errorstat_OOM", {}).get("count", 0)
    return found


def bindings_deleted(stack: Stack, rng: random.Random) -> Hit:
    """Redis no longer knows which queue is whose."""
    del rng
    keys = stack.redis.client.keys("_kombu.binding.*")
    return Hit(sum(stack.redis.client.delete(key) for key in keys), "bindings")


def forged_messages(stack: Stack, rng: random.Random) -> Hit:
    """Into the queues from which workers take: what is no message, and what names tasks that there are not. Hit is who
    took it; what nobody takes is taken back."""
    nonsense = [b"", b"\xff\xfe", b"{}", b"[]", b'{"body": 1}', b"null", uuid4().bytes * 100]
    forged = [(rng.choice(["commands", "upkeep"]), rng.choice(nonsense)) for _ in range(5)]
    client = stack.redis.client
    for queue, message in forged:
        client.lpush(queue, message)
    with suppress(Missed):
        wait_until(lambda: all(client.lpos(*one) is None for one in forged))
    return Hit(len(forged) - sum(client.lrem(queue, 0, message) for queue, message in forged), "messages")


def bells_doubled(stack: Stack, rng: random.Random) -> Hit:
    """Every message that waits is there twice, and out of order."""
    del rng
    double = stack.redis.client.register_script(_DOUBLE)
    doubled = 0

    def some_wait() -> bool:
        nonlocal doubled
        doubled = double(keys=["commands"])
        return doubled > 0

    wait_until(some_wait)
    return Hit(doubled, "messages")


def postgres_crashed(stack: Stack, rng: random.Random) -> Hit:
    """It dies without a checkpoint, and is started again a while later."""
    hit = Hit(stack.to_postgres.open, "connections")
    stack.postgres.crash()
    time.sleep(rng.uniform(*BRIEF_SECONDS))
    stack.postgres.begin()
    return hit


def backends_ended(stack: Stack, rng: random.Random) -> Hit:
    """PostgreSQL ends our connections, whatever they are at, several times."""
    ended = 0
    for _ in range(rng.randint(1, 5)):
        with stack.postgres.connected() as db:
            ours = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'orch-%'"
            ended += sum(done for (done,) in db.execute(ours))
        time.sleep(0.1)
    return Hit(ended, "connections")


def agent_locked(stack: Stack, rng: random.Random) -> Hit:
    """Somebody holds the agent that is asked for the most; hit is what waits for it in the end."""
    with stack.postgres.connected() as db, db.transaction():
        agent = db.execute(f"{MOST_WANTED} FOR UPDATE").fetchone()
        if agent is None:
            raise Missed
        time.sleep(rng.uniform(*FREEZE_SECONDS))
        waiting = db.execute(_WAITING, agent).fetchone()
    return Hit(waiting[0] if waiting else 0, f"commands and statements for {agent[0]}")


def no_connections_left(stack: Stack, rng: random.Random) -> Hit:
    """Others have them all, also those that ours had; hit is whoever is turned away."""
    before = stack.to_postgres.turned_away
    with ExitStack() as taken:
        _take_all(stack, taken)
        stack.to_postgres.reset()
        ends = time.monotonic() + rng.uniform(*BRIEF_SECONDS)
        while time.monotonic() < ends:
            _take_all(stack, taken)
            time.sleep(0.01)
    return Hit(stack.to_postgres.turned_away - before, "connections")


def _take_all(stack: Stack, taken: ExitStack) -> None:
    with suppress(psycopg.OperationalError):
        for _ in range(MAX_CONNECTIONS):
            taken.enter_context(stack.postgres.connected())
