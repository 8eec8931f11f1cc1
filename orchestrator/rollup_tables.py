"""The tables of the roll-ups: what the pictures are drawn from, so that no page reads through the events."""

from sqlalchemy import BigInteger, Column, Index, Numeric, SmallInteger, Table, Text, Uuid, text

from orchestrator.columns import MONEY, Xid8, metadata, time
from orchestrator.lifecycle import Status

TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
USED = ("entries", "unpriced", *TOKENS, "tasks_completed", "cost")
"""What is summed up of usage."""

TOGETHER = -1
"""The slot of an hour that is long over, in which all processes' have been summed up."""


def _counts() -> list[Column[int]]:
    return [Column(status.value, BigInteger, nullable=False, server_default="0") for status in Status]


rollups = Table(
    "rollups",
    metadata,
    Column("project_id", Uuid, primary_key=True),
    Column("xid", Xid8, nullable=False),
    Column("agent_id", Uuid, nullable=False),
    Column("version", BigInteger, nullable=False),
    *_counts(),
    postgresql_with={"fillfactor": "50"},
)
"""How far each project's feed has been rolled up (a place in it), and how many agents were in each status there."""

fleet_minutes = Table(
    "fleet_minutes",
    metadata,
    Column("project_id", Uuid, primary_key=True),
    time("minute", primary_key=True),
    *_counts(),
    Index("ix_fleet_minutes_minute", "minute"),
)
"""By how much the number of a project's agents in each status changed within a minute, where it did."""

latency_minutes = Table(
    "latency_minutes",
    metadata,
    Column("project_id", Uuid, primary_key=True),
    time("minute", primary_key=True),
    Column("bucket", SmallInteger, primary_key=True, autoincrement=False),
    Column("waiting", BigInteger, nullable=False, server_default="0"),
    Column("applying", BigInteger, nullable=False, server_default="0"),
    Column("whole", BigInteger, nullable=False, server_default="0"),
    Index("ix_latency_minutes_minute", "minute"),
)
"""How many of the commands that were applied within a minute took how long: a histogram of each part."""

usage_hours = Table(
    "usage_hours",
    metadata,
    Column("project_id", Uuid, primary_key=True),
    time("hour", primary_key=True),
    Column("model", Text, primary_key=True),
    Column("agent_type_id", Uuid, primary_key=True),
    Column("slot", SmallInteger, primary_key=True, autoincrement=False),
    Column("entries", BigInteger, nullable=False, server_default=text("0")),
    Column("unpriced", BigInteger, nullable=False, server_default=text("0")),
    *(Column(name, Numeric(30, 0), nullable=False, server_default=text("0")) for name in TOKENS),
    Column("tasks_completed", Numeric(30, 0), nullable=False, server_default=text("0")),
    Column("cost", MONEY, nullable=False, server_default=text("0")),
    Index("ix_usage_hours_apart", "hour", postgresql_where=text(f"slot <> {TOGETHER}")),
)
"""What was used within an hour, by model ('' where none was named), counted together with the agents' own sums, in the
slot of the process that counted it. `unpriced`: entries with tokens that named no cost."""
