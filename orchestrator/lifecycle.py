"""The life of an agent: statuses, verbs and the one table of moves. Pure: no time, no database, no HTTP."""

from enum import StrEnum
from itertools import product

from orchestrator.errors import Refused


class Status(StrEnum):
    """Where an agent is in its life; an unborn one (its spawn still queued) has none."""

    IDLE = "idle"
    WORKING = "working"
    WAITING = "waiting"
    PAUSED = "paused"
    TERMINATED = "terminated"


class Verb(StrEnum):
    """What can happen to an agent. Callers send the commands among them; events know all but settle."""

    SPAWN = "spawn"
    WORK = "work"
    WAIT = "wait"
    REST = "rest"
    PAUSE = "pause"
    RESUME = "resume"
    TERMINATE = "terminate"
    UPDATE = "update"
    SETTLE = "settle"


IDLE, WORKING, WAITING, PAUSED, TERMINATED = Status

MOVES: dict[Verb, dict[Status | None, Status]] = {
    Verb.SPAWN: {None: IDLE},
    Verb.WORK: {IDLE: WORKING, WAITING: WORKING},
    Verb.WAIT: {WORKING: WAITING},
    Verb.REST: {WORKING: IDLE, WAITING: IDLE},
    Verb.PAUSE: dict.fromkeys((IDLE, WORKING, WAITING), PAUSED),
    Verb.RESUME: {PAUSED: IDLE},
    Verb.TERMINATE: dict.fromkeys((IDLE, WORKING, WAITING, PAUSED), TERMINATED),
}
"""Every change of status there is, keyed by verb. `update` and `settle` are absent: they move by one of
the others, or not at all."""

COMMANDS = (Verb.SPAWN, Verb.PAUSE, Verb.RESUME, Verb.TERMINATE, Verb.UPDATE)
"""The verbs a caller can send."""

SYSTEM_COMMANDS = (Verb.SETTLE,)
"""The verbs only the system sends: settle says that the process behind an agent stands still, or is gone."""

EVENTS = tuple(verb for verb in Verb if verb not in SYSTEM_COMMANDS)
"""The verbs an event can have."""

_EDGES: dict[tuple[Status | None, Status], Verb] = {
    (before, after): verb for verb, moves in MOVES.items() for before, after in moves.items()
}


def move(status: Status | None, verb: Verb) -> Status:
    """Where `verb` takes an agent that is in `status`; raises Refused where the table has no edge."""
    try:
        return MOVES[verb][status]
    except KeyError:
        raise refusal(status, f"cannot {verb} an agent that is {status or 'not born yet'}") from None


def edge(status: Status | None, target: Status) -> Verb:
    """The verb that takes an agent from `status` to `target`; raises Refused where there is none."""
    try:
        return _EDGES[status, target]
    except KeyError:
        raise refusal(status, f"an agent that is {status or 'not born yet'} cannot become {target}") from None


def reachable(status: Status | None) -> list[Status]:
    """The statuses one move away from `status`, in the order of `Status`."""
    return [target for target in Status if (status, target) in _EDGES]


def sendable(status: Status | None) -> list[Verb]:
    """The verbs that a caller can send and that lead from `status` to another, in the order of COMMANDS."""
    return [verb for verb in COMMANDS if status in MOVES.get(verb, {})]


def refuse_update(status: Status | None) -> Refused:
    """The refusal of an update that a terminated agent gets, whatever the update says."""
    return refusal(status, f"an agent that is {status} cannot be updated")


def edges() -> list[tuple[Verb, Status | None, Status]]:
    """Every move as (verb, before, after), in table order."""
    return [(_EDGES[b, a], b, a) for b, a in product((None, *Status), Status) if (b, a) in _EDGES]


def refusal(status: Status | None, why: str) -> Refused:
    """The refusal that says why, and what is possible from `status`."""
    allowed = [str(target) for target in reachable(status)]
    possible = f"possible now: {', '.join(allowed)}" if allowed else "nothing is possible any more"
    return Refused(f"{why}; {possible}", field="status", current_status=status and str(status), allowed=allowed)
