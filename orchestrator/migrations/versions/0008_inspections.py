"""Inspections: what the light pass over the invariants has found so far, for a counter."""

import sqlalchemy as sa
from alembic import op

revision = '0008'
down_revision = '0007'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('inspections',
        sa.Column('invariant', sa.Text(), nullable=False),
        sa.Column('violations', sa.BigInteger(), server_default='0', nullable=False),
        sa.Column('at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
        sa.PrimaryKeyConstraint('invariant', name=op.f('pk_inspections')))


def downgrade() -> None:
    op.drop_table('inspections')
