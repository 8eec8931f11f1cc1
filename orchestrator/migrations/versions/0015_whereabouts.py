"""Where the database was at its last start: a new era begins where it is elsewhere."""

import sqlalchemy as sa
from alembic import op

revision = '0015'
down_revision = '0014'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('whereabouts',
        sa.Column('place', sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint('place', name=op.f('pk_whereabouts')))


def downgrade() -> None:
    op.drop_table('whereabouts')
