"""What goes wrong: when a fault returns, all that it broke is to work again, or to come back by itself."""

import random
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from uuid import uuid4

import psutil
import psycopg
import redis

from orchestrator.failpoints import Point
from tests.chaos.stack import Stack
from tests.faults import Do

FREEZE_SECONDS = (0.5, 3.0)
BRIEF_SECONDS = (0.3, 2.0)
PATIENCE_SECONDS = 4.0
"""For somebody who comes by."""

DRAINS, DOORS = b"orch-drain", b"orch-door"

MAX_CONNECTIONS = 200
"""As the embedded PostgreSQL is started with."""

Happen = Callable[[Stack, random.Random], None]
"""Does it, for as long as it lasts; raises Missed where it did not happen."""


class Missed(Exception):
    """Nobody came by."""


def _some(stack: Stack, rng: random.Random, name: str, who: str) -> list[psutil.Process]:
    if who == "main":
        main = stack.program(name)
        return [] if main is None else [main]
    children = stack.children(name)
    return [rng.choice(children)] if children else []


def _killed(stack: Stack, rng: random.Random, name: str, who: str) -> None:
    _signal(_some(stack, rng, name, who), signal.SIGKILL)


def _frozen(stack: Stack, rng: random.Random, name: str, who: str) -> None:
    victims = _some(stack, rng, name, who)
    _signal(victims, signal.SIGSTOP)
    time.sleep(rng.uniform(*FREEZE_SECONDS))
    _signal(victims, signal.SIGCONT)


def _signal(victims: list[psutil.Process], signum: signal.Signals) -> None:
    for victim in victims:
        with suppress(psutil.NoSuchProcess):
            victim.send_signal(signum)


def _failing(stack: Stack, rng: random.Random, point: Point, do: Do) -> None:
    """The next process that comes by this point fails there; all that stand still go on afterwards."""
    stack.failpoints.arm(point, do, once=True, seconds=rng.uniform(*BRIEF_SECONDS))
    try:
        with suppress(Missed):
            _wait_until(lambda: not stack.failpoints.armed(point))
    finally:
        nobody = stack.failpoints.disarm(point)  # or somebody at the last moment, who must not fail for no reason
    if nobody:
        raise Missed
    if do == "freeze":
        time.sleep(rng.uniform(*FREEZE_SECONDS))
        for name in ("worker", "web"):
            _signal([*_some(stack, rng, name, "main"), *stack.children(name)], signal.SIGCONT)


def _redis_wiped(stack: Stack, rng: random.Random) -> None:
    del rng
    stack.redis.client.flushall()


def _redis_restarted_empty(stack: Stack, rng: random.Random) -> None:
    stack.redis.stop()
    stack.redis.lose()
    time.sleep(rng.uniform(*BRIEF_SECONDS))
    stack.redis.begin()


def _redis_frozen(stack: Stack, rng: random.Random) -> None:
    with stack.redis.frozen():
        time.sleep(rng.uniform(*FREEZE_SECONDS))


def _redis_full(stack: Stack, rng: random.Random) -> None:
    stack.redis.client.config_set("maxmemory", 1)
    time.sleep(rng.uniform(*BRIEF_SECONDS))
    stack.redis.client.config_set("maxmemory", 0)


def _bindings_deleted(stack: Stack, rng: random.Random) -> None:
    del rng
    for key in stack.redis.client.keys("_kombu.binding.*"):
        stack.redis.client.delete(key)


def _forged_messages(stack: Stack, rng: random.Random) -> None:
    """Into the queues from which workers take: what is no message, and what names tasks that there are not."""
    nonsense = [b"", b"\xff\xfe", b"{}", b"[]", b'{"body": 1}', b"null", uuid4().bytes * 100]
    with suppress(redis.RedisError):
        for _ in range(5):
            stack.redis.client.lpush(rng.choice(["commands", "upkeep"]), rng.choice(nonsense))


def _bells_doubled(stack: Stack, rng: random.Random) -> None:
    """Every message that waits is there twice, and out of order."""
    del rng
    waiting = stack.redis.client.lrange("commands", 0, -1)
    for message in waiting:
        stack.redis.client.rpush("commands", message)


