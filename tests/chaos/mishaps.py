"""One fault after the other, and what is written down of each: when it was over, and whom it hit."""

import random
import time
from collections import Counter

from tests.chaos.faults import ALL
from tests.chaos.history import Fault
from tests.chaos.hits import Missed
from tests.chaos.plan import Plan
from tests.chaos.stack import Stack, wait_until_back

BETWEEN_SECONDS = (0.3, 1.2)
"""From one fault's end to the next."""

LONGER = 0.5
"""A campaign in which something has not happened goes on for so much of its time."""


def go_wrong(plan: Plan, stack: Stack, faults: list[Fault]) -> None:
    """Fault after fault, of the kinds that are the furthest from what is wanted; for longer than planned where some are
    missing. One that hit nobody lets another go first."""
    rng = random.Random(plan.seed)  # noqa: S311  # to be repeatable
    ends = time.monotonic() + plan.seconds
    hit, wanted, missed = Counter(dict.fromkeys(plan.kinds, 0)), plan.each, ""
    while not plan.kinds and time.monotonic() < ends:
        time.sleep(0.1)
    while plan.kinds and time.monotonic() < ends + LONGER * plan.seconds * any((Counter(wanted) - hit).values()):
        share = {kind: hit[kind] / max(1, wanted[kind]) for kind in plan.kinds if kind != missed or len(hit) == 1}
        kind = rng.choice([kind for kind, much in share.items() if much == min(share.values())])
        fault = happen(stack, kind, rng)
        faults.append(fault)
        hit[kind] += fault.hit > 0
        missed = "" if fault.hit else kind
        time.sleep(rng.uniform(*BETWEEN_SECONDS))


def happen(stack: Stack, kind: str, rng: random.Random) -> Fault:
    """Do it, and wait until our programs are whole again: that is no part of it, for they must go on without being
    waited for."""
    began = time.monotonic_ns()
    try:
        hit = ALL[kind](stack, rng)
    except Missed as nobody:
        return Fault(kind, str(nobody), began, time.monotonic_ns(), 0)
    healed = time.monotonic_ns()
    wait_until_back(stack, hit.killed)
    return Fault(kind, hit.whom, began, healed, hit.number)
