"""Bugs after which all books balance: what comes late, is refused for nothing, or told otherwise than it was."""

import random
import time
from typing import Any

from tests.chaos.planting import Bug, rewritten, wrapped


def _refuse(original: Any, db: Any, caller: Any, project: Any, agent: Any, *given: Any, **named: Any) -> Any:
    from orchestrator.errors import no_agent  # noqa: PLC0415

    if random.random() < 0.05:  # noqa: S311
        raise no_agent(agent)
    return original(db, caller, project, agent, *given, **named)


def _forget_what_was_asked(original: Any, db: Any, caller: Any, once: Any) -> Any:
    from orchestrator.errors import KeyReused  # noqa: PLC0415

    found = original(db, caller, once)
    if found is not None and random.random() < 0.3:  # noqa: S311
        raise KeyReused
    return found


def _take_long(original: Any, *given: Any, **named: Any) -> Any:
    if random.random() < 0.03:  # noqa: S311
        time.sleep(5)
    return original(*given, **named)


def _sign_nothing(original: Any, changes: Any) -> Any:
    return [row | {"reason": None, "actor_id": None} for row in original(changes)]


def _see_nobody(original: Any, lease: Any) -> Any:
    from orchestrator.stops import Cause  # noqa: PLC0415

    return original(lease) or Cause.NO_LEASE


def _lose_early(lease_tables: Any) -> None:
    lease_tables.LOST_AT = "(l.beat_at + make_interval(secs => l.ttl * 0.3))"
    lease_tables.LIVE = f"(l.ended_at IS NULL AND {lease_tables.LOST_AT} > clock_timestamp())"


def _say_nothing(original: Any, *_: Any) -> None:
    del original


def _find_no_holds(original: Any, db: Any) -> list[Any]:
    del original, db
    return []


_DYING = ("kill at claimed", "kill at written", "worker child killed")

BUGS: dict[str, Bug] = {
    "who is suspected waits": Bug(
        {
            "orchestrator.suspects": rewritten(
                "_NAME",
                ("(agent_id, last_seq)\n", "(agent_id, last_seq, due_at)\n"),
                ("coalesce(mail.last_seq, 0)\n", "coalesce(mail.last_seq, 0), now() + interval '25 s'\n"),
            )
        },
        "late",
        _DYING,
    ),
    "a door is slow": Bug({"orchestrator.accept": wrapped("accept", _take_long)}, "tardy"),
    "refused for nothing": Bug({"orchestrator.accept": wrapped("accept", _refuse)}, "refused"),
    "keys are forgotten at times": Bug(
        {"orchestrator.idempotency": wrapped("earlier", _forget_what_was_asked)}, "idempotency"
    ),
    "nobody signs events": Bug({"orchestrator.record": wrapped("_event_rows", _sign_nothing)}, "signed"),
    "nobody is waited for": Bug({"orchestrator.stops": wrapped("_still", _see_nobody)}, "causes"),
    "leases are lost early": Bug({"orchestrator.lease_tables": _lose_early}, "causes"),
    "two get one name": Bug(
        {
            "orchestrator.accept": rewritten(
                "_RESERVE_NAME",
                ("pg_advisory_xact_lock(hashtextextended(:project || '/' || :name, 0))", "length(:project || :name)"),
            )
        },
        "names",
    ),
    "batches are not announced": Bug(
        {"orchestrator.announcements": wrapped("announce", _say_nothing)}, "dead", ("poisoned",)
    ),
    "hours miss tokens": Bug(
        {
            "orchestrator.ledger": rewritten(
                "_FOLD", ("input_tokens = k.input_tokens + excluded.input_tokens", "input_tokens = k.input_tokens")
            )
        },
        "books",
    ),
    "holds never end": Bug({"orchestrator.timers": wrapped("_due_holds", _find_no_holds)}, "overdue"),
}
