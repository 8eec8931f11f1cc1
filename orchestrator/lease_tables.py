"""The tables of running processes: who may act as an agent, and the tokens they were given."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from orchestrator.columns import created, metadata, one_of, time
from orchestrator.states import LeaseEnd

LOST_AT = "(l.beat_at + make_interval(secs => l.ttl * 4.0 / 3))"
"""When a lease `l` that is not beaten again is lost, as SQL."""

LIVE = f"(l.ended_at IS NULL AND {LOST_AT} > clock_timestamp())"
"""Whether a lease `l` is live, as SQL: neither ended nor lost, whether or not anybody has noticed the loss."""

leases = Table(
    "leases",
    metadata,
    Column("agent_id", Uuid, primary_key=True),
    Column("project_id", Uuid, nullable=False),
    Column("epoch", BigInteger, nullable=False, server_default="0"),
    Column("id", Uuid),
    Column("holder", Text),
    Column("ttl", SmallInteger, nullable=False, server_default="0"),
    time("granted_at"),
    time("beat_at"),
    time("acked_at"),
    time("ended_at"),
    Column("ended_by", Text),
    Column("losses", ARRAY(DateTime(timezone=True)), nullable=False, server_default=text("'{}'")),
    one_of("ended_by", LeaseEnd, "ended_by"),
    CheckConstraint("(ended_at IS NULL) = (ended_by IS NULL)", name="ended"),
    CheckConstraint("ended_at IS NOT NULL OR num_nonnulls(id, holder, granted_at, beat_at) = 4", name="live"),
    # The epoch is part of a key, so that whoever raises it waits for a drain that has read it (FOR KEY SHARE), and a
    # beat, which does not, need not. With the lease's id, not the agent's: two that insert the first row of one agent
    # at once would meet in this index as well, where ON CONFLICT (agent_id) does not look, and deadlock.
    UniqueConstraint("id", "epoch", name="uq_leases_epoch"),
    Index("ix_leases_lost", "project_id", "ended_at", postgresql_where=text("ended_by = 'expiry'")),
    Index("ix_leases_live", "agent_id", postgresql_where=text("ended_at IS NULL")),
    postgresql_with={"fillfactor": "50"},
)
"""One row per agent that was ever leased, or fenced; it tells of the last lease. Beats change no indexed column."""

lease_tokens = Table(
    "lease_tokens",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("agent_id", Uuid, nullable=False),
    Column("user_id", Uuid, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    created(),
    time("ended_at"),
    UniqueConstraint("agent_id", "epoch", name="uq_lease_tokens_epoch"),
    Index("ix_lease_tokens_ended_at", "ended_at", postgresql_where=text("ended_at IS NOT NULL")),
)
"""One row per grant. `ended_at` is set by the grant that followed; of the last one the lease itself tells."""
