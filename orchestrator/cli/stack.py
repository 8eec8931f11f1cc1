"""`orch up`: everything on this machine."""

import click

from orchestrator.cli.extras import needed
from orchestrator.settings import settings


@click.command()
@click.pass_context
def up(ctx: click.Context) -> None:
    """Start databases, API, workers and Flower here, until Ctrl-C.

    The data is kept in ORCH_HOME. With ORCH_DATABASE_URL and ORCH_REDIS_URL real servers are used instead.
    """
    with needed("`orch up`", "server", "embedded"):
        from orchestrator.stack import up as run  # noqa: PLC0415

    ctx.exit(run(settings()))
