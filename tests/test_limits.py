"""Limits at the door: which one a request spends, what the answer says of it, and that no spelling gets around it."""

import json
import re
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from flask_openapi3 import OpenAPI
from werkzeug.test import TestResponse

from orchestrator import limits
from orchestrator.limits import Limit
from orchestrator.settings import settings
from tests.stage import Api, eventually, is_problem
from tests.surface import EXAMPLES, Scene, call, send
from web import create_app

DEFAULTS = {
    **dict.fromkeys(("spawn", "pause", "resume"), "20/minute"),
    **dict.fromkeys(("list", "metrics", "get", "agent_metrics", "admin", "anonymous"), "60/minute"),
    **dict.fromkeys(("command", "event"), "120/minute"),
    "update": "30/minute",
    "terminate": "10/minute",
    "bulk": "10/minute",
    "usage": "600/minute",
    "console": "1200/minute",
    "lease": "off",
}
"""As the contract has them."""

SPENDS = {
    "spawn_agent": "spawn",
    "list_project_agents": "list",
    "get_project_agent_metrics": "metrics",
    "get_agent": "get",
    "update_agent": "update",
    "pause_agent": "pause",
    "resume_agent": "resume",
    "terminate_agent": "terminate",
    "get_agent_metrics": "agent_metrics",
    "explain_agent": "get",
    **dict.fromkeys(("lease_agent", "release_lease", "beat", "beat_many"), "lease"),
    **dict.fromkeys(("get_command", "list_commands", "cancel_command", "get_batch"), "command"),
    **dict.fromkeys(("send_commands", "send_matching"), "bulk"),
    **dict.fromkeys(("list_agent_events", "list_project_events", "list_events"), "event"),
    **dict.fromkeys(("report_agent_usage", "report_project_usage"), "usage"),
}
"""What each operation spends; what is not named spends `admin`."""

Set = Callable[..., None]


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Set]:
    """Sets the limits of this process: `limit(get="5/second")`; all others are off."""

    def put(**given: str) -> None:
        monkeypatch.setenv("ORCH_LIMITS", json.dumps({"*": "off", "anonymous": "off"} | given))
        forget()

    yield put
    monkeypatch.undo()
    forget()


def forget() -> None:
    """Let this process read its settings anew."""
    settings.cache_clear()
    limits.limits.cache_clear()


def agent_of(scene: Scene) -> str:
    """The address of the scene's agent."""
    return scene.project.agent(scene.ids["agent_id"])


def policy(answer: TestResponse) -> str | None:
    """The action whose limit an answer tells."""
    told = re.fullmatch(r'"(\w+)";q=\d+;w=\d+', answer.headers.get("RateLimit-Policy", ""))
    return told and told[1]


def left(answer: TestResponse) -> int:
    """How many more requests an answer allows."""
    told = re.fullmatch(r'"\w+";r=(\d+);t=[1-9]\d*', answer.headers["RateLimit"])
    assert told is not None
    return int(told[1])


