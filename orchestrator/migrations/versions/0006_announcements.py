"""Announcements: whom a batch is at, for when its process dies."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('announcements',
        sa.Column('batch', sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column('agents', postgresql.ARRAY(sa.Uuid()), nullable=False),
        sa.PrimaryKeyConstraint('batch', name=op.f('pk_announcements')),
        prefixes=['UNLOGGED'])


def downgrade() -> None:
    op.drop_table('announcements')
