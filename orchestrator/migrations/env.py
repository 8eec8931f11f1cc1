"""Alembic's entry: runs the migrations on the connection `bootstrap` hands over."""

from alembic import context

from orchestrator.models import agents

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=agents.metadata,
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
