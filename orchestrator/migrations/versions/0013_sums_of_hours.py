"""Hours of usage hold all that is summed up of it, and stay: they answer what used to be read from the ledger."""

import sqlalchemy as sa
from alembic import op

revision = '0013'
down_revision = '0012'
branch_labels = None
depends_on = None

SUMS = ('input_tokens', 'output_tokens', 'cache_read_tokens', 'cache_write_tokens', 'tasks_completed')


def upgrade() -> None:
    for name in SUMS:
        op.add_column('usage_hours', sa.Column(name, sa.Numeric(30, 0), server_default=sa.text('0'), nullable=False))
    op.drop_column('usage_hours', 'tokens')
    op.drop_index('ix_usage_hours_hour', table_name='usage_hours')
    op.create_index('ix_usage_hours_apart', 'usage_hours', ['hour'], postgresql_where=sa.text('slot <> -1'))
    # The ledger is asked once more. Whoever counts meanwhile waits for the table, and adds to what is made here.
    op.execute('DELETE FROM usage_hours')
    op.execute(f"""
        INSERT INTO usage_hours (project_id, hour, model, agent_type_id, slot, entries, unpriced, {', '.join(SUMS)}, cost)
        SELECT e.project_id, date_trunc('hour', e.occurred_at, 'UTC'), coalesce(e.model, ''), a.agent_type_id, -1,
            count(*), count(*) FILTER (WHERE e.cost IS NULL AND e.input_tokens + e.output_tokens > 0),
            {', '.join(f'sum(e.{name})' for name in SUMS)}, coalesce(sum(e.cost), 0)
        FROM usage_entries e JOIN agents a ON a.id = e.agent_id WHERE e.folded GROUP BY 1, 2, 3, 4
    """)


def downgrade() -> None:
    op.drop_index('ix_usage_hours_apart', table_name='usage_hours')
    op.create_index('ix_usage_hours_hour', 'usage_hours', ['hour'])
    op.add_column('usage_hours', sa.Column('tokens', sa.Numeric(30, 0), server_default=sa.text('0'), nullable=False))
    op.execute('UPDATE usage_hours SET tokens = input_tokens + output_tokens')
    for name in SUMS:
        op.drop_column('usage_hours', name)
