"""API keys: who is calling. Only the SHA-256 of a key is kept; it is random, so a slow hash would add nothing."""

import secrets
import time
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, TextClause, text
from uuid_utils.compat import uuid7

from orchestrator.errors import Forbidden, Unauthenticated
from orchestrator.lease_tables import LOST_AT
from orchestrator.states import KeyKind

CACHE_SECONDS = 1.0
"""How long a revoked key may live on in a process that has just used it."""

TENURE_CACHE_SECONDS = 60.0
"""The same for the token of a lease, whose epoch is looked at with every use: so long can a user who has been made
inactive be answerable for it."""

CACHE_SIZE = 10_000

PREFIXES = {KeyKind.KEY: "orch_", KeyKind.SESSION: "orchs_", KeyKind.LINK: "oncein_"}
"""How each kind of secret begins; that of a session is no key for the API."""

TOKEN_PREFIX = "orchl_"  # noqa: S105  # how the token of a lease begins is no secret
TOKEN_OUTLIVES = "1 hour"  # noqa: S105  # nor is how long after its lease it is good for usage


@dataclass(frozen=True, slots=True)
class Tenure:
    """What the token of a lease stands for: one agent, one epoch."""

    agent_id: UUID
    project_id: UUID
    epoch: int


@dataclass(frozen=True, slots=True)
class Caller:
    """The user behind a request, and the key it came with; or, with a tenure, the process of an agent, and the user who
    took the lease for it."""

    user_id: UUID
    email: str
    is_superuser: bool
    is_active: bool
    key_id: UUID | None
    key_name: str
    key_prefix: str
    tenure: Tenure | None = None


ALIVE = """(
    k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
    AND NOT EXISTS (SELECT FROM api_keys parent WHERE parent.id = k.parent_id AND parent.revoked_at IS NOT NULL)
)"""
"""Whether a key `k` is good, as SQL: what was begun with another one ends with it."""

_LOOK_UP = text(f"""
    SELECT u.id AS user_id, u.email, u.is_superuser, u.is_active, k.id AS key_id, k.name AS key_name,
        k.prefix AS key_prefix,
        coalesce(k.last_used_at < now() - interval '1 minute', true) AS stale
    FROM api_keys k JOIN users u ON u.id = k.user_id
    WHERE k.hash = :hash AND k.kind = :kind AND {ALIVE}
""")

_LOOK_UP_TOKEN = text(f"""
    SELECT u.id AS user_id, u.email, u.is_superuser, u.is_active, NULL AS key_id, 'lease' AS key_name, '' AS key_prefix,
        t.agent_id, l.project_id, t.epoch, false AS stale
    FROM lease_tokens t JOIN users u ON u.id = t.user_id JOIN leases l ON l.agent_id = t.agent_id
    WHERE t.hash = :hash AND coalesce(t.ended_at, l.ended_at, {LOST_AT}) > now() - interval '{TOKEN_OUTLIVES}'
""")

_TOUCH = text("""
    UPDATE api_keys SET last_used_at = now()
    WHERE id = (SELECT id FROM api_keys WHERE id = :id FOR UPDATE SKIP LOCKED)
""")

_INSERT = text("""
    INSERT INTO api_keys (id, user_id, name, prefix, hash, expires_at, kind, parent_id)
    VALUES (:id, :user, :name, :prefix, :hash, :expires_at, :kind, :parent)
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
            until, caller = self._seen.get(digest(key), (0.0, None))
        return caller if time.monotonic() < until else None

    def look_up(self, db: Connection, key: str) -> Caller:
        """The caller behind a key, a session or the token of a lease, from the database. Raises as `who` does."""
        began = time.monotonic()
        is_session = key.startswith(PREFIXES[KeyKind.SESSION])
        kind = KeyKind.SESSION if is_session else KeyKind.KEY
        caller = _look_up(db, _LOOK_UP_TOKEN, key) if key.startswith(TOKEN_PREFIX) else who(db, key, kind)
        good_for = CACHE_SECONDS if caller.tenure is None else TENURE_CACHE_SECONDS
        self._remember(digest(key), began + good_for, caller)
        return caller

    def _remember(self, digest: bytes, until: float, caller: Caller) -> None:
        with self._lock:
            if len(self._seen) >= CACHE_SIZE:
                self._seen.clear()
            self._seen[digest] = (until, caller)


def who(db: Connection, key: str, kind: KeyKind) -> Caller:
    """The caller behind a secret of this kind.

    Raises Unauthenticated when it is unknown, revoked or expired, Forbidden when its user is inactive.
    """
    return _look_up(db, _LOOK_UP, key, kind=kind.value)


def issue(
    db: Connection,
    user_id: UUID,
    name: str,
    expires_at: Any = None,
    kind: KeyKind = KeyKind.KEY,
    parent_id: UUID | None = None,
) -> tuple[Row[Any], str]:
    """A new key for a user: its row, and the secret, which is nowhere else from now on. It ends with its parent."""
    prefix = secrets.token_hex(4)
    key = f"{PREFIXES[kind]}{prefix}_{secrets.token_urlsafe(32)}"
    values = {"id": uuid7(), "user": user_id, "name": name, "prefix": prefix, "hash": digest(key)}
    more = {"expires_at": expires_at, "kind": kind.value, "parent": parent_id}
    return db.execute(_INSERT, values | more).one(), key


def _look_up(db: Connection, sought: TextClause, key: str, **more: str) -> Caller:
    row = db.execute(sought, {"hash": digest(key)} | more).mappings().one_or_none()
    if row is None:
        raise Unauthenticated
    caller = _caller(dict(row))
    if not caller.is_active:
        raise Forbidden(f"user {caller.user_id} is inactive")
    if row["stale"]:
        db.execute(_TOUCH, {"id": caller.key_id})
    return caller


def _caller(row: dict[str, Any]) -> Caller:
    names = {slot for slot in Caller.__slots__ if slot != "tenure"}
    tenure = Tenure(row["agent_id"], row["project_id"], row["epoch"]) if "epoch" in row else None
    return Caller(**{name: row[name] for name in names}, tenure=tenure)


def digest(key: str) -> bytes:
    """What is kept of a key or a token."""
    return sha256(key.encode(errors="surrogateescape")).digest()
