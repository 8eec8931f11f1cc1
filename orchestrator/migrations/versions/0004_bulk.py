"""Bulk commands: whose turn it is, how far a batch has come; and agents by their type."""

import sqlalchemy as sa
from alembic import op

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None


def upgrade() -> None:
    # No batch was ever written before.
    op.add_column('batches', sa.Column('actor_id', sa.Uuid(), nullable=False))
    op.add_column('batches', sa.Column('end_turn', sa.Double(), nullable=False))
    op.create_index('ix_batches_end_turn', 'batches', ['end_turn'], unique=False)
    op.create_index('ix_batches_project', 'batches', ['project_id', 'end_turn'], unique=False)
    op.create_index('ix_commands_batch', 'commands', ['batch_id', 'state'], unique=False,
        postgresql_where=sa.text("batch_id IS NOT NULL AND state <> 'applied'"))
    op.create_index('ix_agents_type_page', 'agents', ['project_id', 'agent_type_id', 'created_at', 'id'], unique=False,
        postgresql_include=['status'])


def downgrade() -> None:
    op.drop_index('ix_agents_type_page', table_name='agents')
    op.drop_index('ix_commands_batch', table_name='commands')
    op.drop_index('ix_batches_project', table_name='batches')
    op.drop_index('ix_batches_end_turn', table_name='batches')
    op.drop_column('batches', 'end_turn')
    op.drop_column('batches', 'actor_id')
