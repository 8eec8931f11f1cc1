"""API keys: who is calling. Only the SHA-256 of a key is kept; it is random, so a slow hash would add nothing."""

import secrets
import time
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text
from uuid_utils.compat import uuid7

from orchestrator.errors import Forbidden, Unauthenticated

CACHE_SECONDS = 1.0
"""How long a revoked key may live on in a process that has just used it."""

CACHE_SIZE = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """The user behind a request, and the key it came with."""

    user_id: UUID
    email: str
    is_superuser: bool
    is_active: bool
    key_id: UUID
    key_name: str
    key_prefix: str


_LOOK_UP = text("""
    SELECT u.id AS user_id, u.email, u.is_superuser, u.is_active, k.id AS key_id, k.name AS key_name,
        k.prefix AS key_prefix,
        coalesce(k.last_used_at < now() - interval '1 minute', true) AS stale
    FROM api_keys k JOIN users u ON u.id = k.user_id
    WHERE k.hash = :hash AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
""")

_TOUCH = text("""
    UPDATE api_keys SET last_used_at = now()
    WHERE id = (SELECT id FROM api_keys WHERE id = :id FOR UPDATE SKIP LOCKED)
""")

_INSERT = text("""
    INSERT INTO api_keys (id, user_id, name, prefix, hash, expires_at)
    VALUES (:id, :user, :name, :prefix, :hash, :expires_at)
    RETURNING id, name, prefix, user_id, expires_at, created_at
""")


class KeyRing:
    """The callers this process has seen within the last second, by the hash of their key."""

    def __init__(self) -> None:
        self._seen: dict[bytes, tuple[float, Caller]] = {}
        self._lock = Lock()

    def recall(self, key: str) -> Caller | None:
        """The caller, if this process looked the key up less than a second ago."""
        with self._lock:
            until, caller = self._seen.get(_digest(key), (0.0, None))
        return caller if time.monotonic() < until else None

    def look_up(self, db: Connection, key: str) -> Caller:
        """The caller behind a key, from the database.

        Raises Unauthenticated when it is unknown, revoked or expired, Forbidden when its user is inactive.
        """
        began = time.monotonic()
        row = db.execute(_LOOK_UP, {"hash": _digest(key)}).mappings().one_or_none()
        if row is None:
            raise Unauthenticated
        caller = Caller(**{name: row[name] for name in Caller.__slots__})
        if not caller.is_active:
            raise Forbidden(f"user {caller.user_id} is inactive")
        if row["stale"]:
            db.execute(_TOUCH, {"id": caller.key_id})
        self._remember(_digest(key), began + CACHE_SECONDS, caller)
        return caller

    def _remember(self, digest: bytes, until: float, caller: Caller) -> None:
        with self._lock:
            if len(self._seen) >= CACHE_SIZE:
                self._seen.clear()
            self._seen[digest] = (until, caller)


def issue(db: Connection, user_id: UUID, name: str, expires_at: Any = None) -> tuple[Row[Any], str]:
    """A new key for a user: its row, and the secret, which is nowhere else from now on."""
    prefix = secrets.token_hex(4)
    key = f"orch_{prefix}_{secrets.token_urlsafe(32)}"
    values = {"id": uuid7(), "user": user_id, "name": name, "prefix": prefix, "hash": _digest(key)}
    return db.execute(_INSERT, values | {"expires_at": expires_at}).one(), key


def _digest(key: str) -> bytes:
    return sha256(key.encode(errors="surrogateescape")).digest()
