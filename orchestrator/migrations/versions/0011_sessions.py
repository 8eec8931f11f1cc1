"""Sessions: how a browser signs in to the console, with a key or a link that is good for once."""

import sqlalchemy as sa
from alembic import op

revision = '0011'
down_revision = '0010'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('api_keys', sa.Column('kind', sa.Text(), server_default='key', nullable=False))
    op.add_column('api_keys', sa.Column('parent_id', sa.Uuid(), nullable=True))
    op.create_check_constraint(op.f('ck_api_keys_kind'), 'api_keys', "kind IN ('key', 'session', 'link')")
    op.create_check_constraint(op.f('ck_api_keys_ends'), 'api_keys', "kind = 'key' OR expires_at IS NOT NULL")


def downgrade() -> None:
    op.execute("DELETE FROM api_keys WHERE kind <> 'key'")
    op.drop_constraint(op.f('ck_api_keys_ends'), 'api_keys')
    op.drop_constraint(op.f('ck_api_keys_kind'), 'api_keys')
    op.drop_column('api_keys', 'parent_id')
    op.drop_column('api_keys', 'kind')
