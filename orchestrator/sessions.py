"""Sessions of the console: kept like keys, which they are, but for a browser's cookie, and they end by themselves."""

from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from orchestrator import keys
from orchestrator.errors import Unauthenticated
from orchestrator.keys import Caller
from orchestrator.states import KeyKind

SESSION_HOURS = 12
LINK_MINUTES = 10

_UNTIL = text(f"""
    SELECT least(now() + interval '{SESSION_HOURS} hours', (SELECT expires_at FROM api_keys WHERE id = :parent))
""")
_LINK_UNTIL = text(f"SELECT now() + interval '{LINK_MINUTES} minutes'")
_REDEEM = text("""
    UPDATE api_keys k SET revoked_at = now() FROM users u
    WHERE k.hash = :hash AND k.kind = 'link' AND k.revoked_at IS NULL AND k.expires_at > now()
        AND u.id = k.user_id AND u.is_active
    RETURNING k.user_id
""")
_END = text("UPDATE api_keys SET revoked_at = now() WHERE id = :id AND kind = 'session' AND revoked_at IS NULL")


class Session(NamedTuple):
    """A session that has begun: the secret for the cookie, and for how many seconds it is good."""

    secret: str
    seconds: int


def begin(db: Connection, user_id: UUID, key_id: UUID | None = None) -> Session:
    """A session of this user; where it was begun with an API key, it ends with it."""
    until = db.execute(_UNTIL, {"parent": key_id}).scalar_one()
    row, secret = keys.issue(db, user_id, "console", until, KeyKind.SESSION, key_id)
    return Session(secret, round((until - row.created_at).total_seconds()))


def sign_in(db: Connection, key: str) -> Session:
    """A session begun with an API key. Raises Unauthenticated, Forbidden as `keys.who` does."""
    caller = keys.who(db, key, KeyKind.KEY)
    return begin(db, caller.user_id, caller.key_id)


def link(db: Connection, user_id: UUID) -> str:
    """A token that is good for one session, within ten minutes."""
    until = db.execute(_LINK_UNTIL).scalar_one()
    return keys.issue(db, user_id, "sign-in link", until, KeyKind.LINK)[1]


def redeem(db: Connection, token: str) -> Session:
    """The session that a link is good for. Raises Unauthenticated where it has been used, or is too old."""
    user_id = db.execute(_REDEEM, {"hash": keys.digest(token)}).scalar_one_or_none()
    if user_id is None:
        raise Unauthenticated("this link has been used, or is older than ten minutes; sign in with an API key")
    return begin(db, user_id)


def end(db: Connection, caller: Caller) -> None:
    """Sign out."""
    db.execute(_END, {"id": caller.key_id})
