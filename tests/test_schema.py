"""The database is what the models say, from nothing and back, and its CHECKs hold the same words as our enums."""

import re
from collections.abc import Iterator
from enum import StrEnum

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, exc, text
from sqlalchemy.dialects.postgresql.base import ischema_names

from orchestrator import bootstrap, revisions
from orchestrator.columns import Xid8, metadata
from orchestrator.db import Guard, begin
from orchestrator.lifecycle import COMMANDS, EVENTS, SYSTEM_COMMANDS, Status
from orchestrator.states import ActorType, IssueStatus, LeaseEnd, ProjectStatus, State
from orchestrator.stops import Cause
from tests.databases import connected
from tests.stage import Project, run, settle, sql, violations

CHECKS: dict[str, tuple[StrEnum, ...]] = {
    "ck_agents_status": tuple(Status),
    "ck_commands_state": tuple(State),
    "ck_commands_verb": (*COMMANDS, *SYSTEM_COMMANDS),
    "ck_commands_actor_type": tuple(ActorType),
    "ck_commands_quiesced_by": tuple(Cause),
    "ck_agents_quiesced_by": tuple(Cause),
    "ck_leases_ended_by": tuple(LeaseEnd),
    "ck_events_verb": EVENTS,
    "ck_events_before": tuple(Status),
    "ck_events_after": tuple(Status),
    "ck_projects_status": tuple(ProjectStatus),
    "ck_issues_status": tuple(IssueStatus),
}


@pytest.fixture
def migrated(empty: str) -> Iterator[Connection]:
    """A connection to a database that was migrated from nothing."""
    bootstrap.prepare(empty, None)
    engine = create_engine(empty)
    with engine.connect() as db:
        yield db
    engine.dispose()


def test_the_migrations_make_what_the_models_say(migrated: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ischema_names, "xid8", Xid8)  # SQLAlchemy does not know it
    context = MigrationContext.configure(migrated, opts={"compare_server_default": True})

    assert compare_metadata(context, metadata) == []
    assert revisions.current(migrated) == revisions.head()


def test_the_revisions_are_what_alembic_says(migrated: Connection) -> None:
    scripts = ScriptDirectory.from_config(bootstrap.alembic_config())

    assert revisions.head() == scripts.get_current_head()
    assert revisions.current(migrated) == MigrationContext.configure(migrated).get_current_revision()


def test_a_database_that_was_never_migrated_has_no_revision(empty: str) -> None:
    with connected(empty) as db:
        assert revisions.current(db) is None


def test_the_migrations_lead_back_to_nothing(migrated: Connection) -> None:
    config = bootstrap.alembic_config()
    config.attributes["connection"] = migrated

    command.downgrade(config, "base")

    tables = migrated.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).scalars().all()
    assert tables == ["alembic_version"]


def test_preparing_twice_changes_nothing(migrated: Connection, empty: str) -> None:
    before = migrated.execute(text("SELECT count(*) FROM pg_class")).scalar_one()

    bootstrap.prepare(empty, None)

    assert migrated.execute(text("SELECT count(*) FROM pg_class")).scalar_one() == before


def test_a_check_holds_the_words_of_its_enum(migrated: Connection) -> None:
    found = migrated.execute(
        text("SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = ANY(:names)"),
        {"names": list(CHECKS)},
    )
    words = {name: set(re.findall(r"'(\w+)'", definition)) for name, definition in found}

    assert words == {name: {word.value for word in enum} for name, enum in CHECKS.items()}


@pytest.mark.parametrize(
    "nonsense",
    [
        "UPDATE agents SET status = 'asleep'",
        "UPDATE agents SET status = 'terminated'",
        "UPDATE agents SET terminated_at = now()",
        "UPDATE agents SET version = 0",
        "UPDATE agents SET tokens_used = -1",
        "UPDATE agents SET cost_incurred = -0.0000000001",
        "UPDATE agents SET status = 'paused'",
        """UPDATE agents SET holds = '[{"owner": "manual"}]'""",
        "UPDATE agents SET hold_until = now()",
    ],
)
def test_the_database_refuses_nonsense(migrated: Connection, nonsense: str) -> None:
    migrated.execute(text(AN_AGENT))

    with pytest.raises(exc.IntegrityError):
        migrated.execute(text(nonsense))


def test_who_is_paused_already_is_held_by_hand_after_the_migration(quiet: Project) -> None:
    agents = [quiet.born() for _ in range(3)]
    for agent, verbs in zip(agents, (["pause"], ["pause", "resume"], []), strict=True):
        for verb in verbs:
            quiet.send(agent, verb, reason="lunch")
    settle()
    with begin(Guard.TOOL) as db:
        config = bootstrap.alembic_config()
        config.attributes["connection"] = db
        run(db, "UPDATE events SET changes = changes - 'holds'")  # as they were written before there were holds
        command.downgrade(config, "0001")
        command.upgrade(config, "head")

    holds = {str(row.id): [(h["owner"], h["reason"]) for h in row.holds] for row in sql("SELECT id, holds FROM agents")}
    assert holds == dict(zip(agents, ([("manual", "lunch")], [], []), strict=True))
    assert violations() == {}
    quiet.send(agents[0], "resume")
    settle()
    assert quiet.api.get(quiet.agent(agents[0])).json["status"] == "idle"  # type: ignore[index]


AN_AGENT = """
    WITH owner AS (INSERT INTO users (id, email) VALUES (gen_random_uuid(), 'a@b.c') RETURNING id),
    project AS (INSERT INTO projects (id, slug, name, owner_id) SELECT gen_random_uuid(), 'p', 'P', id FROM owner
        RETURNING id),
    kind AS (INSERT INTO agent_types (id, slug, name) VALUES (gen_random_uuid(), 't', 'T') RETURNING id)
    INSERT INTO agents (id, project_id, agent_type_id, name, status, version)
    SELECT gen_random_uuid(), project.id, kind.id, 'scout', 'idle', 1 FROM project, kind
"""
