"""Idempotency keys: same caller, same key, same request → one effect, and its present state; anything else is said."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any
from uuid import uuid4

import pytest

from orchestrator.db import Guard, begin
from orchestrator.upkeep import prune
from tests.stage import WAIT, Api, Project, drain, is_problem, settle, sql


def key() -> dict[str, str]:
    """A header with a key nobody has used."""
    return {"Idempotency_Key": uuid4().hex}


def wanted(project: Project, **more: Any) -> dict[str, Any]:
    """The body of a spawn."""
    return {"agent_type_id": project.type_id, "name": "scout"} | more


def replayed(*answers: Any) -> list[bool]:
    """Which answers say that an earlier request made what they show."""
    said = [answer.headers.get("Idempotency-Replayed") for answer in answers]
    assert set(said) <= {None, "true"}
    return [word == "true" for word in said]


def spawned() -> int:
    """How many agents there are, the unborn ones too."""
    count: int = sql("SELECT count(*) FROM agents")[0][0]
    return count


# The same request


def test_a_retried_spawn_answers_the_same_command(quiet: Project) -> None:
    once = key()

    first, again = (quiet.api.post(f"{quiet.path}/agents", wanted(quiet), **once) for _ in range(2))

    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json == again.json
    assert first.headers["Location"] == again.headers["Location"]
    assert replayed(first, again) == [False, True]
    assert spawned() == 1


def test_a_replay_shows_the_command_as_it_stands_now(quiet: Project) -> None:
    once = key()
    quiet.api.post(f"{quiet.path}/agents", wanted(quiet), **once)
    settle()

    again = quiet.api.post(f"{quiet.path}/agents", wanted(quiet), **once)

    assert (again.status_code, again.json["state"], again.json["version"]) == (202, "applied", 1)


@pytest.mark.parametrize(("first_waits", "then_waits"), list(product([False, True], repeat=2)))
def test_a_replay_is_answered_as_this_request_prefers(project: Project, first_waits: bool, then_waits: bool) -> None:
    once, agents = key(), f"{project.path}/agents"

    first = project.api.post(agents, wanted(project), **once, **(WAIT if first_waits else {}))
    again = project.api.post(agents, wanted(project), **once, **(WAIT if then_waits else {}))

    assert first.status_code == (201 if first_waits else 202)
    assert again.status_code == (201 if then_waits else 202)
    assert replayed(first, again) == [False, True]
    made = {answer.json["id"] if answer.status_code == 201 else answer.json["agent_id"] for answer in (first, again)}
    assert len(made) == 1


def test_a_replay_that_waits_shows_the_agent_as_it_stands_now(project: Project) -> None:
    once, agents = key(), f"{project.path}/agents"
    agent = project.api.post(agents, wanted(project), **once, **WAIT).json
    project.api.post(f"{project.agent(agent['id'])}/pause", **WAIT)

    again = project.api.post(agents, wanted(project), **once, **WAIT)

    assert (again.status_code, again.json["id"], again.json["status"]) == (201, agent["id"], "paused")


def test_a_replayed_pause_pauses_nothing_again(project: Project) -> None:
    once, agent = key(), project.spawn()["id"]
    path = project.agent(agent)
    project.api.post(f"{path}/pause", **once, **WAIT)
    project.api.post(f"{path}/resume", **WAIT)

    again = project.api.post(f"{path}/pause", **once, **WAIT)

    assert (again.status_code, again.json["status"], again.json["version"]) == (200, "idle", 3)
    assert replayed(again) == [True]


@pytest.mark.parametrize("replay", [False, True])
def test_a_command_that_was_refused_when_applied_is_refused_again_and_says_so(project: Project, replay: bool) -> None:
    once, path = key(), project.agent(project.spawn()["id"])
    if replay:
        project.api.post(f"{path}/resume", **once, **WAIT)
        project.api.post(f"{path}/pause", **WAIT)

    answer = project.api.post(f"{path}/resume", **once, **WAIT)

    assert is_problem(answer, 409, "invalid_transition")
    assert answer.json["current_status"] == "idle"
    assert replayed(answer) == [replay]
    assert answer.headers["Preference-Applied"] == "wait=10"


def test_a_replayed_terminate_says_the_same_though_the_agent_is_gone(project: Project) -> None:
    once, path = key(), project.agent(project.spawn()["id"])

    first, again = (project.api.delete(path, **once, **WAIT) for _ in range(2))

    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json == again.json == {"success": True, "message": "Agent 'scout' has been terminated"}


def test_neither_prefer_nor_the_way_the_body_is_written_makes_another_request(quiet: Project) -> None:
    once, path = uuid4().hex, f"/api/v1/{quiet.path}/agents"
    headers = {"Authorization": f"Bearer {quiet.api.key}", "Idempotency-Key": once, "Content-Type": "application/json"}
    spellings = [quiet.type_id, quiet.type_id.upper(), quiet.type_id]
    bodies = [
        '{"agent_type_id": "TYPE", "name": "scout", "short_term_memory": {"a": 1, "b": [2]}}',
        '{"short_term_memory":{"b":[2],"a":1},"name":"  scout ","agent_type_id":"TYPE"}',
        '{"name": "sc\\u006fut", "short_term_memory": {"a": 1, "b": [2]}, "reason": null, "agent_type_id": "TYPE"}',
    ]
    bodies = [body.replace("TYPE", type_id) for body, type_id in zip(bodies, spellings, strict=True)]

    answers = [quiet.api.client.post(path, data=body, headers=headers) for body in bodies]
    answers.append(quiet.api.client.post(f"{path}?page=2", data=bodies[0], headers=headers | {"Prefer": "wait=0"}))
    answers.append(quiet.api.client.post(path, data=bodies[0], headers=headers | {"X-Request-ID": "another"}))

    assert [answer.status_code for answer in answers] == [202] * 5
    assert replayed(*answers) == [False, True, True, True, True]
    assert spawned() == 1


# Another request


def other_requests(project: Project, agent: str, other: str) -> dict[str, tuple[str, str, Any, dict[str, str]]]:
    """Requests that differ from a PATCH of an agent's name to "a" under If-Match "1" in one respect each."""
    path, match = project.agent(agent), {"If_Match": '"1"'}
    return {
        "value": ("PATCH", path, {"name": "b"}, match),
        "field": ("PATCH", path, {"name": "a", "session_id": None}, match),
        "reason": ("PATCH", path, {"name": "a", "reason": "tea"}, match),
        "path": ("PATCH", project.agent(other), {"name": "a"}, match),
        "verb": ("POST", f"{path}/pause", {}, match),
        "method": ("DELETE", path, {}, match),
        "version": ("PATCH", path, {"name": "a"}, {"If_Match": '"2"'}),
        "no version": ("PATCH", path, {"name": "a"}, {}),
        "collection": ("POST", f"{project.path}/issues", {"title": "a"}, {}),
    }


