"""Eras: the feed's order survives a move of the database to another server, whose transactions are counted anew."""

from alembic import op

revision = '0009'
down_revision = '0008'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute('CREATE FUNCTION feed_position(xid8) RETURNS xid8 LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN $1')
    op.execute('ALTER TABLE events ALTER COLUMN xid SET DEFAULT feed_position(pg_current_xact_id())')


def downgrade() -> None:
    op.execute('ALTER TABLE events ALTER COLUMN xid SET DEFAULT pg_current_xact_id()')
    op.execute('DROP FUNCTION feed_position(xid8)')
