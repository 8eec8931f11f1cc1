"""Indexes: pages of agents by what they alone know, and the oldest of an agent's usage that waits."""

import sqlalchemy as sa
from alembic import op

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None

UNFOLDED = sa.text('NOT folded')
BORN = sa.text('status IS NOT NULL')


def upgrade() -> None:
    for name in ('ix_agents_page', 'ix_agents_type_page', 'ix_agents_name'):
        op.drop_index(name, table_name='agents')
    op.create_index('ix_agents_page', 'agents', ['project_id', 'created_at', 'id'], unique=False,
        postgresql_where=BORN)
    op.create_index('ix_agents_type_page', 'agents', ['project_id', 'agent_type_id', 'status', 'created_at', 'id'],
        unique=False)
    op.create_index('ix_agents_name', 'agents', ['project_id', 'name'], unique=False,
        postgresql_ops={'name': 'text_pattern_ops'}, postgresql_include=['created_at', 'id'], postgresql_where=BORN)
    op.drop_index('ix_usage_entries_unfolded', table_name='usage_entries')
    op.create_index('ix_usage_entries_unfolded', 'usage_entries', ['agent_id', 'occurred_at'], unique=False,
        postgresql_where=UNFOLDED)


def downgrade() -> None:
    for name in ('ix_agents_page', 'ix_agents_type_page', 'ix_agents_name'):
        op.drop_index(name, table_name='agents')
    op.create_index('ix_agents_page', 'agents', ['project_id', 'created_at', 'id'], unique=False)
    op.create_index('ix_agents_type_page', 'agents', ['project_id', 'agent_type_id', 'created_at', 'id'], unique=False,
        postgresql_include=['status'])
    op.create_index('ix_agents_name', 'agents', ['project_id', 'name'], unique=False,
        postgresql_ops={'name': 'text_pattern_ops'})
    op.drop_index('ix_usage_entries_unfolded', table_name='usage_entries')
    op.create_index('ix_usage_entries_unfolded', 'usage_entries', ['agent_id'], unique=False,
        postgresql_where=UNFOLDED)
