"""The tables the core begins with."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from orchestrator.columns import Xid8

revision = '0001'
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('agent_types',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('slug', sa.Text(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('is_active', sa.Boolean(), server_default=sa.text('true'), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_agent_types')),
    sa.UniqueConstraint('slug', name=op.f('uq_agent_types_slug'))
    )
    op.create_table('batches',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('project_id', sa.Uuid(), nullable=False),
    sa.Column('verb', sa.Text(), nullable=True),
    sa.Column('filter', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('reason', sa.Text(), nullable=True),
    sa.Column('total', sa.BigInteger(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_batches'))
    )
    op.create_table('commands',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('seq', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('lane', sa.SmallInteger(), server_default='0', nullable=False),
    sa.Column('turn', sa.Double(), server_default='0', nullable=False),
    sa.Column('project_id', sa.Uuid(), nullable=False),
    sa.Column('agent_id', sa.Uuid(), nullable=False),
    sa.Column('batch_id', sa.Uuid(), nullable=True),
    sa.Column('verb', sa.Text(), nullable=False),
    sa.Column('payload', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('state', sa.Text(), server_default='queued', nullable=False),
    sa.Column('reason', sa.Text(), nullable=True),
    sa.Column('actor_type', sa.Text(), server_default='user', nullable=False),
    sa.Column('actor_id', sa.Uuid(), nullable=True),
    sa.Column('precondition', sa.BigInteger(), nullable=True),
    sa.Column('attempts', sa.SmallInteger(), server_default='0', nullable=False),
    sa.Column('error', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('version', sa.BigInteger(), nullable=True),
    sa.Column('task_id', sa.Text(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('closed_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("(state = 'queued') = (closed_at IS NULL)", name=op.f('ck_commands_closed')),
    sa.CheckConstraint("actor_type IN ('user', 'system')", name=op.f('ck_commands_actor_type')),
    sa.CheckConstraint("(actor_type = 'user') = (actor_id IS NOT NULL)", name=op.f('ck_commands_actor')),
    sa.CheckConstraint("state IN ('queued', 'applied', 'rejected', 'cancelled', 'dead')", name=op.f('ck_commands_state')),
    sa.CheckConstraint("verb IN ('spawn', 'pause', 'resume', 'terminate', 'update')", name=op.f('ck_commands_verb')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_commands')),
    postgresql_with={'fillfactor': '80'}
    )
    op.create_index('ix_commands_agent_page', 'commands', ['agent_id', 'seq'], unique=False)
    op.create_index('ix_commands_closed_at', 'commands', ['closed_at'], unique=False, postgresql_using='brin', postgresql_with={'autosummarize': 'on'})
    op.create_index('ix_commands_mailbox', 'commands', ['agent_id', 'seq'], unique=False, postgresql_where=sa.text("state = 'queued'"))
    op.create_index('ix_commands_page', 'commands', ['project_id', 'seq'], unique=False)
    op.create_index('ix_commands_queue', 'commands', ['lane', 'turn', 'seq'], unique=False, postgresql_where=sa.text("state = 'queued'"))
    op.create_table('events',
    sa.Column('agent_id', sa.Uuid(), nullable=False),
    sa.Column('version', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('project_id', sa.Uuid(), nullable=False),
    sa.Column('command_id', sa.Uuid(), nullable=False),
    sa.Column('verb', sa.Text(), nullable=False),
    sa.Column('before', sa.Text(), nullable=True),
    sa.Column('after', sa.Text(), nullable=False),
    sa.Column('changes', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('actor_type', sa.Text(), nullable=False),
    sa.Column('actor_id', sa.Uuid(), nullable=True),
    sa.Column('reason', sa.Text(), nullable=True),
    sa.Column('at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('xid', Xid8(), server_default=sa.text('pg_current_xact_id()'), nullable=False),
    sa.CheckConstraint("after IN ('idle', 'working', 'waiting', 'paused', 'terminated')", name=op.f('ck_events_after')),
    sa.CheckConstraint("before IN ('idle', 'working', 'waiting', 'paused', 'terminated')", name=op.f('ck_events_before')),
    sa.CheckConstraint("verb IN ('spawn', 'work', 'wait', 'rest', 'pause', 'resume', 'terminate', 'update')", name=op.f('ck_events_verb')),
    sa.PrimaryKeyConstraint('agent_id', 'version', name=op.f('pk_events')),
    sa.UniqueConstraint('command_id', name=op.f('uq_events_command_id'))
    )
    op.create_index('ix_events_feed', 'events', ['project_id', 'xid', 'agent_id', 'version'], unique=False)
    op.create_table('project_counters',
    sa.Column('project_id', sa.Uuid(), nullable=False),
    sa.Column('slot', sa.SmallInteger(), autoincrement=False, nullable=False),
    sa.Column('idle', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('working', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('waiting', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('paused', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('terminated', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('tasks_completed', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('tokens_used', sa.Numeric(precision=30, scale=0), server_default='0', nullable=False),
    sa.Column('cost_incurred', sa.Numeric(precision=30, scale=10), server_default='0', nullable=False),
    sa.PrimaryKeyConstraint('project_id', 'slot', name=op.f('pk_project_counters')),
    postgresql_with={'fillfactor': '50'}
    )
    op.create_table('requests',
    sa.Column('user_id', sa.Uuid(), nullable=False),
    sa.Column('key', sa.Text(), nullable=False),
    sa.Column('fingerprint', sa.LargeBinary(), nullable=False),
    sa.Column('command_id', sa.Uuid(), nullable=True),
    sa.Column('batch_id', sa.Uuid(), nullable=True),
    sa.Column('subject_id', sa.Uuid(), nullable=True),
    sa.Column('answer', postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint('num_nonnulls(command_id, batch_id, subject_id, answer) = 1', name=op.f('ck_requests_one_outcome')),
    sa.PrimaryKeyConstraint('user_id', 'key', name=op.f('pk_requests'))
    )
    op.create_index('ix_requests_created_at', 'requests', ['created_at'], unique=False, postgresql_using='brin')
    op.create_table('usage_entries',
    sa.Column('agent_id', sa.Uuid(), nullable=False),
    sa.Column('report_id', sa.Text(), nullable=False),
    sa.Column('project_id', sa.Uuid(), nullable=False),
    sa.Column('fingerprint', sa.LargeBinary(), nullable=False),
    sa.Column('occurred_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('provider', sa.Text(), nullable=True),
    sa.Column('model', sa.Text(), nullable=True),
    sa.Column('input_tokens', sa.BigInteger(), nullable=False),
    sa.Column('output_tokens', sa.BigInteger(), nullable=False),
    sa.Column('cache_read_tokens', sa.BigInteger(), nullable=False),
    sa.Column('cache_write_tokens', sa.BigInteger(), nullable=False),
    sa.Column('cost', sa.Numeric(precision=20, scale=10), nullable=True),
    sa.Column('cost_source', sa.Text(), nullable=True),
    sa.Column('tasks_completed', sa.BigInteger(), nullable=False),
    sa.Column('note', sa.Text(), nullable=True),
    sa.Column('folded', sa.Boolean(), server_default=sa.text('false'), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint('(cost IS NULL) = (cost_source IS NULL)', name=op.f('ck_usage_entries_cost_source')),
    sa.CheckConstraint('input_tokens >= 0 AND output_tokens >= 0 AND cache_read_tokens >= 0 AND cache_write_tokens >= 0 AND tasks_completed >= 0 AND (cost IS NULL OR cost >= 0)', name=op.f('ck_usage_entries_amounts')),
    sa.PrimaryKeyConstraint('agent_id', 'report_id', name=op.f('pk_usage_entries'))
    )
    op.create_index('ix_usage_entries_report', 'usage_entries', ['project_id', 'occurred_at'], unique=False)
    op.create_index('ix_usage_entries_unfolded', 'usage_entries', ['agent_id'], unique=False, postgresql_where=sa.text('NOT folded'))
    op.create_index('ix_usage_entries_waiting', 'usage_entries', ['created_at'], unique=False, postgresql_where=sa.text('NOT folded'))
    op.create_table('users',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('email', sa.Text(), nullable=False),
    sa.Column('is_superuser', sa.Boolean(), server_default=sa.text('false'), nullable=False),
    sa.Column('is_active', sa.Boolean(), server_default=sa.text('true'), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint('email = lower(email)', name=op.f('ck_users_email_lower')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_users')),
    sa.UniqueConstraint('email', name=op.f('uq_users_email'))
    )
    op.create_table('api_keys',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('user_id', sa.Uuid(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('prefix', sa.Text(), nullable=False),
    sa.Column('hash', sa.LargeBinary(), nullable=False),
    sa.Column('expires_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('revoked_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('last_used_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['user_id'], ['users.id'], name=op.f('fk_api_keys_user_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_api_keys')),
    sa.UniqueConstraint('hash', name=op.f('uq_api_keys_hash'))
    )
    op.create_index(op.f('ix_api_keys_user_id'), 'api_keys', ['user_id'], unique=False)
    op.create_table('projects',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('slug', sa.Text(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('owner_id', sa.Uuid(), nullable=False),
    sa.Column('status', sa.Text(), server_default='active', nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("status IN ('active', 'archived')", name=op.f('ck_projects_status')),
    sa.ForeignKeyConstraint(['owner_id'], ['users.id'], name=op.f('fk_projects_owner_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_projects')),
    sa.UniqueConstraint('slug', name=op.f('uq_projects_slug'))
    )
    op.create_index(op.f('ix_projects_owner_id'), 'projects', ['owner_id'], unique=False)
    op.create_table('agents',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('project_id', sa.Uuid(), nullable=False),
    sa.Column('agent_type_id', sa.Uuid(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('status', sa.Text(), nullable=True),
    sa.Column('version', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('current_task', sa.Text(), nullable=True),
    sa.Column('short_term_memory', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
    sa.Column('long_term_memory_ref', sa.Text(), nullable=True),
    sa.Column('session_id', sa.Text(), nullable=True),
    sa.Column('last_activity_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('terminated_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('tasks_completed', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('tokens_used', sa.Numeric(precision=30, scale=0), server_default='0', nullable=False),
    sa.Column('cost_incurred', sa.Numeric(precision=30, scale=10), server_default='0', nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("(status IS NOT DISTINCT FROM 'terminated') = (terminated_at IS NOT NULL)", name=op.f('ck_agents_terminated')),
    sa.CheckConstraint("status IN ('idle', 'working', 'waiting', 'paused', 'terminated')", name=op.f('ck_agents_status')),
    sa.CheckConstraint('(status IS NULL) = (version = 0)', name=op.f('ck_agents_born')),
    sa.CheckConstraint('tasks_completed >= 0 AND tokens_used >= 0 AND cost_incurred >= 0', name=op.f('ck_agents_counters')),
    sa.ForeignKeyConstraint(['agent_type_id'], ['agent_types.id'], name=op.f('fk_agents_agent_type_id')),
    sa.ForeignKeyConstraint(['project_id'], ['projects.id'], name=op.f('fk_agents_project_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_agents')),
    postgresql_with={'fillfactor': '80'}
    )
    op.create_index('ix_agents_name', 'agents', ['project_id', 'name'], unique=False, postgresql_ops={'name': 'text_pattern_ops'})
    op.create_index('ix_agents_page', 'agents', ['project_id', 'created_at', 'id'], unique=False)
    op.create_index('ix_agents_status_page', 'agents', ['project_id', 'status', 'created_at', 'id'], unique=False)
    op.create_table('issues',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('project_id', sa.Uuid(), nullable=False),
    sa.Column('title', sa.Text(), nullable=False),
    sa.Column('body', sa.Text(), nullable=True),
    sa.Column('status', sa.Text(), server_default='open', nullable=False),
    sa.Column('assigned_agent_id', sa.Uuid(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("status IN ('open', 'in_progress', 'in_review', 'blocked', 'closed')", name=op.f('ck_issues_status')),
    sa.ForeignKeyConstraint(['assigned_agent_id'], ['agents.id'], name=op.f('fk_issues_assigned_agent_id')),
    sa.ForeignKeyConstraint(['project_id'], ['projects.id'], name=op.f('fk_issues_project_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_issues'))
    )
    op.create_index(op.f('ix_issues_assigned_agent_id'), 'issues', ['assigned_agent_id'], unique=False)
    op.create_index('ix_issues_page', 'issues', ['project_id', 'created_at', 'id'], unique=False)


def downgrade() -> None:
    op.drop_index('ix_issues_page', table_name='issues')
    op.drop_index(op.f('ix_issues_assigned_agent_id'), table_name='issues')
    op.drop_table('issues')
    op.drop_index('ix_agents_status_page', table_name='agents')
    op.drop_index('ix_agents_page', table_name='agents')
    op.drop_index('ix_agents_name', table_name='agents', postgresql_ops={'name': 'text_pattern_ops'})
    op.drop_table('agents')
    op.drop_index(op.f('ix_projects_owner_id'), table_name='projects')
    op.drop_table('projects')
    op.drop_index(op.f('ix_api_keys_user_id'), table_name='api_keys')
    op.drop_table('api_keys')
    op.drop_table('users')
    op.drop_index('ix_usage_entries_waiting', table_name='usage_entries', postgresql_where=sa.text('NOT folded'))
    op.drop_index('ix_usage_entries_unfolded', table_name='usage_entries', postgresql_where=sa.text('NOT folded'))
    op.drop_index('ix_usage_entries_report', table_name='usage_entries')
    op.drop_table('usage_entries')
    op.drop_index('ix_requests_created_at', table_name='requests', postgresql_using='brin')
    op.drop_table('requests')
    op.drop_table('project_counters')
    op.drop_index('ix_events_feed', table_name='events')
    op.drop_table('events')
    op.drop_index('ix_commands_queue', table_name='commands', postgresql_where=sa.text("state = 'queued'"))
    op.drop_index('ix_commands_page', table_name='commands')
    op.drop_index('ix_commands_mailbox', table_name='commands', postgresql_where=sa.text("state = 'queued'"))
    op.drop_index('ix_commands_closed_at', table_name='commands', postgresql_using='brin', postgresql_with={'autosummarize': 'on'})
    op.drop_index('ix_commands_agent_page', table_name='commands')
    op.drop_table('commands')
    op.drop_table('batches')
    op.drop_table('agent_types')
