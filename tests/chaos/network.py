"""What goes wrong between our processes and the servers: connections are reset, cut, late, or lose an answer."""

import random
import time

from tests.chaos.hits import FREEZE_SECONDS, Hit, wait_until
from tests.chaos.stack import Stack
from tests.proxy import Proxy

DRAINS, DOORS = b"orch-drain", b"orch-door"


def cut(stack: Stack, rng: random.Random, proxy: str, who: bytes = b"") -> Hit:
    """Nothing arrives for a while; hit is whoever had something to say."""
    with _proxy(stack, proxy).cut(who) as held:
        time.sleep(rng.uniform(*FREEZE_SECONDS))
    return Hit(len(held), "connections")


def reset(stack: Stack, rng: random.Random, proxy: str, who: bytes = b"") -> Hit:
    """All connections end."""
    del rng
    return Hit(_proxy(stack, proxy).reset(who), "connections")


def delayed(stack: Stack, rng: random.Random, proxy: str) -> Hit:
    """Whatever is said is late."""
    with _proxy(stack, proxy).delay(rng.uniform(0.01, 0.1)) as late:
        time.sleep(rng.uniform(*FREEZE_SECONDS))
    return Hit(len(late), "connections")


def answer_lost(stack: Stack, rng: random.Random, after: bytes, who: bytes) -> Hit:
    """What PostgreSQL was told is done, and nobody hears of it."""
    del rng
    before = stack.to_postgres.lost
    stack.to_postgres.lose_answer(after, who)
    try:
        wait_until(lambda: stack.to_postgres.lost > before)
    finally:
        stack.to_postgres.spare()
    return Hit(stack.to_postgres.lost - before, "answers")


def _proxy(stack: Stack, name: str) -> Proxy:
    found: Proxy = getattr(stack, name)
    return found
