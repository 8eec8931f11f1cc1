"""The tables of the books: what was used, and what it comes to per project."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    LargeBinary,
    Numeric,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)

from orchestrator.columns import MONEY, created, metadata, time
from orchestrator.lifecycle import Status

usage_entries = Table(
    "usage_entries",
    metadata,
    Column("agent_id", Uuid, primary_key=True),
    Column("report_id", Text, primary_key=True),
    Column("project_id", Uuid, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    time("occurred_at", nullable=False),
    Column("provider", Text),
    Column("model", Text),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cache_read_tokens", BigInteger, nullable=False),
    Column("cache_write_tokens", BigInteger, nullable=False),
    Column("cost", Numeric(20, 10)),
    Column("cost_source", Text),
    Column("tasks_completed", BigInteger, nullable=False),
    Column("note", Text),
    Column("folded", Boolean, nullable=False, server_default=text("false")),
    created(),
    CheckConstraint("(cost IS NULL) = (cost_source IS NULL)", name="cost_source"),
    CheckConstraint(
        "input_tokens >= 0 AND output_tokens >= 0 AND cache_read_tokens >= 0 AND cache_write_tokens >= 0"
        " AND tasks_completed >= 0 AND (cost IS NULL OR cost >= 0)",
        name="amounts",
    ),
    Index("ix_usage_entries_unfolded", "agent_id", "occurred_at", postgresql_where=text("NOT folded")),
    Index("ix_usage_entries_waiting", "created_at", postgresql_where=text("NOT folded")),
    Index("ix_usage_entries_report", "project_id", "occurred_at"),
)

project_counters = Table(
    "project_counters",
    metadata,
    Column("project_id", Uuid, primary_key=True),
    Column("slot", SmallInteger, primary_key=True, autoincrement=False),
    *(Column(status.value, BigInteger, nullable=False, server_default="0") for status in Status),
    Column("tasks_completed", BigInteger, nullable=False, server_default="0"),
    Column("tokens_used", Numeric(30, 0), nullable=False, server_default="0"),
    Column("cost_incurred", MONEY, nullable=False, server_default="0"),
    postgresql_with={"fillfactor": "50"},
)
