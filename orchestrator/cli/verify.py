"""`orch verify`: whether the books balance."""

import click

from orchestrator.cli.failures import Failure
from orchestrator.cli.session import Session, command

COLUMNS = ("name", "sentence", "violations")

PATIENCE = 600.0
"""Seconds: every row of a large database is read."""


@click.command()
@command
def verify(session: Session) -> None:
    """Check every invariant; superusers only. Fails if one is violated."""
    verdict = session.client.get("/verify", patience=PATIENCE)
    session.show_all(verdict["invariants"], COLUMNS)
    broken = [found["name"] for found in verdict["invariants"] if found["violations"]]
    if broken:
        raise Failure(f"{', '.join(broken)} violated: the database holds what our code never writes.")
