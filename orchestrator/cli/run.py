"""`orch run`: any program as the process of an agent."""

import os
import shlex
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePath

import click
from httpx2 import DecodingError

from orchestrator.cli.documents import stranger
from orchestrator.cli.failures import Exit, Failure, refusal
from orchestrator.cli.session import Session, api_key, command, in_project
from orchestrator.cli.signals import ended_by_signals
from orchestrator.cli.suspension import Suspension
from orchestrator.cli.words import Seconds, as_text
from orchestrator.cli.wrapped import Program
from orchestrator.sdk import (
    ApiError,
    ConnectionFailed,
    NoServer,
    Orchestrator,
    OrchestratorError,
    Run,
    Terminated,
)


class Ended(Exception):
    """The program has ended, and not well: no task is done."""


@click.command
@in_project
@click.option("--name", help="The agent; else PROGRAM@HOST.")
@click.option("--type", "kind", help="Spawn an agent of this type where none of the name lives.")
@click.option(
    "--ttl", type=click.IntRange(5, 300), default=30, show_default=True,
    help="Seconds it may be silent: it hears of a stop within a third of them.",
)  # fmt: skip
@click.option(
    "--grace", type=Seconds(), default=10.0, show_default=True,
    help="Seconds the program may take to end before it is killed.",
)  # fmt: skip
@click.argument("line", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@click.pass_context
@command
def run(
    session: Session,
    ctx: click.Context,
    project: str,
    name: str | None,
    kind: str | None,
    ttl: int,
    grace: float,
    line: tuple[str, ...],
) -> None:
    """Run a program as an agent: leased, beating, stopped and ended as the agent is.

    The agent is working while the program runs, and has one task more when it ends with 0. A pause sends SIGTSTP,
    and SIGSTOP to whatever does not stop; a resumption SIGCONT; a terminate SIGTERM, and SIGKILL after --grace. One
    that drains lets the program run to its end. The exit code is the program's.

    Ctrl-Z stops the program as a pause does, and then `orch run`; with SIGCONT (`fg`) both go on, or the program ends
    if another process has become the agent.

    It finds its agent's id in ORCH_AGENT, and cannot read from a terminal. What it starts is stopped with it, but for
    what leaves its process group.
    """
    if shutil.which(line[0]) is None:
        raise click.UsageError(f"there is no program {line[0]!r}")
    name = name or as_text(f"{PurePath(line[0]).name}@{socket.gethostname()}")
    program = Program(line, grace)
    with (
        _failing(session.url),
        ended_by_signals(),
        suppress(Ended),
        Orchestrator(session.url, api_key()) as orch,
        orch.run_agent(name, project=project, type=kind, ttl=ttl) as me,
        me.task(as_text(shlex.join(line))),
    ):
        suspension, given = Suspension(program.news.put), {"ORCH_AGENT": me.id, "ORCH_PROJECT": project}
        with suspension.heeded(), program.running(os.environ | given):
            _obey(me, program, suspension)
        if program.code != Exit.OK:
            raise Ended
    if program.code is None:
        raise Failure("the agent was terminated before its program was started.", Exit.REFUSED)
    ctx.exit(program.code)


def _obey(me: Run, program: Program, suspension: Suspension) -> None:
    """Stop the program and let it go on as the process is told, until it has ended; raises Terminated."""
    enough = me.on_directive(program.news.put)
    if me.told is not None:
        program.news.put(me.told)
    while (told := program.news.get()) is not None:
        if told.directive != "continue" and told.mode != "drain":
            program.stop(at_once=told.mode == "immediate")
            with suspension.still():
                me.checkpoint()
            program.go_on()
    enough()


@contextmanager
def _failing(url: str) -> Iterator[None]:
    """What the SDK raises inside, as this command line says it."""
    try:
        yield
    except ApiError as error:
        raise refusal(error.problem, error.retry_after) from None
    except (ConnectionFailed, NoServer) as error:
        raise Failure(f"{error}.", Exit.NO_SERVER) from None
    except (DecodingError, RecursionError):
        raise stranger(url) from None
    except Terminated as error:
        raise Failure(f"{error}.", Exit.REFUSED) from None
    except OrchestratorError as error:
        raise Failure(f"{error}.") from None
