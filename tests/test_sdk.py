"""The clients of the SDK: every operation, every refusal by its class, and retries that have one effect."""

import asyncio
import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel

from orchestrator import sdk
from orchestrator.sdk import AsyncOrchestrator, Orchestrator, ProjectClient, commands, connection, shapes, surface
from tests.shell import serving
from tests.stage import ROOT, Project, eventually

pytestmark = pytest.mark.usefixtures("worker")

PAIRS = [
    (getattr(module, name.removeprefix("Async")), getattr(module, name))
    for module in (surface, commands, sdk)
    for name in vars(module)
    if name.startswith("Async") and hasattr(module, name.removeprefix("Async"))
]


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[str]:
    """The address of a web server."""
    with serving(home / "web-sdk-clients.log") as url:
        yield url


@pytest.fixture
def orch(server: str, template: tuple[str, str]) -> Iterator[Orchestrator]:
    """The administrator's client."""
    with Orchestrator(server, template[1]) as client:
        yield client


@pytest.fixture
def demo(orch: Orchestrator, project: Project) -> ProjectClient:
    """A project."""
    return orch.project(project.id)


@pytest.fixture
def agent(project: Project) -> str:
    """A living agent's id."""
    return str(project.spawn()["id"])


def test_people_places_and_kinds(orch: Orchestrator) -> None:
    name = f"Team {uuid4().hex[:8]}"
    project, kind = orch.projects.create(name), orch.types.create(name)
    user = orch.users.create(f"{uuid4().hex}@example.org")
    key = orch.keys.create("deploy", user_id=user.id)

    assert orch.project(project.slug).id == orch.projects.get(project.id).id == project.id
    assert orch.projects.change(project.id, status="archived").status == "archived"
    assert orch.types.change(kind.id, is_active=False).is_active is False
    assert (orch.types.get(kind.id).slug, kind.id in [each.id for each in orch.types.list()]) == (kind.slug, True)
    assert [each.id for each in orch.keys.list(user_id=user.id)] == [key.id]
    with Orchestrator(orch.url, key.key) as theirs:
        assert theirs.me()["user"]["id"] == user.id
        with pytest.raises(sdk.Forbidden):
            theirs.users.create("x@example.org")
        orch.keys.revoke(key.id)
        eventually(lambda: refused(theirs))
    assert orch.users.change(user.id, is_active=False).is_active is False
    assert user.id in [each.id for each in orch.users.list()]
    assert orch.users.get(user.id).email == user.email
    assert orch.verify()["ok"] is True


def refused(client: Orchestrator) -> bool:
    """Whether its key is good no more."""
    try:
        client.me()
    except sdk.Unauthenticated:
        return True
    return False


def test_the_life_of_an_agent(demo: ProjectClient, project: Project) -> None:
    born = demo.commands.wait(demo.agents.spawn("scout", agent_type_id=project.type_id, reason="a try"))
    agent = born.agent_id
    for change in (
        demo.agents.update(agent, status="working", current_task="read"),
        demo.agents.pause(agent, owner="budget", reason="too dear"),
        demo.agents.resume(agent, owner="budget"),
    ):
        assert demo.commands.wait(change).state == "applied"
    assert demo.report([{"agent_id": agent, "report_id": "1", "cost": "0.25", "input_tokens": 3}]).accepted == 1

    shown = eventually(lambda: (found := demo.agents.get(agent)).tokens_used == 3 and found)
    assert (shown.status, shown.cost_incurred, shown.version) == ("idle", Decimal("0.25"), 4)
    assert demo.agents.metrics(agent).total_tokens_used == demo.metrics().total_tokens_used == 3
    assert [group.tokens_used for group in demo.usage(group_by="agent")] == [3]
    assert [event.verb for event in demo.agents.history(agent)] == ["spawn", "work", "pause", "resume"]
    assert demo.agents.explain(agent)["status"] == "idle"
    lease = demo.agents.lease(agent, holder="host")
    assert demo.agents.beat(agent, epoch=lease.epoch, status="working").directive == "continue"
    assert demo.agents.beat_many([{"agent_id": agent, "epoch": 9}])[0]["error"]["code"] == "fenced"
    demo.agents.release(agent, epoch=lease.epoch)
    issue = demo.issues.create("a bug", assigned_agent_id=agent)
    assert demo.issues.change(issue.id, status="closed", assigned_agent_id=None).assigned_agent_id is None
    assert [demo.issues.get(each.id).status for each in demo.issues.list(status="closed")] == ["closed"]
    ended = demo.commands.wait(demo.agents.terminate(agent, mode="immediate"), until="quiesced")
    assert (ended.quiesced_by, demo.commands.get(ended.id).state) == ("no_lease", "applied")
    assert [each.id for each in demo.agents.list(status="terminated")] == [agent]
    assert born.id in [each.id for each in demo.commands.list(agent_id=agent)]


