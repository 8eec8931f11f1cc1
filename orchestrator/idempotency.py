"""Idempotency keys: one caller, one key, one request, one effect."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, text

from orchestrator.errors import KeyReused
from orchestrator.keys import Caller
from orchestrator.rows import jsonb

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, slots=True)
class Once:
    """A client's Idempotency-Key, and the fingerprint of the request it came with."""

    key: str
    fingerprint: bytes


_REQUEST = text("SELECT * FROM requests WHERE user_id = :user AND key = :key")
_CLAIM = text("""
    INSERT INTO requests (user_id, key, fingerprint, command_id, batch_id, subject_id, answer)
    VALUES (:user, :key, :fingerprint, :command_id, :batch_id, :subject_id, :answer)
    ON CONFLICT DO NOTHING RETURNING key
""")
_ANSWER = text("UPDATE requests SET answer = :answer WHERE user_id = :user AND key = :key")


def earlier(db: Connection, caller: Caller, once: Once | None) -> Row[Any] | None:
    """The earlier request with this key, whatever it made; None where the key is free. Raises KeyReused."""
    if once is None:
        return None
    request = db.execute(_REQUEST, {"user": caller.user_id, "key": once.key}).one_or_none()
    if request is not None and bytes(request.fingerprint) != once.fingerprint:
        raise KeyReused
    return request


def used(db: Connection, caller: Caller, key: str | None) -> bool:
    """Whether this caller has used this key, for whatever request."""
    return key is not None and db.execute(_REQUEST, {"user": caller.user_id, "key": key}).one_or_none() is not None


def claim(db: Connection, caller: Caller, once: Once | None, **outcome: Any) -> Row[Any] | None:
    """Tie the key to what this request is about to make; the earlier request where there is one.

    `outcome` is one of command_id, batch_id, subject_id and answer. Waits for a request with the same key that is
    under way. Raises KeyReused.
    """
    if once is None:
        return None
    values: dict[str, Any] = dict.fromkeys(("command_id", "batch_id", "subject_id", "answer")) | outcome
    values |= {"user": caller.user_id, "key": once.key, "fingerprint": once.fingerprint}
    return None if db.execute(_CLAIM, values).one_or_none() else earlier(db, caller, once)


def remember(
    db: Connection, caller: Caller, once: Once | None, make: Callable[[], "DataclassInstance"]
) -> tuple[dict[str, Any], bool]:
    """What `make` answers, a dataclass of JSON values, as a dict; or what it answered to an earlier request with the
    same key; and which of the two."""
    before = claim(db, caller, once, answer=jsonb({}))
    if before is not None:
        return before.answer, True
    answer = asdict(make())
    if once is not None:
        db.execute(_ANSWER, {"user": caller.user_id, "key": once.key, "answer": jsonb(answer)})
    return answer, False
