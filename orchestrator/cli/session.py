"""What every command of one call shares: which server, as whom, and how its answer is shown."""

import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any, TypeVar

import click

from orchestrator.cli import outlet, render
from orchestrator.cli.client import APPLIED, QUIESCED, Client, Manner
from orchestrator.cli.failures import Exit, Failure
from orchestrator.cli.words import IdempotencyKey, Seconds, refuse_bytes
from orchestrator.sdk.address import is_address
from orchestrator.settings import settings

R = TypeVar("R")

DEFAULT_WAIT = 10.0

_KEY = re.compile(r"[\x21-\x7e]{1,200}")


@dataclass
class Session:
    """One call of `orch`. The options may stand anywhere on the line; the last one counts."""

    given_url: str | None = None
    output: str | None = None
    has_acted: bool = False
    """Whether something was done here, without the server."""

    @property
    def url(self) -> str:
        """Where the server is: --url, ORCH_URL, or this machine's ORCH_PORT."""
        return self.named_url or f"http://127.0.0.1:{settings().port}"

    @property
    def named_url(self) -> str | None:
        """The server the user has named, if any."""
        url = self.given_url or os.environ.get("ORCH_URL")
        if not url:
            return None
        if not is_address(url):
            raise click.UsageError(f"{url!r} is no address of a server; give one such as http://127.0.0.1:8080")
        return url.rstrip("/")

    @cached_property
    def client(self) -> Client:
        """The API, as the caller whose key this is."""
        return click.get_current_context().with_resource(Client(self.url, api_key()))

    @property
    def as_json(self) -> bool:
        """Whether answers are shown as JSON."""
        return render.as_json(self.output)

    def project(self, name: str) -> str:
        """The path of a project, named by slug or id."""
        return f"/projects/{self.client.id_of('/projects', 'project', 'slug', name)}"

    def type_id(self, name: str) -> str:
        """The id of an agent type, named by slug or id."""
        return self.client.id_of("/agent-types", "type", "slug", name)

    def user_id(self, name: str) -> str:
        """The id of a user, named by e-mail address or id."""
        return self.client.id_of("/users", "user", "email", name.lower())

    def show(self, item: Any, tell: Callable[[Any], None] | None = None) -> None:
        """Print one thing; for people as `tell` does, where it is given."""
        with self._printing():
            if tell is None or self.as_json or self.output == "id":
                render.one(item, self.output)
            else:
                tell(item)

    def show_all(self, items: list[dict[str, Any]], columns: render.Columns) -> None:
        """Print many."""
        with self._printing():
            render.many(items, columns, self.output)

    def _printing(self) -> AbstractContextManager[None]:
        has_sent = "client" in self.__dict__ and self.client.has_changed
        return outlet.printing(went_through=self.has_acted or has_sent)


def api_key() -> str:
    """The caller's key, from ORCH_API_KEY or else from $ORCH_HOME/admin.key; raises Failure where there is none."""
    file = settings().home / "admin.key"
    try:
        key = os.environ.get("ORCH_API_KEY") or file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a key"
        raise Failure(f"no API key: set ORCH_API_KEY; {file} cannot be read ({why}).", Exit.NOT_ALLOWED) from None
    if not _KEY.fullmatch(key.strip()):
        raise Failure(f"ORCH_API_KEY, or else {file}, must hold one key and nothing else.", Exit.NOT_ALLOWED)
    return key.strip()


def command(function: Callable[..., R]) -> Callable[..., R]:
    """Hand the session to a command, and let --url and -o stand behind it too."""

    @wraps(function)
    def with_session(*args: Any, **more: Any) -> R:
        refuse_bytes(click.get_current_context())
        return function(*args, **more)

    return shared(click.pass_obj(with_session))


def shared(function: Callable[..., R]) -> Callable[..., R]:
    """The options that may stand anywhere."""
    url = click.option(
        "--url", metavar="URL", callback=_keep("given_url"), expose_value=False, is_eager=True,
        help="The server; else ORCH_URL, else http://127.0.0.1:$ORCH_PORT.",
    )  # fmt: skip
    output = click.option(
        "-o", "--output", type=click.Choice(["json", "table", "id"]), callback=_keep("output"), expose_value=False,
        is_eager=True, help="JSON, a table, or only ids; else a table on a terminal, JSON elsewhere.",
    )  # fmt: skip
    return url(output(function))


in_project = click.option(
    "-p", "--project", envvar="ORCH_PROJECT", show_envvar=True, required=True, help="The project, by slug or id."
)


def in_projects(function: Callable[..., R]) -> Callable[..., R]:
    """The options of a command that is about one project, or about all that the caller may see (None)."""

    @wraps(function)
    def with_project(*args: Any, project: str | None, all_projects: bool, **more: Any) -> R:
        return function(*args, project=None if all_projects else project, **more)

    for option in (
        click.option("-A", "--all-projects", is_flag=True, help="All projects, though ORCH_PROJECT may name one."),
        click.option(
            "-p", "--project", envvar="ORCH_PROJECT", show_envvar=True, help="One project only, by slug or id."
        ),
    ):
        with_project = option(with_project)
    return with_project


of_stage = click.option(
    "--quiesced", "stage", flag_value=QUIESCED, default=APPLIED,
    help="Of a stop, wait until the agent's process stands still as well.",
)  # fmt: skip


def mutation(function: Callable[..., R]) -> Callable[..., R]:
    """The options of a command that changes an agent, handed on as one `manner`."""

    @wraps(function)
    def with_manner(
        *args: Any, wait: float, no_wait: bool, reason: str | None, idempotency_key: str | None, **more: Any
    ) -> R:
        given = {} if idempotency_key is None else {"key": idempotency_key}
        return function(*args, manner=Manner(0 if no_wait else wait, reason, **given), **more)

    for option in (
        click.option(
            "--idempotency-key",
            type=IdempotencyKey(),
            metavar="KEY",
            help="Repeat a call under its key: it is done once.",
        ),
        click.option("--reason", help="Why; kept in the agent's history."),
        click.option("--no-wait", is_flag=True, help="Do not wait; show the command instead of the agent."),
        click.option("--wait", type=Seconds(), default=DEFAULT_WAIT, show_default=True, help="Seconds to wait."),
    ):
        with_manner = option(with_manner)
    return with_manner


def _keep(attribute: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def keep(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        if value is not None:
            setattr(ctx.ensure_object(Session), attribute, value)

    return keep