def test_the_defaults_are_the_contracts(limit: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORCH_LIMITS")
    forget()

    said = {action: found and (found.quota, found.window) for action, found in limits.limits().items()}

    assert said == {name: None if words == "off" else (int(words[:-7]), 60) for name, words in DEFAULTS.items()}


@pytest.mark.parametrize("operation", EXAMPLES)
def test_each_route_spends_its_action(app: OpenAPI, scene: Scene, limit: Set, operation: str) -> None:
    limit(**{"*": "1000/day"})

    answer = call(scene, scene.admin if EXAMPLES[operation].superuser else scene.owner, app, operation)

    assert answer.status_code == EXAMPLES[operation].status, answer.data
    assert policy(answer) == SPENDS.get(operation, "admin")


@pytest.mark.parametrize(
    ("body", "action"),
    [
        (b'{"status": "paused"}', "pause"),
        (b'{"status": "terminated", "name": "x"}', "terminate"),
        (b'{"status": "working", "status": "paused"}', "pause"),
        (b'{"st\\u0061tus": "paus\\u0065d"}', "pause"),
        (b'{"status": "idle"}', "update"),
        (b'{"status": "working"}', "update"),
        (b'{"status": "PAUSED"}', "update"),
        (b'{"status": ["paused"]}', "update"),
        (b'{"status": null}', "update"),
        (b'{"name": "paused"}', "update"),
        (b"{}", "update"),
        (b"", "update"),
        (b'{"status": "paused"', "update"),
        (b"[]", "update"),
    ],
)
def test_a_patch_spends_what_it_does(scene: Scene, limit: Set, body: bytes, action: str) -> None:
    limit(**{"*": "1000/day"})

    answer = send(scene.owner, "PATCH", f"/api/v1/{agent_of(scene)}", body)

    assert policy(answer) == action


def test_pauses_through_both_doors_are_one_limit(scene: Scene, limit: Set) -> None:
    limit(pause="2/minute", update="9/minute")
    owner = scene.admin.user()

    door, patch = owner.post(f"{agent_of(scene)}/pause"), owner.patch(agent_of(scene), {"status": "paused"})

    assert (left(door), left(patch)) == (1, 0)
    assert is_problem(owner.patch(agent_of(scene), {"status": "paused"}), 429, "rate_limited")
    assert is_problem(owner.post(f"{agent_of(scene)}/pause"), 429, "rate_limited")
    assert owner.patch(agent_of(scene), {"status": "idle"}).status_code == 404


def test_answers_count_down_and_the_next_one_says_when_to_come_back(scene: Scene, limit: Set) -> None:
    user = scene.admin.user()
    limit(admin="3/minute")

    answers = [user.get("projects") for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [left(answer) for answer in answers] == [2, 1, 0, 0]
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"admin";q=3;w=60'}
    assert is_problem(answers[-1], 429, "rate_limited")
    assert 55 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert answers[-1].headers["RateLimit"] == f'"admin";r=0;t={answers[-1].headers["Retry-After"]}'


def test_every_limited_answer_tells_its_limit_whatever_it_says(scene: Scene, limit: Set) -> None:
    user = scene.admin.user()
    limit(list="9/minute", get="9/minute", admin="9/minute")
    own = user.post("projects", {"name": "Own"}).json["id"]  # type: ignore[index]

    fine, wrong = user.get(f"projects/{own}/agents"), user.get(f"projects/{own}/agents?limit=0")
    missing, forbidden = user.get(f"projects/{own}/agents/{uuid4()}"), user.get("users")

    assert [fine.status_code, wrong.status_code, missing.status_code, forbidden.status_code] == [200, 422, 404, 403]
    assert [left(answer) for answer in (fine, wrong, missing, forbidden)] == [8, 7, 8, 7]


def test_what_is_not_limited_tells_no_limit(scene: Scene, limit: Set) -> None:
    limit(get="9/minute")

    answer = scene.owner.get("projects")

    assert "RateLimit" not in answer.headers
    assert "RateLimit-Policy" not in answer.headers


def test_refused_requests_count(scene: Scene, limit: Set) -> None:
    user = scene.admin.user()
    limit(admin="4/minute")

    refused = [
        user.get("projects?limit=0"),
        user.get("users"),
        user.post("projects", {}),
        user.get(f"projects/{uuid4()}"),
    ]

    assert [answer.status_code for answer in refused] == [422, 403, 422, 404]
    assert user.get("projects").status_code == 429


def test_requests_answered_429_do_not_count(scene: Scene, limit: Set) -> None:
    user = scene.admin.user()
    limit(admin="2/second")

    answers = [user.get("projects") for _ in range(3)]

    assert 429 in {answer.status_code for answer in answers}
    eventually(lambda: user.get("projects").status_code == 200, 5)  # asking without a pause


def test_no_spelling_gets_around_a_limit(scene: Scene, limit: Set) -> None:
    limit(get="1/minute")
    user, path = scene.admin.user(), f"/api/v1/{agent_of(scene)}"
    assert user.get(path).status_code == 404
    agent, project = scene.ids["agent_id"], scene.project.id

    for spelling in (
        path,
        path.replace(agent, agent.upper()),
        path.replace(project, project.upper()),
        path.replace(agent[0], f"%{ord(agent[0]):02x}"),
        f"{path}?cache=no",
        f"{path}?",
        path.replace(agent, str(uuid4())),
        path.replace(agent, "no-id"),
        path.replace(project, str(uuid4())),
        path.replace(agent, f"{agent}%20"),
    ):
        assert is_problem(user.get(spelling), 429, "rate_limited"), spelling

    for nothing in (
        f"{path}/",
        f"{path};x",
        path.replace("/agents", "//agents"),
        path.replace("/projects", "/Projects"),
    ):
        assert user.get(nothing).status_code in {404, 429}, nothing


@pytest.mark.parametrize("methods", [("HEAD", "GET"), ("GET", "HEAD"), ("HEAD", "HEAD")])
def test_head_spends_what_get_does(scene: Scene, limit: Set, methods: tuple[str, str]) -> None:
    limit(get="1/minute")
    user = scene.admin.user()

    answers = [user(method, agent_of(scene)) for method in methods]

    assert [answer.status_code for answer in answers] == [404, 429]


def test_a_limit_is_the_users_whatever_his_key(scene: Scene, limit: Set) -> None:
    one, other = scene.admin.user(), scene.admin.user()
    second = Api(one.client, one.post("keys", {"name": "second"}).json["key"])  # type: ignore[index]
    limit(get="1/minute")

    answers = [who.get(agent_of(scene)) for who in (one, second, other)]

    assert [answer.status_code for answer in answers] == [404, 429, 404]


def test_a_limit_is_one_actions_and_leaves_the_others_alone(scene: Scene, limit: Set) -> None:
    user = scene.admin.user()
    limit(get="1/minute", agent_metrics="1/minute")

    answers = [user.get(agent_of(scene)), user.get(f"{agent_of(scene)}/metrics"), user.get(agent_of(scene))]

    assert [answer.status_code for answer in answers] == [404, 404, 429]


def test_superusers_are_limited_like_anybody(scene: Scene, limit: Set) -> None:
    boss = scene.admin.user(is_superuser=True)
    limit(get="1/minute")

    answers = [boss.get(agent_of(scene)) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 429]


def test_star_sets_all_that_are_not_named(limit: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_LIMITS", '{"*": "7/hour", "get": "3/second", "list": "off"}')
    forget()

    found = limits.limits()

    assert (found["get"], found["list"]) == (Limit("get", 3, 1), None)
    assert found["anonymous"] == Limit("anonymous", 60, 60), "failed keys are not covered by the star"
    assert {action for action, limit in found.items() if limit == Limit(action, 7, 3600)} == set(DEFAULTS) - {
        "get", "list", "anonymous"
    }  # fmt: skip


# Failed keys


def knock(api: Api, address: str, key: str | None, **headers: str) -> TestResponse:
    """A request from this address with this key."""
    given = {"Authorization": key} if key else {}
    return api.client.get("/api/v1/me", headers=given | headers, environ_overrides={"REMOTE_ADDR": address})


def somewhere() -> str:
    """An address that nobody has called from."""
    return ":".join(["fd00", *re.findall("....", uuid4().hex)[:7]])


def test_sixty_failed_keys_a_minute_then_only_valid_ones_pass(
    scene: Scene, limit: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCH_LIMITS", '{"*": "off"}')
    forget()
    here, api = somewhere(), scene.owner

    answers = [knock(api, here, f"Bearer wrong-{n}") for n in range(62)]

    assert [answer.status_code for answer in answers] == [401] * 60 + [429] * 2
    assert [left(answer) for answer in answers[:60]] == list(range(59, -1, -1))
    assert policy(answers[-1]) == "anonymous"
    assert is_problem(answers[-1], 429, "rate_limited")
    assert knock(api, here, f"Bearer {api.key}").status_code == 200
    assert knock(api, here, "Bearer wrong").status_code == 429
    assert knock(api, somewhere(), "Bearer wrong").status_code == 401


def test_whatever_fails_at_the_key_counts(scene: Scene, limit: Set) -> None:
    revoked, inactive = scene.admin.user(), scene.admin.user()
    inactive_id = inactive.get("me").json["user"]["id"]  # type: ignore[index]
    revoked.delete(f"keys/{revoked.get('me').json['key']['id']}")  # type: ignore[index]
    scene.admin.patch(f"users/{inactive_id}", {"is_active": False})
    eventually(lambda: (revoked.get("me").status_code, inactive.get("me").status_code) == (401, 403))
    limit(anonymous="5/minute")
    here = somewhere()

    ways = [None, "Basic abc", "Bearer wrong", f"Bearer {revoked.key}", f"Bearer {inactive.key}", "Bearer again"]
    answers = [knock(scene.owner, here, way) for way in ways]

    assert [answer.status_code for answer in answers] == [401, 401, 401, 401, 403, 429]
    assert [left(answer) for answer in answers] == [4, 3, 2, 1, 0, 0]


def test_a_valid_key_spends_nothing_of_the_failed_ones(scene: Scene, limit: Set) -> None:
    limit(anonymous="1/minute")
    here = somewhere()

    for _ in range(3):
        assert knock(scene.owner, here, f"Bearer {scene.owner.key}").status_code == 200

    assert knock(scene.owner, here, None).status_code == 401


def test_nobody_names_his_own_address(scene: Scene, limit: Set) -> None:
    limit(anonymous="1/minute")
    here = somewhere()

    answers = [knock(scene.owner, here, None, **{"X-Forwarded-For": somewhere()}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [401, 429]


def test_a_trusted_proxy_names_the_address(scene: Scene, limit: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_TRUSTED_PROXIES", "1")
    limit(anonymous="1/minute")
    behind, proxy, here = Api(create_app().test_client(), None), somewhere(), somewhere()

    def through(told: str) -> int:
        return knock(behind, proxy, None, **{"X-Forwarded-For": told}).status_code

    assert [through(here), through(somewhere()), through(here)] == [401, 401, 429]
    assert through(f"{somewhere()}, {here}") == 429, "only the last address is the proxy's word"
