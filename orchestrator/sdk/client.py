"""The clients: one that waits for each answer, one for asyncio. Threads, or tasks, may share one."""

import os
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import httpx2
import platformdirs

from orchestrator.sdk import surface, world
from orchestrator.sdk.calls import RETRIES
from orchestrator.sdk.commands import AsyncCommands, Commands
from orchestrator.sdk.connection import AsyncConnection, Connection
from orchestrator.sdk.documents import is_id
from orchestrator.sdk.ending import ended_by_sigterm
from orchestrator.sdk.errors import NotFound, OrchestratorError
from orchestrator.sdk.running import Role, Run, RunningLater, running

DEFAULT_URL = "http://127.0.0.1:8080"

_KEY = re.compile(r"[\x21-\x7e]{1,200}")


class ProjectClient(surface.Books):
    """One project."""

    def __init__(self, connection: Connection, project_id: str) -> None:
        super().__init__(connection, project_id)
        self.id = project_id
        self.agents = surface.Agents(connection, project_id)
        self.commands = Commands(connection, project_id)
        self.issues = surface.Issues(connection, project_id)


class AsyncProjectClient(surface.AsyncBooks):
    """One project."""

    def __init__(self, connection: AsyncConnection, project_id: str) -> None:
        super().__init__(connection, project_id)
        self.id = project_id
        self.agents = surface.AsyncAgents(connection, project_id)
        self.commands = AsyncCommands(connection, project_id)
        self.issues = surface.AsyncIssues(connection, project_id)


class Orchestrator(AbstractContextManager["Orchestrator"]):
    """The API. Without arguments: ORCH_URL (else this machine's port 8080), and the key in ORCH_API_KEY, or else in
    `$ORCH_HOME/admin.key`. Each failed attempt is followed by at most `retries` more; a refusal (409) by none."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        retries: int = RETRIES,
        http_client: httpx2.Client | None = None,
    ) -> None:
        self.url = given_url(url, http_client)
        self.connection = Connection(self.url, given_key(api_key), http_client, retries)
        self.projects = surface.Projects(self.connection)
        self.types = surface.Types(self.connection)
        self.users = surface.Users(self.connection)
        self.keys = surface.Keys(self.connection)
        self.feed = surface.Feed(self.connection)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self.connection.close()

    def project(self, name: str) -> ProjectClient:
        """A project by its slug or id; raises NotFound."""
        if is_id(name):
            return ProjectClient(self.connection, name)
        for project in self.projects.list():
            if project.slug == name:
                return ProjectClient(self.connection, project.id)
        raise no_project(name)

    def run_agent(
        self,
        name: str,
        *,
        project: str,
        type: str | None = None,  # noqa: A002  # the field's word
        ttl: int = 30,
        holder: str | None = None,
    ) -> AbstractContextManager[Run]:
        """Be the agent of this name, which is spawned where there is none, or of this id: take its lease, beat, obey.

        `ttl` is how many seconds it may be silent (5 to 300). A run of the same `holder` takes over
        at once; any other, and any where none is given, waits until the lease is lost or given back.
        """
        return running(self.connection, Role(self.project(project).id, name, type, ttl, holder))

    def me(self) -> dict[str, Any]:
        """Who the key belongs to."""
        return self.connection.send(world.me())

    def verify(self) -> dict[str, Any]:
        """The invariants, each with how many rows violate it."""
        return self.connection.send(world.verify())


class AsyncOrchestrator(AbstractAsyncContextManager["AsyncOrchestrator"]):
    """The same with asyncio."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        retries: int = RETRIES,
        http_client: httpx2.AsyncClient | None = None,
    ) -> None:
        self.url = given_url(url, http_client)
        self._key, self._retries = given_key(api_key), retries
        self.connection = AsyncConnection(self.url, self._key, http_client, retries)
        self.projects = surface.AsyncProjects(self.connection)
        self.types = surface.AsyncTypes(self.connection)
        self.users = surface.AsyncUsers(self.connection)
        self.keys = surface.AsyncKeys(self.connection)
        self.feed = surface.AsyncFeed(self.connection)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self.connection.http.aclose()

    async def project(self, name: str) -> AsyncProjectClient:
        """A project by its slug or id; raises NotFound."""
        if is_id(name):
            return AsyncProjectClient(self.connection, name)
        async for project in self.projects.list():
            if project.slug == name:
                return AsyncProjectClient(self.connection, project.id)
        raise no_project(name)

    @asynccontextmanager
    async def run_agent(
        self,
        name: str,
        *,
        project: str,
        type: str | None = None,  # noqa: A002  # the field's word
        ttl: int = 30,
        holder: str | None = None,
    ) -> AsyncIterator[Run]:
        """Be the agent of this name, as with Orchestrator. It beats in a thread, over a connection of its own: not even
        an event loop that is busy costs it its lease."""
        role = Role((await self.project(project)).id, name, type, ttl, holder)
        with ended_by_sigterm(), Connection(self.url, self._key, None, self._retries) as connection:
            async with RunningLater(connection, role) as run:
                yield run

    async def me(self) -> dict[str, Any]:
        """Who the key belongs to."""
        return await self.connection.send(world.me())

    async def verify(self) -> dict[str, Any]:
        """The invariants, each with how many rows violate it."""
        return await self.connection.send(world.verify())


def given_url(url: str | None, http: httpx2.Client | httpx2.AsyncClient | None) -> str:
    """Where the server is; a client of the caller's may know."""
    known = str(http.base_url) if http else ""
    return (url or known or os.environ.get("ORCH_URL") or DEFAULT_URL).rstrip("/")


def given_key(key: str | None) -> str:
    """The caller's key; raises OrchestratorError where there is none, or something else in its place."""
    found = (key or os.environ.get("ORCH_API_KEY") or _kept_key()).strip()
    if not found:
        raise OrchestratorError("no API key: set ORCH_API_KEY, or hand over api_key=")
    if not _KEY.fullmatch(found):  # it is not shown: a key may be part of it
        raise OrchestratorError("the API key must be one key and nothing else")
    return found


def _kept_key() -> str:
    home = os.environ.get("ORCH_HOME") or platformdirs.user_data_dir("orch")
    try:
        return (Path(home) / "admin.key").read_text(errors="replace")
    except OSError:
        return ""


def no_project(name: str) -> NotFound:
    """There is none of that name, or it is not the caller's."""
    entry = {"code": "not_found", "message": f"there is no project {name!r}", "field": None}
    return NotFound({"status": 404, "detail": entry["message"], "errors": [entry]})
