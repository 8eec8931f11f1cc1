"""What is thrown away, and when. Events and the ledger are kept for good."""

from sqlalchemy import Connection, text

COMMANDS_KEPT = "30 days"
REQUESTS_KEPT = "2 days"
"""Promised: at least 24 hours."""

SLICE = 5_000
"""Rows of each kind deleted at a time: the transaction stays short however much has come together."""

# A stop that is still waited for is yet to say that its command is quiesced.
_COMMANDS = text(f"""
    DELETE FROM commands WHERE id IN (
        SELECT c.id FROM commands c
        WHERE c.closed_at < now() - interval '{COMMANDS_KEPT}'
            AND NOT EXISTS (SELECT FROM agents a WHERE a.id = c.agent_id AND a.stop -> 'commands' ? c.id::text)
        LIMIT :slice)
""")
_REQUESTS = text(f"""
    DELETE FROM requests WHERE (user_id, key) IN (
        SELECT user_id, key FROM requests WHERE created_at < now() - interval '{REQUESTS_KEPT}' LIMIT :slice)
""")
_TOKENS = text("""
    DELETE FROM lease_tokens WHERE hash IN (
        SELECT hash FROM lease_tokens WHERE ended_at < now() - interval '1 day' LIMIT :slice)
""")
_SESSIONS = text("""
    DELETE FROM api_keys WHERE id IN (
        SELECT id FROM api_keys WHERE kind <> 'key' AND expires_at < now() - interval '1 day' LIMIT :slice)
""")
# The newest stays: it tells where the turns have got to.
_BATCHES = text(f"""
    DELETE FROM batches WHERE id IN (
        SELECT b.id FROM batches b WHERE b.created_at < now() - interval '{COMMANDS_KEPT}'
            AND b.end_turn < (SELECT max(end_turn) FROM batches)
            AND NOT EXISTS (SELECT FROM commands c WHERE c.batch_id = b.id AND c.state <> 'applied')
        LIMIT :slice)
""")


def prune(db: Connection) -> dict[str, int]:
    """Delete a slice of what is older than it need be; how many rows of each kind, 0 when none are left."""
    kinds = {
        "commands": _COMMANDS,
        "requests": _REQUESTS,
        "batches": _BATCHES,
        "tokens": _TOKENS,
        "sessions": _SESSIONS,
    }
    return {kind: db.execute(statement, {"slice": SLICE}).rowcount for kind, statement in kinds.items()}
