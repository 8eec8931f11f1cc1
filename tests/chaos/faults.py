"""What goes wrong, by name: when a fault returns, all that it broke is to work again, or to come back by itself."""

import random
from collections.abc import Callable
from functools import partial

from orchestrator.failpoints import Point
from tests.chaos import network, poison, processes, servers
from tests.chaos.commands import POISONED
from tests.chaos.hits import Hit
from tests.chaos.network import DOORS, DRAINS
from tests.chaos.stack import Stack

Happen = Callable[[Stack, random.Random], Hit]
"""Does it, for as long as it lasts, and says whom it hit; raises Missed where that is nobody, and nothing happened."""

PROCESSES: dict[str, Happen] = {
    "worker child killed": partial(processes.killed, name="worker", who="child"),
    "worker killed": partial(processes.killed, name="worker", who="main"),
    "web child killed": partial(processes.killed, name="web", who="child"),
    "web killed": partial(processes.killed, name="web", who="main"),
    "beat killed": partial(processes.killed, name="beat", who="main"),
    "worker child frozen": partial(processes.frozen, name="worker", who="child"),
    "worker frozen": partial(processes.frozen, name="worker", who="main"),
    "web child frozen": partial(processes.frozen, name="web", who="child"),
}
SERVERS: dict[str, Happen] = {
    "redis wiped": servers.redis_wiped,
    "redis restarted empty": servers.redis_restarted_empty,
    "redis frozen": servers.redis_frozen,
    "redis full": servers.redis_full,
    "bindings deleted": servers.bindings_deleted,
    "forged messages": servers.forged_messages,
    "bells doubled": servers.bells_doubled,
    "postgres crashed": servers.postgres_crashed,
    "backends ended": servers.backends_ended,
    "agent locked": servers.agent_locked,
    "no connections left": servers.no_connections_left,
}
NETWORK: dict[str, Happen] = {
    "postgres reset": partial(network.reset, proxy="to_postgres"),
    "workers cut off": partial(network.cut, proxy="to_postgres", who=DRAINS),
    "doors cut off": partial(network.cut, proxy="to_postgres", who=DOORS),
    "postgres slow": partial(network.delayed, proxy="to_postgres"),
    "redis reset": partial(network.reset, proxy="to_redis"),
    "redis cut off": partial(network.cut, proxy="to_redis"),
    "commit's answer lost": partial(network.answer_lost, after=b"COMMIT", who=DRAINS),
    "door's answer lost": partial(network.answer_lost, after=b"", who=DOORS),
}
POINTS: dict[str, Happen] = {
    f"{do} at {point}": partial(processes.failing, point=point, do=do)
    for point in Point
    for do in ("kill", "raise", "freeze", "delay")
}
ALL = PROCESSES | SERVERS | NETWORK | POINTS | {POISONED: poison.poisoned}

KILLS = {f"kill at {point}" for point in Point}

WITHOUT_BELLS = "redis away in the end"
"""Each campaign ends with it: commands after which nobody can ring."""

WIPES = {
    "redis wiped", "redis restarted empty", "redis frozen", "redis full", "redis reset", "redis cut off", WITHOUT_BELLS,
}  # fmt: skip
"""What lets a window of a limit begin anew, or be judged by a process alone."""
