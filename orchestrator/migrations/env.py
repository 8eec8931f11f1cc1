"""Alembic's entry: runs the migrations on the connection `bootstrap` hands over."""

from alembic import context

from orchestrator import (  # noqa: F401  # their tables
    announcements,
    books,
    eras,
    inspection,
    lease_tables,
    models,
    rollup_tables,
    suspects,
)
from orchestrator.columns import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
