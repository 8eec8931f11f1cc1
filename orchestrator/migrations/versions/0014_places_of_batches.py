"""Batches know their first and last command, and what was cancelled is in the index of what was not applied."""

import sqlalchemy as sa
from alembic import op

revision = '0014'
down_revision = '0013'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('batches', sa.Column('first_seq', sa.BigInteger(), nullable=True))
    op.add_column('batches', sa.Column('last_seq', sa.BigInteger(), nullable=True))
    op.execute("""
        UPDATE batches b SET first_seq = c.first, last_seq = c.last
        FROM (SELECT batch_id, min(seq) AS first, max(seq) AS last FROM commands GROUP BY batch_id) c
        WHERE c.batch_id = b.id
    """)
    op.drop_index('ix_commands_failed', table_name='commands')
    op.create_index('ix_commands_unapplied', 'commands', ['project_id', 'seq'],
        postgresql_where=sa.text("state NOT IN ('queued', 'applied')"))


def downgrade() -> None:
    op.drop_index('ix_commands_unapplied', table_name='commands')
    op.create_index('ix_commands_failed', 'commands', ['project_id', 'seq'],
        postgresql_where=sa.text("state IN ('rejected', 'dead')"))
    op.drop_column('batches', 'last_seq')
    op.drop_column('batches', 'first_seq')
