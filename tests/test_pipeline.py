"""Several statements in one round trip: what an error leaves behind."""

import psycopg
import pytest
from sqlalchemy import text

from orchestrator.db import Guard, autocommit, begin
from orchestrator.errors import Unavailable
from orchestrator.pipeline import together

FAILING = text("SELECT 1 / length(pg_sleep(0.05)::text)")  # late, when the others have been sent
USUAL = text("SELECT 1 AS found")
CUT = text("""
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'orch-door'
""")
READ_ONLY = text("SET default_transaction_read_only = on")
WRITE = text("CREATE TEMPORARY TABLE written (id int) ON COMMIT DROP")


@pytest.mark.parametrize("way", [autocommit, begin])
@pytest.mark.parametrize("often", range(4, 8))
def test_what_was_skipped_behind_an_error_can_be_asked_again(alone: str, often: int, way: type) -> None:
    """psycopg has a statement prepared that comes again and again, at about the time of the error here."""
    for _ in range(often):
        with way() as db:
            together(db, (USUAL, {}))
    with pytest.raises(psycopg.errors.DivisionByZero), way() as db:
        together(db, (FAILING, {}), (USUAL, {}))

    with way() as db:
        [found] = together(db, (USUAL, {}))

    assert [row.found for row in found] == [1]


@pytest.mark.parametrize("way", [autocommit, begin])
@pytest.mark.parametrize("standby", [False, True])
def test_where_one_connection_is_of_no_use_any_more_the_others_are_made_anew(
    alone: str, standby: bool, way: type
) -> None:
    with autocommit() as one, autocommit() as other:
        for db in (one, other):
            together(db, (READ_ONLY if standby else USUAL, {}))
    with autocommit(Guard.TOOL) as db:
        db.execute(USUAL if standby else CUT)

    with pytest.raises(Unavailable), way() as db:
        together(db, (WRITE, {}))
    with way() as one, way() as other:
        for db in (one, other):
            together(db, (WRITE, {}))
