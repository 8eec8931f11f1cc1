"""The API's surface as one table: an example of each route, the callers there are, and all that the database holds."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import uuid4

from flask_openapi3 import OpenAPI
from werkzeug.test import TestResponse

from orchestrator.columns import metadata
from tests.stage import Api, Project, sql

PREFIX = "/api/v1"
PLAIN = ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"]
"""What needs no key."""


@dataclass(frozen=True)
class Scene:
    """One of each thing there is, in a project that nobody drains; the project is its owner's."""

    admin: Api
    owner: Api
    project: Project
    ids: dict[str, str]

    @classmethod
    def set(cls, admin: Api) -> Self:
        """A new one; `admin` must be a superuser's."""
        owner = admin.user()
        project = Project.make(admin, owner)
        agent = project.born()
        made = {
            "command_id": project.send(agent, "pause"),
            "batch_id": _batch(owner, project),
            "issue_id": owner.post(f"{project.path}/issues", {"title": "bug"}).json,
            "user_id": owner.get("me").json["user"],  # type: ignore[index]
            "key_id": owner.post("keys", {"name": "spare"}).json,
        }
        ids = {name: thing["id"] for name, thing in made.items()}
        return cls(
            admin, owner, project, ids | {"project_id": project.id, "agent_id": agent, "type_id": project.type_id}
        )

    def address(self, rule: str, **other: str) -> str:
        """The address of a route with this scene's ids, or the `other` ones."""
        for name, value in (self.ids | other).items():
            rule = rule.replace(f"<{name}>", value)
        return rule


@dataclass(frozen=True)
class Example:
    """A request that is answered with `status`; `ready` makes what it uses up, and returns the ids."""

    status: int = 200
    body: Callable[[Scene], dict[str, Any]] | None = None
    bare: bool = False
    """Whether the body can be left out."""
    superuser: bool = False
    ready: Callable[[Scene], dict[str, str]] = field(default=lambda _: {})


def _batch(owner: Api, project: Project) -> dict[str, Any]:
    sent = owner.post(f"{project.path}/commands/by-filter", {"verb": "pause", "filter": {"q": "nobody"}}).json
    return {"id": sent["batch_id"]}  # type: ignore[index]


def _entry() -> dict[str, Any]:
    return {"report_id": uuid4().hex, "input_tokens": 1, "cost": "0.5", "occurred_at": None}


def _named(**more: Any) -> Callable[[Scene], dict[str, Any]]:
    return lambda _: {"name": f"Name {uuid4().hex}"} | more


def _same(**body: Any) -> Callable[[Scene], dict[str, Any]]:
    return lambda _: body


def _leased(scene: Scene) -> dict[str, str]:
    agent_id = scene.project.born()
    assert scene.owner.post(f"{scene.project.agent(agent_id)}/lease", {"holder": "host"}).status_code == 201
    return {"agent_id": agent_id}