def _postgres_crashed(stack: Stack, rng: random.Random) -> None:
    stack.postgres.crash()
    time.sleep(rng.uniform(*BRIEF_SECONDS))
    stack.postgres.begin()


def _backends_ended(stack: Stack, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 5)):
        with stack.postgres.connected() as db:
            db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'orch-%'")
        time.sleep(0.1)


def _agent_locked(stack: Stack, rng: random.Random) -> None:
    with stack.postgres.connected() as db, db.transaction():
        db.execute("SELECT 1 FROM agents ORDER BY random() LIMIT 1 FOR UPDATE")
        time.sleep(rng.uniform(*FREEZE_SECONDS))


def _no_connections_left(stack: Stack, rng: random.Random) -> None:
    with ExitStack() as taken:
        with suppress(psycopg.OperationalError):
            for _ in range(MAX_CONNECTIONS):
                taken.enter_context(stack.postgres.connected())
        with suppress(psycopg.Error):
            stack.to_postgres.reset()
        time.sleep(rng.uniform(*BRIEF_SECONDS))


def _cut(stack: Stack, rng: random.Random, proxy: str, who: bytes = b"") -> None:
    with getattr(stack, proxy).cut(who):
        time.sleep(rng.uniform(*FREEZE_SECONDS))


def _reset(stack: Stack, rng: random.Random, proxy: str, who: bytes = b"") -> None:
    del rng
    getattr(stack, proxy).reset(who)


def _delayed(stack: Stack, rng: random.Random, proxy: str) -> None:
    with getattr(stack, proxy).delay(rng.uniform(0.01, 0.1)):
        time.sleep(rng.uniform(*FREEZE_SECONDS))


def _answer_lost(stack: Stack, rng: random.Random, after: bytes, who: bytes) -> None:
    del rng
    before = stack.to_postgres.lost
    stack.to_postgres.lose_answer(after, who)
    try:
        _wait_until(lambda: stack.to_postgres.lost > before)
    finally:
        stack.to_postgres.spare()


def _wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        if time.monotonic() > deadline:
            raise Missed
        time.sleep(0.01)


PROCESSES: dict[str, Happen] = {
    "worker child killed": partial(_killed, name="worker", who="child"),
    "worker killed": partial(_killed, name="worker", who="main"),
    "web child killed": partial(_killed, name="web", who="child"),
    "web killed": partial(_killed, name="web", who="main"),
    "beat killed": partial(_killed, name="beat", who="main"),
    "worker child frozen": partial(_frozen, name="worker", who="child"),
    "worker frozen": partial(_frozen, name="worker", who="main"),
    "web child frozen": partial(_frozen, name="web", who="child"),
}
SERVERS: dict[str, Happen] = {
    "redis wiped": _redis_wiped,
    "redis restarted empty": _redis_restarted_empty,
    "redis frozen": _redis_frozen,
    "redis full": _redis_full,
    "bindings deleted": _bindings_deleted,
    "forged messages": _forged_messages,
    "bells doubled": _bells_doubled,
    "postgres crashed": _postgres_crashed,
    "backends ended": _backends_ended,
    "agent locked": _agent_locked,
    "no connections left": _no_connections_left,
}
NETWORK: dict[str, Happen] = {
    "postgres reset": partial(_reset, proxy="to_postgres"),
    "workers cut off": partial(_cut, proxy="to_postgres", who=DRAINS),
    "doors cut off": partial(_cut, proxy="to_postgres", who=DOORS),
    "postgres slow": partial(_delayed, proxy="to_postgres"),
    "redis reset": partial(_reset, proxy="to_redis"),
    "redis cut off": partial(_cut, proxy="to_redis"),
    "commit's answer lost": partial(_answer_lost, after=b"COMMIT", who=DRAINS),
    "door's answer lost": partial(_answer_lost, after=b"", who=DOORS),
}
POINTS: dict[str, Happen] = {
    f"{do} at {point}": partial(_failing, point=point, do=do)
    for point in Point
    for do in ("kill", "raise", "freeze", "delay")
}
ALL = PROCESSES | SERVERS | NETWORK | POINTS

KILLS = {f"kill at {point}" for point in Point}

WIPES = {"redis wiped", "redis restarted empty", "redis frozen", "redis full", "redis reset", "redis cut off"}
"""What lets a window of a limit begin anew, or be judged by a process alone."""
