"""What is thrown away, and when. Events and the ledger are kept for good."""

from sqlalchemy import Connection, text

COMMANDS_KEPT = "30 days"
REQUESTS_KEPT = "2 days"
"""Promised: at least 24 hours."""

_COMMANDS = text(f"""
    DELETE FROM commands
    WHERE closed_at < now() - interval '{COMMANDS_KEPT}' AND created_at < now() - interval '{COMMANDS_KEPT}'
""")
_REQUESTS = text(f"DELETE FROM requests WHERE created_at < now() - interval '{REQUESTS_KEPT}'")


def prune(db: Connection) -> dict[str, int]:
    """Delete what is older than it need be; how many rows of each."""
    return {"commands": db.execute(_COMMANDS).rowcount, "requests": db.execute(_REQUESTS).rowcount}