EXAMPLES = {
    "spawn_agent": Example(202, lambda s: {"agent_type_id": s.project.type_id, "name": "scout"}),
    "list_project_agents": Example(),
    "get_project_agent_metrics": Example(),
    "get_agent": Example(),
    "update_agent": Example(202, _same(name="other")),
    "pause_agent": Example(202, _same(reason="tea"), bare=True),
    "resume_agent": Example(202, _same(reason="tea"), bare=True),
    "terminate_agent": Example(202, _same(reason="tea"), bare=True),
    "get_agent_metrics": Example(),
    "lease_agent": Example(201, _same(holder="host"), ready=lambda s: {"agent_id": s.project.born()}),
    "release_lease": Example(204, _same(epoch=1), ready=_leased),
    "beat": Example(200, lambda _: {"epoch": 1, "entries": [_entry()]}, ready=_leased),
    "beat_many": Example(
        200, lambda s: {"beats": [{"agent_id": s.ids["agent_id"], "epoch": 1, "entries": [_entry()]}]}
    ),
    "explain_agent": Example(),
    "get_command": Example(),
    "list_commands": Example(),
    "cancel_command": Example(ready=lambda s: {"command_id": s.project.send(s.ids["agent_id"], "pause")["id"]}),
    "send_commands": Example(202, lambda s: {"commands": [{"verb": "pause", "agent_id": s.ids["agent_id"]}]}),
    "send_matching": Example(202, _same(verb="pause", filter={"q": "nobody"})),
    "get_batch": Example(),
    "list_agent_events": Example(),
    "list_project_events": Example(),
    "list_events": Example(),
    "report_agent_usage": Example(202, lambda _: {"entries": [_entry()]}),
    "report_project_usage": Example(202, lambda s: {"entries": [_entry() | {"agent_id": s.ids["agent_id"]}]}),
    "get_usage": Example(),
    "get_me": Example(),
    "create_user": Example(201, lambda _: {"email": f"{uuid4().hex}@example.org"}, superuser=True),
    "list_users": Example(superuser=True),
    "get_user": Example(superuser=True),
    "change_user": Example(200, _same(is_active=True), superuser=True),
    "create_key": Example(201, _named()),
    "list_keys": Example(),
    "revoke_key": Example(204, ready=lambda s: {"key_id": s.owner.post("keys", {"name": "spare"}).json["id"]}),  # type: ignore[index]
    "create_project": Example(201, _named()),
    "list_projects": Example(),
    "get_project": Example(),
    "change_project": Example(200, _same(name="other")),
    "create_agent_type": Example(201, _named(), superuser=True),
    "list_agent_types": Example(),
    "get_agent_type": Example(),
    "change_agent_type": Example(200, _same(is_active=True), superuser=True),
    "create_issue": Example(201, _same(title="bug")),
    "list_issues": Example(),
    "get_issue": Example(),
    "change_issue": Example(200, _same(status="closed")),
    "verify": Example(superuser=True),
}
"""Every operation below PREFIX by its name. A test fails where a route is missing."""

WITH_BODY = [name for name, example in EXAMPLES.items() if example.body is not None]
SUPERUSERS_ONLY = [name for name, example in EXAMPLES.items() if example.superuser]


def routes(app: OpenAPI) -> dict[str, tuple[str, str]]:
    """Method and address pattern of every operation below PREFIX, by its name, from the app itself."""
    rules = [rule for rule in app.url_map.iter_rules() if rule.rule.startswith(PREFIX)]
    found = {(rule.endpoint.split(".")[-1], verb): rule.rule for rule in rules for verb in rule.methods or ()}
    return {name: (verb, rule) for (name, verb), rule in found.items() if verb not in ("HEAD", "OPTIONS")}


def call(scene: Scene, api: Api, app: OpenAPI, operation: str, **ids: str) -> TestResponse:
    """The operation's example as this caller sends it, for the scene's things or the `ids` given instead."""
    example, (method, rule) = EXAMPLES[operation], routes(app)[operation]
    address = scene.address(rule, **(example.ready(scene) | ids))
    return api(method, address, example.body(scene) if example.body else None)


def send(api: Api, method: str, path: str, data: bytes, kind: str | None = "application/json") -> TestResponse:
    """A request with these bytes as its body, of this content type."""
    headers = {"Authorization": f"Bearer {api.key}"}
    return api.client.open(path, method=method, data=data, content_type=kind, headers=headers)


def holdings() -> dict[str, str]:
    """A digest of each table's rows; when a key was last used does not count."""
    return {row.name: row.digest for row in sql(_DIGESTS)}


_DIGESTS = " UNION ALL ".join(
    f"""SELECT '{table.name}' AS name,
        md5(string_agg((to_jsonb(t) - 'last_used_at')::text, '' ORDER BY to_jsonb(t)::text)) AS digest
    FROM {table.name} t"""
    for table in metadata.sorted_tables
)
"""One statement for all tables: hundreds of tests ask before and after."""
