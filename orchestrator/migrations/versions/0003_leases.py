"""Leases with their tokens, and how far the stop of an agent has come."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None

CAUSES = "quiesced_by IN ('ack', 'release', 'expiry', 'no_lease')"


def upgrade() -> None:
    op.create_table(
        'leases',
        sa.Column('agent_id', sa.Uuid(), nullable=False),
        sa.Column('project_id', sa.Uuid(), nullable=False),
        sa.Column('epoch', sa.BigInteger(), server_default='0', nullable=False),
        sa.Column('id', sa.Uuid(), nullable=True),
        sa.Column('holder', sa.Text(), nullable=True),
        sa.Column('ttl', sa.SmallInteger(), server_default='0', nullable=False),
        sa.Column('granted_at', sa.DateTime(timezone=True), nullable=True),
        sa.Column('beat_at', sa.DateTime(timezone=True), nullable=True),
        sa.Column('acked_at', sa.DateTime(timezone=True), nullable=True),
        sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
        sa.Column('ended_by', sa.Text(), nullable=True),
        sa.Column('losses', postgresql.ARRAY(sa.DateTime(timezone=True)), server_default=sa.text("'{}'"), nullable=False),
        sa.CheckConstraint("ended_by IN ('release', 'expiry', 'fence')", name=op.f('ck_leases_ended_by')),
        sa.CheckConstraint('(ended_at IS NULL) = (ended_by IS NULL)', name=op.f('ck_leases_ended')),
        sa.CheckConstraint('ended_at IS NOT NULL OR num_nonnulls(id, holder, granted_at, beat_at) = 4', name=op.f('ck_leases_live')),
        sa.PrimaryKeyConstraint('agent_id', name=op.f('pk_leases')),
        sa.UniqueConstraint('id', 'epoch', name='uq_leases_epoch'),
        postgresql_with={'fillfactor': '50'},
    )
    op.create_index('ix_leases_live', 'leases', ['agent_id'], unique=False, postgresql_where=sa.text('ended_at IS NULL'))
    op.create_table(
        'lease_tokens',
        sa.Column('hash', sa.LargeBinary(), nullable=False),
        sa.Column('agent_id', sa.Uuid(), nullable=False),
        sa.Column('user_id', sa.Uuid(), nullable=False),
        sa.Column('epoch', sa.BigInteger(), nullable=False),
        sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
        sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint('hash', name=op.f('pk_lease_tokens')),
        sa.UniqueConstraint('agent_id', 'epoch', name='uq_lease_tokens_epoch'),
    )
    op.create_index('ix_lease_tokens_ended_at', 'lease_tokens', ['ended_at'], unique=False, postgresql_where=sa.text('ended_at IS NOT NULL'))
    op.add_column('agents', sa.Column('stop', postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    op.add_column('agents', sa.Column('quiesced_at', sa.DateTime(timezone=True), nullable=True))
    op.add_column('agents', sa.Column('quiesced_by', sa.Text(), nullable=True))
    # Until now no process had a lease: whoever was stopped stood still, as far as anybody could know.
    op.execute("""
        UPDATE agents SET quiesced_at = coalesce(terminated_at, last_activity_at, updated_at), quiesced_by = 'no_lease'
        WHERE status IN ('paused', 'terminated')
    """)
    op.create_check_constraint(op.f('ck_agents_stopped'), 'agents',
        "(status IS NOT NULL AND status IN ('paused', 'terminated')) = (num_nonnulls(stop, quiesced_at) = 1)")
    op.create_check_constraint(op.f('ck_agents_quiesced'), 'agents', '(quiesced_at IS NULL) = (quiesced_by IS NULL)')
    op.create_check_constraint(op.f('ck_agents_quiesced_by'), 'agents', CAUSES)
    op.create_index('ix_agents_stop', 'agents', ['id'], unique=False, postgresql_where=sa.text('stop IS NOT NULL'))
    op.add_column('commands', sa.Column('epoch', sa.BigInteger(), nullable=True))
    op.add_column('commands', sa.Column('quiesced_at', sa.DateTime(timezone=True), nullable=True))
    op.add_column('commands', sa.Column('quiesced_by', sa.Text(), nullable=True))
    op.execute("""
        UPDATE commands SET quiesced_at = closed_at, quiesced_by = 'no_lease'
        WHERE state = 'applied' AND verb IN ('pause', 'terminate')
    """)
    op.create_check_constraint(op.f('ck_commands_quiesced'), 'commands', '(quiesced_at IS NULL) = (quiesced_by IS NULL)')
    op.create_check_constraint(op.f('ck_commands_quiesced_by'), 'commands', CAUSES)
    _recheck("'spawn', 'pause', 'resume', 'terminate', 'update', 'settle'", "'user', 'agent', 'system'", "(actor_type = 'system') = (actor_id IS NULL)")


def downgrade() -> None:
    op.execute("DELETE FROM commands WHERE verb = 'settle' OR actor_type = 'agent'")
    _recheck("'spawn', 'pause', 'resume', 'terminate', 'update'", "'user', 'system'", "(actor_type = 'user') = (actor_id IS NOT NULL)")
    for name in ('quiesced_by', 'quiesced'):
        op.drop_constraint(op.f(f'ck_commands_{name}'), 'commands', type_='check')
    for name in ('quiesced_by', 'quiesced_at', 'epoch'):
        op.drop_column('commands', name)
    op.drop_index('ix_agents_stop', table_name='agents', postgresql_where=sa.text('stop IS NOT NULL'))
    for name in ('quiesced_by', 'quiesced', 'stopped'):
        op.drop_constraint(op.f(f'ck_agents_{name}'), 'agents', type_='check')
    for name in ('quiesced_by', 'quiesced_at', 'stop'):
        op.drop_column('agents', name)
    op.drop_table('lease_tokens')
    op.drop_table('leases')


def _recheck(verbs: str, actors: str, actor: str) -> None:
    """The words a command may hold."""
    for name, condition in (('verb', f'verb IN ({verbs})'), ('actor_type', f'actor_type IN ({actors})'), ('actor', actor)):
        op.drop_constraint(op.f(f'ck_commands_{name}'), 'commands', type_='check')
        op.create_check_constraint(op.f(f'ck_commands_{name}'), 'commands', condition)
