"""What goes wrong with our own processes: they are killed, they stand still, they fail at a named point."""

import random
import signal
import time
from contextlib import suppress

import psutil

from orchestrator.failpoints import Point
from tests.chaos.hits import BRIEF_SECONDS, FREEZE_SECONDS, Hit, Missed, wait_until
from tests.chaos.stack import Stack
from tests.faults import Do


def killed(stack: Stack, rng: random.Random, name: str, who: str) -> Hit:
    """The main process of a program, or one of its children, dies at once."""
    victim = _one(stack, rng, name, who)
    _signal(victim, signal.SIGKILL)
    return Hit(1, f"{name} {who} {victim.pid}", victim.pid)


def frozen(stack: Stack, rng: random.Random, name: str, who: str) -> Hit:
    """It stands still for a while."""
    victim = _one(stack, rng, name, who)
    _signal(victim, signal.SIGSTOP)
    _stand_still(victim, rng)
    return Hit(1, f"{name} {who} {victim.pid}")


def failing(stack: Stack, rng: random.Random, point: Point, do: Do) -> Hit:
    """The next process that comes by this point fails there; one that stands still goes on afterwards."""
    names = stack.processes()
    stack.failpoints.arm(point, do, once=True, seconds=rng.uniform(*BRIEF_SECONDS))
    try:
        with suppress(Missed):
            wait_until(lambda: not stack.failpoints.armed(point))
    finally:
        stack.failpoints.disarm(point)
    pid = stack.failpoints.met(point)  # perhaps at the last moment
    if pid is None:
        raise Missed
    if do == "freeze":
        _stand_still(psutil.Process(pid), rng)
    return Hit(1, f"{names.get(pid, 'process')} {pid}", pid if do == "kill" else None)


def _one(stack: Stack, rng: random.Random, name: str, who: str) -> psutil.Process:
    main = stack.program(name)
    there = stack.children(name) if who == "child" else [main] if main else []
    if not there:
        raise Missed
    return rng.choice(there)


def _stand_still(victim: psutil.Process, rng: random.Random) -> None:
    """For a while, from when it does; then it goes on, whatever happens."""
    try:
        wait_until(lambda: victim.status() == psutil.STATUS_STOPPED)
        time.sleep(rng.uniform(*FREEZE_SECONDS))
    except psutil.NoSuchProcess:
        raise Missed from None
    finally:
        with suppress(Missed):
            _signal(victim, signal.SIGCONT)


def _signal(victim: psutil.Process, signum: signal.Signals) -> None:
    try:
        victim.send_signal(signum)
    except psutil.NoSuchProcess:
        raise Missed from None
