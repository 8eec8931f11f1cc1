"""`orch verify`: whether the books balance."""

from typing import Any

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
    judge(session, session.client.get("/verify", patience=PATIENCE)["invariants"])


def judge(session: Session, invariants: list[dict[str, Any]]) -> None:
    """Print what was found of each; raises Failure where one is violated."""
    session.show_all(invariants, COLUMNS)
    broken = [found["name"] for found in invariants if found["violations"]]
    if broken:
        raise Failure(f"{', '.join(broken)} violated: the database holds what our code never writes.")