@pytest.mark.parametrize(
    "respect", ["value", "field", "reason", "path", "verb", "method", "version", "no version", "collection"]
)
def test_another_request_under_a_used_key_is_refused_and_does_nothing(quiet: Project, respect: str) -> None:
    once, agent, other = key(), quiet.born(), quiet.born()
    first = quiet.api.patch(quiet.agent(agent), {"name": "a"}, If_Match='"1"', **once)
    before = sql("SELECT id FROM commands")
    method, path, body, headers = other_requests(quiet, agent, other)[respect]

    answer = quiet.api(method, path, body, **headers, **once)

    assert first.status_code == 202
    assert is_problem(answer, 422, "idempotency_key_reused")
    assert replayed(answer) == [False]
    assert sql("SELECT id FROM commands") == before


def test_null_and_absent_are_two_requests_where_they_mean_two_things(quiet: Project) -> None:
    once, agent = key(), quiet.born()

    kept = quiet.api.patch(quiet.agent(agent), {"name": "a"}, **once)
    cleared = quiet.api.patch(quiet.agent(agent), {"name": "a", "current_task": None}, **once)

    assert kept.status_code == 202
    assert is_problem(cleared, 422, "idempotency_key_reused")


# Whose key


def test_a_key_is_the_users_whichever_api_key_he_comes_with(quiet: Project) -> None:
    once = key()
    second = Api(quiet.api.client, quiet.api.post("keys", {"name": "second"}).json["key"])  # type: ignore[index]

    first, again = (who.post(f"{quiet.path}/agents", wanted(quiet), **once) for who in (quiet.api, second))

    assert replayed(first, again) == [False, True]
    assert spawned() == 1


def archive(project: Project) -> None:
    """No more spawns in this project."""
    assert project.api.patch(project.path, {"status": "archived"}).status_code == 200


def close_type(project: Project) -> None:
    """No more spawns of this type."""
    assert project.api.patch(f"agent-types/{project.type_id}", {"is_active": False}).status_code == 200


