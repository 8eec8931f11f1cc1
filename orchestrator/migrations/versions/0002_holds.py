"""Holds on agents, and commands of the system with their cause."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('agents', sa.Column('holds', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'::jsonb"), nullable=False))
    op.add_column('agents', sa.Column('hold_until', sa.DateTime(timezone=True), nullable=True))
    # Who is paused already was paused by hand, by whoever sent the last command that did it.
    # The event that paused it tells of the hold from now on: folding its events must make the agent.
    op.execute("""
        UPDATE agents a SET holds = jsonb_build_array(jsonb_build_object('id', e.command_id, 'owner', 'manual',
            'reason', e.reason, 'until', NULL, 'placed_by', jsonb_build_object('type', e.actor_type, 'id', e.actor_id),
            'placed_at', to_char(e.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')))
        FROM (SELECT DISTINCT ON (agent_id) * FROM events WHERE after = 'paused' AND before <> 'paused'
            ORDER BY agent_id, version DESC) e
        WHERE a.status = 'paused' AND e.agent_id = a.id
    """)
    op.execute("""
        UPDATE events e SET changes = e.changes || jsonb_build_object('holds', a.holds)
        FROM agents a WHERE a.id = e.agent_id AND e.command_id = CAST(a.holds -> 0 ->> 'id' AS uuid)
    """)
    op.create_check_constraint(op.f('ck_agents_held'), 'agents', "(status = 'paused') = (holds <> '[]')")
    op.create_check_constraint(op.f('ck_agents_hold_until'), 'agents', "hold_until IS NULL OR holds <> '[]'")
    op.create_index('ix_agents_hold_until', 'agents', ['hold_until'], unique=False, postgresql_where=sa.text('hold_until IS NOT NULL'))
    op.add_column('commands', sa.Column('cause', sa.Text(), nullable=True))
    op.create_index('ix_commands_cause', 'commands', ['cause'], unique=True, postgresql_where=sa.text('cause IS NOT NULL'))


def downgrade() -> None:
    op.drop_index('ix_commands_cause', table_name='commands', postgresql_where=sa.text('cause IS NOT NULL'))
    op.drop_column('commands', 'cause')
    op.drop_index('ix_agents_hold_until', table_name='agents', postgresql_where=sa.text('hold_until IS NOT NULL'))
    op.drop_constraint(op.f('ck_agents_hold_until'), 'agents', type_='check')
    op.drop_constraint(op.f('ck_agents_held'), 'agents', type_='check')
    op.drop_column('agents', 'hold_until')
    op.drop_column('agents', 'holds')
