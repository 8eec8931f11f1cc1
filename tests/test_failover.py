"""A standby where the primary was: what writes waits for the next one, and finds it by itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import pytest
from sqlalchemy import create_engine, make_url, text

from tests.stage import Project


@contextmanager
def as_a_standby(url: str) -> Iterator[None]:
    """The database takes connections, answers reads, and refuses writes."""
    name, apart = make_url(url).database, create_engine(make_url(url).set(database="postgres"))
    with apart.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        db.execute(text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
        db.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"), {"name": name})
        try:
            yield
        finally:
            db.execute(text(f"ALTER DATABASE {name} RESET default_transaction_read_only"))
    apart.dispose()


@pytest.mark.parametrize("what", ["/agents", "/keys"])
def test_a_write_to_a_standby_is_to_be_tried_again_and_finds_the_primary_at_once(
    quiet: Project, alone: str, what: str
) -> None:
    path, body = (
        (f"{quiet.path}/agents", {"agent_type_id": quiet.type_id, "name": "scout"})
        if what == "/agents"
        else ("keys", {"name": "spare"})
    )

    with as_a_standby(alone):
        quiet.api.get(quiet.path)  # the connections that were cut are gone
        read = quiet.api.get(quiet.path)
        refused = [quiet.api.post(path, body) for _ in range(2)]
    found = quiet.api.post(path, body)

    assert {answer.status_code for answer in refused} == {HTTPStatus.SERVICE_UNAVAILABLE}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    assert read.status_code == HTTPStatus.OK
    assert found.status_code in (HTTPStatus.CREATED, HTTPStatus.ACCEPTED), found.json
