"""What the SDK raises: each refusal as its class, with what the server said about it."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from orchestrator.sdk import (
    ApiError,
    AsyncOrchestrator,
    Conflict,
    Fenced,
    Forbidden,
    Held,
    Invalid,
    InvalidTransition,
    LeaseHeld,
    NotFound,
    Orchestrator,
    OrchestratorError,
    PreconditionFailed,
    ProjectClient,
    RateLimited,
    Unauthenticated,
    errors,
)
from orchestrator.sdk.shapes import Agent
from tests.shell import serving
from tests.stage import Api, Project

pytestmark = pytest.mark.usefixtures("worker")


@pytest.fixture
def scout(demo: ProjectClient, project: Project) -> Agent:
    """A new agent."""
    return demo.agents.get(project.spawn()["id"])


def test_a_move_that_the_lifecycle_has_not_names_those_it_has(demo: ProjectClient, scout: Agent) -> None:
    resume = demo.agents.resume(scout.id)

    with pytest.raises(InvalidTransition, match="idle") as caught:
        demo.commands.wait(resume)

    assert (caught.value.status, caught.value.codes) == (409, ["invalid_transition"])
    assert caught.value.current_status == "idle"
    assert caught.value.allowed == ["working", "paused", "terminated"]
    assert caught.value.problem["command_id"] == resume.id


def test_an_agent_that_others_hold_is_not_resumed(demo: ProjectClient, scout: Agent) -> None:
    demo.commands.wait(demo.agents.pause(scout.id, owner="night-shift"))

    with pytest.raises(Held, match="night-shift"):
        demo.commands.wait(demo.agents.resume(scout.id))
    with pytest.raises(Held):
        demo.agents.lease(scout.id, holder="host:1")


def test_an_agent_of_another_version_is_left_alone(demo: ProjectClient, scout: Agent) -> None:
    with pytest.raises(PreconditionFailed) as caught:
        demo.commands.wait(demo.agents.update(scout.id, name="other", if_version=7))

    assert caught.value.status == 412


def test_a_lease_is_another_s_or_over(demo: ProjectClient, scout: Agent) -> None:
    demo.agents.lease(scout.id, holder="host:1")

    with pytest.raises(LeaseHeld):
        demo.agents.lease(scout.id, holder="host:2")
    demo.agents.release(scout.id, epoch=1)
    with pytest.raises(Fenced):
        demo.agents.beat(scout.id, epoch=1)


def test_a_taken_name_is_a_conflict_that_names_the_agent(demo: ProjectClient, project: Project, scout: Agent) -> None:
    with pytest.raises(Conflict) as caught:
        demo.agents.spawn(scout.name, agent_type_id=project.type_id, unique_name=True)

    assert caught.value.problem["agent_id"] == scout.id


def test_what_is_not_there_is_not_found(orch: Orchestrator, demo: ProjectClient) -> None:
    for look in (demo.agents.get, demo.commands.get, demo.issues.get, demo.agents.pause, demo.commands.wait):
        with pytest.raises(NotFound) as caught:
            look(str(uuid4()))
        assert caught.value.status == 404
    with pytest.raises(NotFound, match="no project 'nowhere'"):
        orch.project("nowhere")


def test_every_field_that_breaks_a_rule_is_named(demo: ProjectClient, scout: Agent) -> None:
    with pytest.raises(Invalid) as caught:
        demo.agents.update(scout.id, status="flying", colour="red")

    assert sorted(map(str, caught.value.fields)) == ["colour", "status"]


@pytest.mark.parametrize("wrong", [{"name": "half a \ud83d"}, {"short_term_memory": {"score": float("nan")}}], ids=str)
def test_what_cannot_be_sent_at_all_is_as_invalid(
    demo: ProjectClient, scout: Agent, server: str, template: tuple[str, str], wrong: dict[str, Any]
) -> None:
    async def later() -> None:
        async with AsyncOrchestrator(server, template[1]) as orch:
            await (await orch.project(demo.id)).agents.update(scout.id, **wrong)

    with pytest.raises(Invalid, match="cannot be written as JSON"):
        demo.agents.update(scout.id, **wrong)
    with pytest.raises(Invalid, match="cannot be written as JSON"):
        asyncio.run(later())


def test_a_stranger_is_not_let_in_and_a_user_not_everywhere(orch: Orchestrator, server: str) -> None:
    user = orch.users.create(f"{uuid4().hex}@example.org")
    with (
        Orchestrator(server, "orch_nobody") as stranger,
        Orchestrator(server, orch.keys.create("theirs", user_id=user.id).key) as theirs,
    ):
        with pytest.raises(Unauthenticated) as refused:
            stranger.me()
        with pytest.raises(Forbidden) as forbidden:
            list(theirs.users.list())

    assert (refused.value.status, forbidden.value.status) == (401, 403)
    assert refused.value.request_id


def test_too_many_requests_say_when_there_is_room_again(admin: Api, tmp_path: Path) -> None:
    limits = '{"*": "off", "admin": "1/hour"}'
    key = admin.user().key  # whose window nobody else has opened
    with serving(tmp_path / "web.log", ORCH_LIMITS=limits) as url, Orchestrator(url, key) as orch:
        list(orch.projects.list())

        with pytest.raises(RateLimited) as caught:  # at once: an hour is more than a client waits by itself
            list(orch.projects.list())

    assert caught.value.retry_after is not None
    assert 60 < caught.value.retry_after <= 3600


@pytest.mark.parametrize(
    ("given", "kind", "status"),
    [
        ({"code": "not_found", "message": "no such agent", "field": None}, NotFound, 404),
        ({"code": "internal", "message": "it failed", "field": None}, ApiError, 500),
        (None, Conflict, 409),
    ],
)
def test_a_command_that_was_not_applied_is_the_error_of_its_request(
    given: dict[str, Any] | None, kind: type[ApiError], status: int
) -> None:
    error = errors.from_command("c", "dead", given)

    assert (type(error), error.status) == (kind, status)


def test_without_a_key_there_is_one_clear_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ORCH_API_KEY", raising=False)
    monkeypatch.setenv("ORCH_HOME", str(tmp_path))

    with pytest.raises(OrchestratorError) as missing:
        Orchestrator("http://127.0.0.1:1")
    (tmp_path / "admin.key").write_text("\n")
    with pytest.raises(OrchestratorError) as empty:
        Orchestrator("http://127.0.0.1:1")
    with pytest.raises(OrchestratorError, match="one key and nothing else") as two:
        Orchestrator("http://127.0.0.1:1", "orch_one\norch_two")

    assert "orch_one" not in str(two.value)
    assert str(missing.value) == str(empty.value) == "no API key: set ORCH_API_KEY, or hand over api_key="


@pytest.mark.parametrize("given", [{"ORCH_API_KEY": "{key}\n"}, {"ORCH_HOME": "{home}"}])
def test_the_key_and_the_server_are_found_in_the_environment(
    server: str,
    template: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    given: dict[str, str],
) -> None:
    (tmp_path / "admin.key").write_text(f"{template[1]}\n")
    monkeypatch.delenv("ORCH_API_KEY", raising=False)
    monkeypatch.setenv("ORCH_URL", f"{server}/")
    for name, value in given.items():
        monkeypatch.setenv(name, value.format(key=template[1], home=tmp_path))

    with Orchestrator() as orch:
        assert orch.me()["user"]["is_superuser"]
