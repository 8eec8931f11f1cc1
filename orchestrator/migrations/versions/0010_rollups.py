"""Roll-ups: what the pictures of the console are drawn from."""

import sqlalchemy as sa
from alembic import op

from orchestrator.columns import Xid8

revision = '0010'
down_revision = '0009'
branch_labels = None
depends_on = None

STATUSES = ('idle', 'working', 'waiting', 'paused', 'terminated')


def counts():
    return [sa.Column(status, sa.BigInteger(), server_default='0', nullable=False) for status in STATUSES]


def upgrade() -> None:
    op.create_table('rollups',
        sa.Column('project_id', sa.Uuid(), nullable=False),
        sa.Column('xid', Xid8(), nullable=False),
        sa.Column('agent_id', sa.Uuid(), nullable=False),
        sa.Column('version', sa.BigInteger(), nullable=False),
        *counts(),
        sa.PrimaryKeyConstraint('project_id', name=op.f('pk_rollups')),
        postgresql_with={'fillfactor': '50'})
    op.create_table('fleet_minutes',
        sa.Column('project_id', sa.Uuid(), nullable=False),
        sa.Column('minute', sa.DateTime(timezone=True), nullable=False),
        *counts(),
        sa.PrimaryKeyConstraint('project_id', 'minute', name=op.f('pk_fleet_minutes')))
    op.create_index('ix_fleet_minutes_minute', 'fleet_minutes', ['minute'])
    op.create_table('latency_minutes',
        sa.Column('project_id', sa.Uuid(), nullable=False),
        sa.Column('minute', sa.DateTime(timezone=True), nullable=False),
        sa.Column('bucket', sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column('waiting', sa.BigInteger(), server_default='0', nullable=False),
        sa.Column('applying', sa.BigInteger(), server_default='0', nullable=False),
        sa.Column('whole', sa.BigInteger(), server_default='0', nullable=False),
        sa.PrimaryKeyConstraint('project_id', 'minute', 'bucket', name=op.f('pk_latency_minutes')))
    op.create_index('ix_latency_minutes_minute', 'latency_minutes', ['minute'])
    op.create_table('usage_hours',
        sa.Column('project_id', sa.Uuid(), nullable=False),
        sa.Column('hour', sa.DateTime(timezone=True), nullable=False),
        sa.Column('model', sa.Text(), nullable=False),
        sa.Column('agent_type_id', sa.Uuid(), nullable=False),
        sa.Column('slot', sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column('entries', sa.BigInteger(), server_default='0', nullable=False),
        sa.Column('unpriced', sa.BigInteger(), server_default='0', nullable=False),
        sa.Column('tokens', sa.BigInteger(), server_default='0', nullable=False),
        sa.Column('cost', sa.Numeric(precision=30, scale=10), server_default='0', nullable=False),
        sa.PrimaryKeyConstraint('project_id', 'hour', 'model', 'agent_type_id', 'slot', name=op.f('pk_usage_hours')))
    op.create_index('ix_usage_hours_hour', 'usage_hours', ['hour'])
    op.execute("""
        INSERT INTO usage_hours (project_id, hour, model, agent_type_id, slot, entries, unpriced, tokens, cost)
        SELECT e.project_id, date_trunc('hour', e.occurred_at, 'UTC'), coalesce(e.model, ''), a.agent_type_id, 0,
            count(*), count(*) FILTER (WHERE e.cost IS NULL AND e.input_tokens + e.output_tokens > 0), sum(e.input_tokens + e.output_tokens),
            coalesce(sum(e.cost), 0)
        FROM usage_entries e JOIN agents a ON a.id = e.agent_id
        WHERE e.folded AND e.occurred_at > now() - interval '90 days' GROUP BY 1, 2, 3, 4
    """)
    op.create_index('ix_commands_failed', 'commands', ['project_id', 'seq'],
        postgresql_where=sa.text("state IN ('rejected', 'dead')"))
    op.create_index('ix_leases_lost', 'leases', ['project_id', 'ended_at'],
        postgresql_where=sa.text("ended_by = 'expiry'"))
    # In two steps: with its default at once, every event there is would be written anew.
    op.add_column('events', sa.Column('recorded_at', sa.DateTime(timezone=True), nullable=True))
    op.alter_column('events', 'recorded_at', server_default=sa.text('clock_timestamp()'))


def downgrade() -> None:
    op.drop_column('events', 'recorded_at')
    op.drop_index('ix_leases_lost', table_name='leases')
    op.drop_index('ix_commands_failed', table_name='commands')
    op.drop_table('usage_hours')
    op.drop_table('latency_minutes')
    op.drop_table('fleet_minutes')
    op.drop_table('rollups')
