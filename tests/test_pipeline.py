"""Several statements in one round trip: what an error leaves behind."""

import psycopg
import pytest
from sqlalchemy import text

from orchestrator.db import autocommit, begin
from orchestrator.pipeline import together

FAILING = text("SELECT 1 / length(pg_sleep(0.05)::text)")  # late, when the others have been sent
USUAL = text("SELECT 1 AS found")


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
