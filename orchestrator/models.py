"""The tables. What SQL can say about their truth, SQL says: CHECKs, unique keys, partial indexes."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    Numeric,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from orchestrator.columns import MONEY, Xid8, created, metadata, one_of, time
from orchestrator.lifecycle import COMMANDS, Status, Verb
from orchestrator.states import IssueStatus, ProjectStatus, State

users = Table(
    "users",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("email", Text, nullable=False, unique=True),
    Column("is_superuser", Boolean, nullable=False, server_default=text("false")),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    created(),
    CheckConstraint("email = lower(email)", name="email_lower"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, ForeignKey("users.id"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False, unique=True),
    time("expires_at"),
    time("revoked_at"),
    time("last_used_at"),
    created(),
)

projects = Table(
    "projects",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("slug", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("owner_id", Uuid, ForeignKey("users.id"), nullable=False, index=True),
    Column("status", Text, nullable=False, server_default=ProjectStatus.ACTIVE.value),
    created(),
    one_of("status", ProjectStatus, "status"),
)

agent_types = Table(
    "agent_types",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("slug", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    created(),
)

agents = Table(
    "agents",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("project_id", Uuid, ForeignKey("projects.id"), nullable=False),
    Column("agent_type_id", Uuid, ForeignKey("agent_types.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("status", Text),
    Column("version", BigInteger, nullable=False, server_default="0"),
    Column("current_task", Text),
    Column("short_term_memory", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("long_term_memory_ref", Text),
    Column("session_id", Text),
    time("last_activity_at"),
    time("terminated_at"),
    Column("tasks_completed", BigInteger, nullable=False, server_default="0"),
    Column("tokens_used", Numeric(30, 0), nullable=False, server_default="0"),
    Column("cost_incurred", MONEY, nullable=False, server_default="0"),
    created(),
    time("updated_at", nullable=False, server_default=func.now()),
    one_of("status", Status, "status"),
    CheckConstraint("(status IS NULL) = (version = 0)", name="born"),
    CheckConstraint("(status IS NOT DISTINCT FROM 'terminated') = (terminated_at IS NOT NULL)", name="terminated"),
    CheckConstraint("tasks_completed >= 0 AND tokens_used >= 0 AND cost_incurred >= 0", name="counters"),
    Index("ix_agents_page", "project_id", "created_at", "id"),
    Index("ix_agents_status_page", "project_id", "status", "created_at", "id"),
    Index("ix_agents_name", "project_id", "name", postgresql_ops={"name": "text_pattern_ops"}),
    postgresql_with={"fillfactor": "80"},
)

requests = Table(
    "requests",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("command_id", Uuid),
    Column("batch_id", Uuid),
    Column("subject_id", Uuid),
    Column("answer", JSONB),
    created(),
    Index("ix_requests_created_at", "created_at", postgresql_using="brin"),
    CheckConstraint("num_nonnulls(command_id, batch_id, subject_id, answer) = 1", name="one_outcome"),
)

commands = Table(
    "commands",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("seq", BigInteger, Identity(always=True), nullable=False),
    Column("lane", SmallInteger, nullable=False, server_default="0"),
    Column("turn", Double, nullable=False, server_default="0"),
    # No foreign keys: three of them double the time to accept, and let one held row tie up the door.
    # Accept selects from the tables they would name, nothing there is ever deleted, and `verify` looks for orphans.
    Column("project_id", Uuid, nullable=False),
    Column("agent_id", Uuid, nullable=False),
    Column("batch_id", Uuid),
    Column("verb", Text, nullable=False),
    Column("payload", JSONB, nullable=False),
    Column("state", Text, nullable=False, server_default=State.QUEUED.value),
    Column("reason", Text),
    Column("actor_type", Text, nullable=False, server_default="user"),
    Column("actor_id", Uuid),
    Column("precondition", BigInteger),
    Column("attempts", SmallInteger, nullable=False, server_default="0"),
    Column("error", JSONB),
    Column("version", BigInteger),
    Column("task_id", Text),
    created(),
    time("closed_at"),
    one_of("state", State, "state"),
    one_of("verb", COMMANDS, "verb"),
    CheckConstraint("(state = 'queued') = (closed_at IS NULL)", name="closed"),
    one_of("actor_type", ("user", "system"), "actor_type"),
    CheckConstraint("(actor_type = 'user') = (actor_id IS NOT NULL)", name="actor"),
    Index("ix_commands_queue", "lane", "turn", "seq", postgresql_where=text("state = 'queued'")),
    Index("ix_commands_mailbox", "agent_id", "seq", postgresql_where=text("state = 'queued'")),
    Index("ix_commands_page", "project_id", "seq"),
    Index("ix_commands_agent_page", "agent_id", "seq"),
    Index("ix_commands_closed_at", "closed_at", postgresql_using="brin", postgresql_with={"autosummarize": "on"}),
    postgresql_with={"fillfactor": "80"},
)

batches = Table(
    "batches",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("project_id", Uuid, nullable=False),
    Column("verb", Text),
    Column("filter", JSONB),
    Column("reason", Text),
    Column("total", BigInteger, nullable=False),
    created(),
)

events = Table(
    "events",
    metadata,
    Column("agent_id", Uuid, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("project_id", Uuid, nullable=False),
    Column("command_id", Uuid, nullable=False, unique=True),
    Column("verb", Text, nullable=False),
    Column("before", Text),
    Column("after", Text, nullable=False),
    Column("changes", JSONB, nullable=False),
    Column("actor_type", Text, nullable=False),
    Column("actor_id", Uuid),
    Column("reason", Text),
    time("at", nullable=False),
    Column("xid", Xid8, nullable=False, server_default=text("pg_current_xact_id()")),
    one_of("verb", tuple(Verb), "verb"),
    one_of("before", Status, "before"),
    one_of("after", Status, "after"),
    Index("ix_events_feed", "project_id", "xid", "agent_id", "version"),
)

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
    Index("ix_usage_entries_unfolded", "agent_id", postgresql_where=text("NOT folded")),
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

issues = Table(
    "issues",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("project_id", Uuid, ForeignKey("projects.id"), nullable=False),
    Column("title", Text, nullable=False),
    Column("body", Text),
    Column("status", Text, nullable=False, server_default=IssueStatus.OPEN.value),
    Column("assigned_agent_id", Uuid, ForeignKey("agents.id"), index=True),
    created(),
    one_of("status", IssueStatus, "status"),
    Index("ix_issues_page", "project_id", "created_at", "id"),
)
