"""`orch`: the command line. It talks to the API over HTTP like any other client."""

import sys
from typing import Any

import click

import orchestrator.loading  # noqa: F401  # before all that is large
from orchestrator import __version__
from orchestrator.cli import (
    agents,
    backup,
    commands,
    demo,
    doctor,
    events,
    outlet,
    people,
    projects,
    render,
    run,
    stack,
    top,
    verify,
)
from orchestrator.cli.failures import Exit, Failure
from orchestrator.cli.session import Session, shared


class Program(click.Group):
    """The program: whatever a command ends with becomes an exit code, and one sentence where it failed."""

    def main(self, *args: Any, **more: Any) -> Any:
        """The whole call."""
        outlet.open_to_all()
        try:
            return super().main(*args, **more)
        except OSError as error:  # of the help's output, or of whatever the machine has no room or no rights for
            outlet.discard()
            outlet.say(f"orch: {error.filename or 'standard output'}: {error.strerror}.")
            sys.exit(Exit.FAILED)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except Failure as failure:
            _say(failure, ctx.ensure_object(Session))
            ctx.exit(failure.code)
        except KeyboardInterrupt:
            ctx.exit(Exit.INTERRUPTED)


@click.group("orch", cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="orch")
@shared
@click.pass_context
def main(ctx: click.Context) -> None:
    """Run fleets of AI agents, and keep their books.

    \b
    Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 not allowed, 5 refused transition,
    6 waited too long, 7 no server.
    """
    ctx.ensure_object(Session)


for added in (
    stack.up,
    demo.demo,
    doctor.doctor,
    verify.verify,
    backup.backup,
    backup.restore,
    people.key,
    people.user,
    agents.agent,
    run.run,
    commands.command,
    events.events,
    top.top,
    projects.project,
    projects.kind,
):
    main.add_command(added)
agents.agent.add_command(events.watch)


def _say(failure: Failure, session: Session) -> None:
    """The sentence for people; for programs what the server said, as it said it."""
    outlet.say(f"orch: {render.visible(failure.sentence)}")
    if failure.problem is not None and session.as_json:
        outlet.say(render.dump(failure.problem))
