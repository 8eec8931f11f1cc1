"""Bugs of the doors: how commands, batches, usage and beats are taken, and how many of them."""

import random
from typing import Any

from tests.chaos.planting import RARELY, Bug, all_of, rarely, rewritten, wrapped


def _forget_command(original: Any, db: Any, *given: Any, **named: Any) -> Any:
    from sqlalchemy import text  # noqa: PLC0415

    accepted = original(db, *given, **named)
    if not accepted.replayed and rarely():
        db.execute(text("DELETE FROM commands WHERE id = :id"), {"id": accepted.command.id})
    return accepted


def _ring_first(original: Any, *given: Any, **named: Any) -> Any:
    from workers import bell  # noqa: PLC0415

    bell.ring_now()
    return original(*given, **named)


def _ring_no_more(answers: Any) -> None:
    from types import SimpleNamespace  # noqa: PLC0415

    answers.bell = SimpleNamespace(ring=lambda: None)


def _never(original: Any) -> bool:
    del original
    return False


def _key_afterwards(original: Any, db: Any, caller: Any, *given: Any, once: Any = None, **named: Any) -> Any:
    """The door commits each statement by itself: the command is there before its key is."""
    from orchestrator import accept, idempotency  # noqa: PLC0415

    if once is None or (replayed := accept.replay(db, caller, once)) is None:
        accepted = original(db, caller, *given, once=None, **named)
        idempotency.claim(db, caller, once, command_id=accepted.command.id)
        return accepted
    return replayed


def _ignore_fingerprint(original: Any, db: Any, caller: Any, once: Any) -> Any:
    from sqlalchemy import text  # noqa: PLC0415

    from orchestrator.errors import KeyReused  # noqa: PLC0415

    try:
        return original(db, caller, once)
    except KeyReused:
        found = text("SELECT * FROM requests WHERE user_id = :user AND key = :key")
        return db.execute(found, {"user": caller.user_id, "key": once.key}).one()


def _ignore_keys(name: str) -> Any:
    def change(module: Any) -> None:
        statements = getattr(module, name)
        statements[True] = statements[False]

    return change


def _requeue(original: Any, db: Any, *given: Any, **named: Any) -> Any:
    from sqlalchemy import text  # noqa: PLC0415

    row, replayed = original(db, *given, **named)
    db.execute(text("UPDATE commands SET state = 'queued', closed_at = NULL WHERE id = :id"), {"id": row.id})
    return row, replayed


def _bind_late(module: Any) -> None:
    module._ACCEPT_AND_FENCE = module._ACCEPT


def _take_any_status(original: Any, wanted: Any) -> Any:
    from dataclasses import replace  # noqa: PLC0415

    return original(replace(wanted, status=None))


def _leave_some_out(original: Any, wanted: Any) -> str:
    return f"{original(wanted)} AND random() > {RARELY}"


def _miss_an_item(original: Any, *given: Any) -> Any:
    from dataclasses import replace  # noqa: PLC0415

    receipt = original(*given)
    return replace(receipt, items=receipt.items[1:]) if random.random() < 0.2 else receipt  # noqa: S311


def _forget_a_beat(lease_schemas: Any) -> None:
    many = lease_schemas.ManyTold
    validate = many.model_validate
    many.model_validate = lambda given: validate({"data": given["data"][1:]})


def _call_all_new(original: Any, *given: Any) -> Any:
    from dataclasses import replace  # noqa: PLC0415

    taken = original(*given)
    return replace(taken, accepted=taken.accepted + taken.duplicates, duplicates=0)


def _count_in_this_process(original: Any, action: Any, who: Any) -> Any:
    del original
    from orchestrator.limits import _Shares, limits  # noqa: PLC0415

    limit = limits()[action]
    shares = _OWN.setdefault("shares", _Shares(1))
    return None if limit is None else shares.spend(limit, who)


_OWN: dict[str, Any] = {}

_BEATING = ("_BEAT", "_BEAT_MANY")
_LOST_ANSWERS = ("door's answer lost",)
_LONG_QUEUES = ("worker frozen", "worker child frozen")

BUGS: dict[str, Bug] = {
    "answered before commit": Bug({"orchestrator.accept": wrapped("accept", _forget_command)}, "lost"),
    # A sweep would heal it within two seconds, and nothing is promised to be sooner.
    "rung before commit, and no sweep": Bug(
        {
            "orchestrator.accept": all_of(wrapped("accept", _ring_first), wrapped("spawn", _ring_first)),
            "web.answers": _ring_no_more,
            "workers.tasks": wrapped("ring_for_overdue", _never),
        },
        "lost",
    ),
    "no unique key": Bug({"orchestrator.accept": _ignore_keys("_ACCEPT")}, "duplicated", _LOST_ANSWERS),
    "no unique key of a spawn": Bug({"orchestrator.accept": _ignore_keys("_SPAWN")}, "duplicated", _LOST_ANSWERS),
    "key in another transaction": Bug(
        {"orchestrator.accept": wrapped("accept", _key_afterwards)}, "duplicated", _LOST_ANSWERS
    ),
    "fingerprint ignored": Bug({"orchestrator.idempotency": wrapped("earlier", _ignore_fingerprint)}, "reuse"),
    "cancelled but applied": Bug({"orchestrator.accept": wrapped("cancel", _requeue)}, "answers", _LONG_QUEUES),
    "a stop binds late": Bug({"orchestrator.accept": _bind_late}, "leases"),
    "a filter takes others": Bug({"orchestrator.matching": wrapped("_more", _take_any_status)}, "matching"),
    "a filter leaves some out": Bug({"orchestrator.matching": wrapped("_more", _leave_some_out)}, "matching"),
    "a list misses an item": Bug({"orchestrator.bulk": wrapped("_receipt", _miss_an_item)}, "bulk"),
    "many beats, one forgotten": Bug({"web.lease_schemas": _forget_a_beat}, "beats"),
    "every beat acknowledges": Bug(
        {"orchestrator.beats": all_of(*(rewritten(name, ("mine.ack THEN", "true THEN")) for name in _BEATING))}, "still"
    ),
    "usage is new again": Bug({"orchestrator.ledger": wrapped("take", _call_all_new)}, "entries"),
    "limits in memory": Bug({"orchestrator.limits": wrapped("spend", _count_in_this_process)}, "limits"),
}
