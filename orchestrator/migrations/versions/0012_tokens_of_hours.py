"""Tokens of an hour: as many as an agent's sums can hold, so that no report makes a batch fail."""

import sqlalchemy as sa
from alembic import op

revision = '0012'
down_revision = '0011'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column('usage_hours', 'tokens', type_=sa.Numeric(30, 0))


def downgrade() -> None:
    op.alter_column('usage_hours', 'tokens', type_=sa.BigInteger())