@pytest.mark.parametrize("change", [archive, close_type])
@pytest.mark.parametrize("more", [{}, {"unique_name": True}])
def test_a_retry_finds_its_agent_though_spawning_has_ended(
    quiet: Project, change: Callable[[Project], None], more: dict[str, Any]
) -> None:
    once, agents = key(), f"{quiet.path}/agents"
    first = quiet.api.post(agents, wanted(quiet, **more), **once)
    drain()
    change(quiet)

    again, fresh = (quiet.api.post(agents, wanted(quiet, **more), **header) for header in (once, key()))

    assert (again.status_code, again.json["id"]) == (202, first.json["id"])
    assert replayed(again) == [True]
    assert fresh.status_code in {409, 422}


def test_who_has_lost_the_project_learns_nothing_by_his_key(admin: Api, quiet: Project) -> None:
    once, owner, heir = key(), admin.user(), admin.user()
    project = Project.make(admin, owner)
    owner.post(f"{project.path}/agents", wanted(project), **once)
    admin.patch(project.path, {"owner_id": heir.get("me").json["user"]["id"]})  # type: ignore[index]

    old, new = (who.post(f"{project.path}/agents", wanted(project), **once) for who in (owner, heir))

    assert is_problem(old, 404, "not_found")
    assert new.status_code == 202
    assert replayed(new) == [False]


# Keys that stay free, and keys that are given back


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"agent_type_id": "00000000-0000-0000-0000-000000000000", "name": "a"}', 404),
        (b'{"agent_type_id": "00000000-0000-0000-0000-000000000000", "name": "a", "unique_name": true}', 404),
    ],
)
def test_a_refused_spawn_leaves_its_key_free(quiet: Project, body: bytes, status: int) -> None:
    once, path = uuid4().hex, f"{quiet.path}/agents"
    headers = {"Authorization": f"Bearer {quiet.api.key}", "Idempotency-Key": once}

    refused = quiet.api.client.post(f"/api/v1/{path}", data=body, headers=headers, content_type="application/json")
    fine = quiet.api.post(path, wanted(quiet), Idempotency_Key=once)

    assert (refused.status_code, fine.status_code) == (status, 202)
    assert replayed(fine) == [False]


def test_a_command_for_an_unknown_agent_leaves_its_key_free(quiet: Project) -> None:
    once, agent = key(), quiet.born()

    refused = quiet.api.post(f"{quiet.agent(uuid4())}/pause", **once)
    fine = quiet.api.post(f"{quiet.agent(agent)}/pause", **once)

    assert (refused.status_code, fine.status_code) == (404, 202)


def test_a_taken_name_leaves_the_key_free(quiet: Project) -> None:
    once, agents = key(), f"{quiet.path}/agents"
    quiet.born(name="scout")

    refused = quiet.api.post(agents, wanted(quiet, unique_name=True), **once)
    fine = quiet.api.post(agents, wanted(quiet, name="other", unique_name=True), **once)

    assert (refused.status_code, fine.status_code) == (409, 202)


def test_keys_are_kept_for_a_day_and_then_given_back(quiet: Project) -> None:
    young, old, agents = key(), key(), f"{quiet.path}/agents"
    for once, age in ((young, "24 hours"), (old, "49 hours")):
        quiet.api.post(agents, wanted(quiet), **once)
        aged = "UPDATE requests SET created_at = now() - CAST(:age AS interval) WHERE key = :key"
        sql(aged, age=age, key=once["Idempotency_Key"])

    with begin(Guard.TOOL) as db:
        prune(db)

    assert replayed(*(quiet.api.post(agents, wanted(quiet), **once) for once in (young, old))) == [True, False]


# At once


def test_fifty_parallel_retries_of_a_spawn_make_one_agent(quiet: Project) -> None:
    once, agents = key(), f"{quiet.path}/agents"

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: quiet.api.post(agents, wanted(quiet), **once), range(50)))

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert sum(replayed(*answers)) == 49
    assert spawned() == 1


def test_of_two_requests_that_race_for_a_key_one_is_refused(quiet: Project) -> None:
    agents = f"{quiet.path}/agents"
    for _ in range(10):
        once = key()

        def spawn(name: str, once: dict[str, str] = once) -> Any:
            return quiet.api.post(agents, wanted(quiet, name=name), **once)

        with ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(spawn, ["a", "b"] * 5))

        assert sorted(answer.status_code for answer in answers) == [202] * 5 + [422] * 5
    assert spawned() == 10


def test_a_retry_waits_for_the_first_try_and_then_shows_what_it_made(quiet: Project) -> None:
    once, agents = key(), f"{quiet.path}/agents"
    slow = wanted(quiet, unique_name=True)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: quiet.api.post(agents, slow, **once), range(8)))

    assert {answer.status_code for answer in answers} == {202}
    assert sum(replayed(*answers)) == 7
    assert spawned() == 1
