"""The tests' databases are as new, whatever the test before has done to its own."""

import pytest
from sqlalchemy import text

from tests.databases import TABLES, Spares, connected

CHANGES = {
    "a row": "UPDATE users SET email = 'another@example.com'",
    "a row more": "INSERT INTO agent_types (id, slug, name) VALUES (gen_random_uuid(), 'one-more', 'One more')",
    "a picture": "INSERT INTO fleet_minutes (project_id, minute) VALUES (gen_random_uuid(), now())",
    "a column": "ALTER TABLE agents ADD COLUMN one_more text",
    "a default": "ALTER TABLE agents ALTER short_term_memory SET DEFAULT '[]'",
    "an index": "DROP INDEX ix_agents_page",
    "a trigger": "ALTER TABLE agents DISABLE TRIGGER ALL",
    "the migration": "UPDATE alembic_version SET version_num = 'another'",
    "a setting": "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = 64', current_database()); END $$",
}


SEEN = {
    "the migration": "SELECT version_num FROM alembic_version",
    "indexes": "SELECT string_agg(indexrelid::regclass::text, ' ' ORDER BY 1) FROM pg_index",
    "columns": "SELECT string_agg(column_name, ' ' ORDER BY 1) FROM information_schema.columns",
    "defaults": "SELECT string_agg(pg_get_expr(adbin, adrelid), ' ' ORDER BY adrelid, adnum) FROM pg_attrdef",
    "triggers": "SELECT count(*) FROM pg_trigger WHERE tgenabled <> 'O'",
    "a setting": "SHOW work_mem",
} | {table.name: f"SELECT json_agg(t)::text FROM {table.name} t" for table in TABLES}


def contents(url: str) -> dict[str, str]:
    """All that is in a database, and what of its schema the tests change."""
    with connected(url) as db:
        return {name: str(db.execute(text(sql)).scalar_one()) for name, sql in SEEN.items()}


def test_every_table_is_emptied(alone: str) -> None:
    with connected(alone) as db:
        found = db.execute(
            text("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
        )
        assert set(found.scalars()) - {"alembic_version"} == {table.name for table in TABLES}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_lent_database_is_as_new(spares: Spares, change: str) -> None:
    with spares.lent() as url:
        new = contents(url)
        with connected(url) as db:
            db.execute(text(change))

    with spares.lent() as url:
        assert contents(url) == new