def test_the_same_with_asyncio(server: str, template: tuple[str, str], project: Project) -> None:
    async def walk() -> list[str]:
        async with AsyncOrchestrator(server, template[1]) as orch:
            assert (await orch.me())["user"]["is_superuser"]
            demo = await orch.project((await orch.projects.get(project.id)).slug)
            born = await demo.commands.wait(await demo.agents.spawn("scout", agent_type_id=project.type_id))
            await demo.commands.wait(await demo.agents.pause(born.agent_id), until="quiesced")
            with pytest.raises(sdk.InvalidTransition):
                await demo.commands.wait(await demo.agents.pause(born.agent_id))
            with pytest.raises(sdk.NotFound):
                await orch.project("nowhere")
            return [agent.status async for agent in demo.agents.list()]

    assert asyncio.run(walk()) == ["paused"]


def test_a_list_goes_on_over_its_pages(demo: ProjectClient, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.sdk.documents.PAGE", 2)
    for number in range(5):
        demo.commands.wait(demo.agents.spawn(f"scout-{number}", agent_type_id=project.type_id))

    assert [agent.name for agent in demo.agents.list()] == [f"scout-{number}" for number in range(4, -1, -1)]
    eventually(lambda: len(list(demo.events())) == 5)


def test_each_refusal_has_its_class_and_what_it_says(demo: ProjectClient, orch: Orchestrator, agent: str) -> None:
    with pytest.raises(sdk.InvalidTransition, match="cannot resume an agent that is idle"):
        demo.commands.wait(demo.agents.resume(agent))
    with pytest.raises(sdk.PreconditionFailed):
        demo.commands.wait(demo.agents.update(agent, if_version=7, name="x"))
    with pytest.raises(sdk.NotFound) as unknown:
        demo.agents.get(str(uuid4()))
    assert (unknown.value.status, unknown.value.codes) == (404, ["not_found"])
    assert unknown.value.request_id
    with pytest.raises(sdk.Invalid) as invalid:
        demo.agents.update(agent, name="")
    assert invalid.value.fields == ["name"]
    demo.agents.lease(agent, holder="one")
    with pytest.raises(sdk.LeaseHeld):
        demo.agents.lease(agent, holder="two")
    with pytest.raises(sdk.Fenced):
        demo.agents.release(agent, epoch=9)
    demo.commands.wait(demo.agents.pause(agent, owner="budget"))
    with pytest.raises(sdk.Held):
        demo.agents.lease(agent, holder="one")
    with pytest.raises(sdk.Timeout):
        demo.commands.wait(demo.agents.pause(agent, owner="ops"), until="quiesced", timeout=0.2)
    with Orchestrator(orch.url, "wrong") as stranger, pytest.raises(sdk.Unauthenticated):
        stranger.me()


def test_without_a_key_there_is_one_clear_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ORCH_API_KEY", raising=False)
    monkeypatch.setenv("ORCH_HOME", str(tmp_path))

    with pytest.raises(sdk.OrchestratorError, match="no API key: set ORCH_API_KEY"):
        Orchestrator()


@pytest.mark.parametrize(("now", "later"), PAIRS, ids=[pair[0].__name__ for pair in PAIRS])
def test_both_surfaces_have_the_same_operations(now: type, later: type) -> None:
    def operations(of: type) -> dict[str, list[str]]:
        found = {name: value for name, value in inspect.getmembers(of, inspect.isfunction) if name[0] != "_"}
        return {name: list(inspect.signature(value).parameters)[1:] for name, value in found.items()}

    missing = {"run_agent"} if now is Orchestrator else set()  # an agent's process is a thread of its own either way
    assert {name: of for name, of in operations(now).items() if name not in missing} == operations(later)


@pytest.mark.parametrize(
    "name", ["Agent", "Command", "Event", "Hold", "Metrics", "Project", "AgentType", "Issue", "User"]
)
def test_the_shapes_are_those_of_the_api(name: str) -> None:
    documented = json.loads((ROOT / "docs/openapi.json").read_text())["components"]["schemas"][name]["properties"]
    shape: type[BaseModel] = getattr(shapes, name)

    assert set(shape.model_fields) == set(documented)
    nullable = {field for field, of in documented.items() if {"type": "null"} in of.get("anyOf", [])}
    assert {field for field, of in shape.model_fields.items() if type(None) in _kinds(of.annotation)} == nullable


def _kinds(annotation: Any) -> tuple[Any, ...]:
    return getattr(annotation, "__args__", ())


@dataclass
class Script:
    """Answers to be given, one per request, and the requests that came."""

    answers: list[tuple[int, dict[str, str]]]
    keys: list[str | None] = field(default_factory=list)


@contextmanager
def answering(*answers: tuple[int, dict[str, str]]) -> Iterator[tuple[str, Script]]:
    """A server that gives these answers; status 0 closes the connection."""
    script = Script(list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            script.keys.append(self.headers["Idempotency-Key"])
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers = script.answers.pop(0)
            if not status:
                self.close_connection = True
                return
            body = {"status": status, "detail": "so it is", "errors": [{"code": _code(status), "field": None}]}
            self._say(status, headers, json.dumps(body).encode())

        def _say(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", script
        running.shutdown()


def _code(status: int) -> str:
    return {409: "conflict", 429: "rate_limited", 503: "unavailable"}.get(status, "internal")


@pytest.mark.parametrize(
    ("answers", "error", "attempts", "pauses"),
    [
        ([(503, {}), (503, {}), (503, {})], sdk.Unavailable, 3, [(0.375, 0.5), (0.75, 1.0)]),
        ([(503, {"Retry-After": "3"}), (409, {})], sdk.Conflict, 2, [(3, 3)]),
        ([(409, {})], sdk.Conflict, 1, []),
        ([(429, {"Retry-After": "7"}), (429, {"Retry-After": "61"})], sdk.RateLimited, 2, [(7, 7)]),
        ([(0, {}), (0, {}), (0, {})], sdk.ConnectionFailed, 3, [(0.375, 0.5), (0.75, 1.0)]),
    ],
)
def test_what_may_pass_is_tried_again_under_one_key(
    monkeypatch: pytest.MonkeyPatch,
    answers: list[tuple[int, dict[str, str]]],
    error: type[Exception],
    attempts: int,
    pauses: list[tuple[float, float]],
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(connection.time, "sleep", slept.append)

    with answering(*answers) as (url, script), Orchestrator(url, "key") as orch, pytest.raises(error):
        orch.projects.create("Demo")

    assert len(script.keys) == attempts
    assert len(set(script.keys)) == 1
    assert script.keys[0]
    assert len(slept) == len(pauses)
    assert all(least <= pause <= most for pause, (least, most) in zip(slept, pauses, strict=True))


def test_what_is_no_orchestrator_is_said_to_be_none() -> None:
    with answering((200, {})) as (url, _), Orchestrator(url, "key") as orch, pytest.raises(sdk.NoServer):
        orch.projects.get("x")
