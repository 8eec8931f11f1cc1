"""Suspects: agents of batches that failed, drained one command at a time."""

import sqlalchemy as sa
from alembic import op

revision = '0007'
down_revision = '0006'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('suspects',
        sa.Column('agent_id', sa.Uuid(), nullable=False),
        sa.Column('last_seq', sa.BigInteger(), nullable=False),
        sa.Column('due_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
        sa.PrimaryKeyConstraint('agent_id', name=op.f('pk_suspects')),
        prefixes=['UNLOGGED'])


def downgrade() -> None:
    op.drop_table('suspects')
