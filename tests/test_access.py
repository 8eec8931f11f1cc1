"""Who may do what: every kind of caller at every route, and nothing left behind by those who may not."""

import json
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from flask_openapi3 import OpenAPI
from werkzeug.test import TestResponse

from tests.stage import Api, busy, eventually, is_problem, sql
from tests.surface import EXAMPLES, PLAIN, SUPERUSERS_ONLY, Scene, call, holdings, routes

CLOSED = ["anonymous", "unknown key", "garbled header", "revoked key", "expired key", "inactive user"]


class Bare(Api):
    """A caller whose Authorization header is `key` itself."""

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> TestResponse:
        """One request."""
        return Api(self.client, None)(method, path, body, Authorization=self.key or "", **headers)


@pytest.fixture(scope="module")
def callers(scene: Scene) -> dict[str, Api]:
    """One of each kind of caller."""
    client, admin = scene.admin.client, scene.admin
    made = {name: admin.user() for name in ("revoked key", "expired key", "inactive user", "stranger")}
    sql("UPDATE api_keys SET revoked_at = now() WHERE prefix = :prefix", prefix=_prefix(made["revoked key"]))
    sql("UPDATE api_keys SET expires_at = now() WHERE prefix = :prefix", prefix=_prefix(made["expired key"]))
    sql(
        "UPDATE users SET is_active = false FROM api_keys k WHERE k.user_id = users.id AND k.prefix = :prefix",
        prefix=_prefix(made["inactive user"]),
    )
    return made | {
        "owner": scene.owner,
        "superuser": admin,
        "anonymous": Api(client, None),
        "unknown key": Api(client, f"orch_00000000_{uuid4().hex}"),
        "garbled header": Bare(client, f"Basic {admin.key}"),
    }


@pytest.fixture
def untouched(scene: Scene, callers: dict[str, Api]) -> Iterator[None]:
    """Nothing in the database changes during the test."""
    before = holdings()
    yield
    assert holdings() == before


def _prefix(api: Api) -> str:
    return (api.key or "").split("_")[1]


def words(answer: TestResponse, *ids: str) -> tuple[Any, ...]:
    """An answer without what differs between any two: its ids, and those of what was asked for."""
    said = json.dumps(
        {name: value for name, value in (answer.json or {}).items() if name not in ("request_id", "instance")}
    )
    for id_ in ids:
        said = said.replace(id_, "ID")
    return answer.status_code, said, sorted(answer.headers.keys())


def test_every_route_has_an_example_and_every_example_a_route(app: OpenAPI) -> None:
    assert set(routes(app)) == set(EXAMPLES)


@pytest.mark.parametrize("operation", EXAMPLES)
@pytest.mark.parametrize("who", CLOSED)
@pytest.mark.usefixtures("untouched")
def test_without_a_good_key_every_route_is_closed(
    app: OpenAPI, scene: Scene, callers: dict[str, Api], who: str, operation: str
) -> None:
    method, rule = routes(app)[operation]
    example = EXAMPLES[operation]

    answer = callers[who](method, scene.address(rule), example.body(scene) if example.body else None)

    assert_closed(answer, who)


def assert_closed(answer: TestResponse, who: str) -> None:
    """The answer is the refusal of this caller."""
    if who == "inactive user":
        assert is_problem(answer, 403, "insufficient_permissions"), answer.data
    else:
        assert is_problem(answer, 401, "unauthenticated"), answer.data
        assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("who", CLOSED)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1"),
        ("GET", "/api/v1/"),
        ("GET", "/api/v1/nothing/here"),
        ("PUT", "/api/v1/me"),
        ("BREW", "/api/v1/me"),
        ("OPTIONS", "/api/v1/me"),
        ("GET", "/api/v1/me/"),
        ("GET", "/api/v1//me"),
        ("GET", "/api%2fv1/me"),
        ("GET", "/api/v1/projects/%ff%00"),
        ("POST", "/api/v1/projects/not-an-id/agents"),
    ],
)
def test_the_key_is_checked_before_the_address_and_the_method(
    callers: dict[str, Api], who: str, method: str, path: str
) -> None:
    assert_closed(callers[who](method, path), who)


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer  ", "{key}", "Token {key}", "Bearer {key} x", "Bearer \x00", "Bearer ä{key}",
     "Bearer " + "x" * 5000, "Bearer {key},Bearer {key}", "Bearer {key}\t", "bearer\t{key}"],
)  # fmt: skip
def test_a_malformed_header_is_no_key(scene: Scene, header: str) -> None:
    answer = Bare(scene.admin.client, header.replace("{key}", scene.owner.key or "")).get("me")

    assert_closed(answer, "garbled header")


@pytest.mark.parametrize("header", ["Bearer {key}", "bearer {key}", "BEARER   {key}"])
def test_the_scheme_is_read_in_any_case(scene: Scene, header: str) -> None:
    answer = Bare(scene.admin.client, header.replace("{key}", scene.owner.key or "")).get("me")

    assert answer.status_code == 200


@pytest.mark.parametrize("operation", EXAMPLES)
def test_a_superuser_may_do_everything(app: OpenAPI, scene: Scene, operation: str) -> None:
    answer = call(scene, scene.admin, app, operation)

    assert answer.status_code == EXAMPLES[operation].status, answer.data


@pytest.mark.parametrize("operation", [name for name in EXAMPLES if name not in SUPERUSERS_ONLY])
def test_an_owner_may_do_everything_but_a_superusers_business(app: OpenAPI, scene: Scene, operation: str) -> None:
    answer = call(scene, scene.owner, app, operation)

    assert answer.status_code == EXAMPLES[operation].status, answer.data


@pytest.mark.parametrize("operation", SUPERUSERS_ONLY)
@pytest.mark.parametrize("who", ["owner", "stranger"])
@pytest.mark.usefixtures("untouched")
def test_a_superusers_business_is_refused_to_others(
    app: OpenAPI, scene: Scene, callers: dict[str, Api], who: str, operation: str
) -> None:
    answer = call(scene, callers[who], app, operation)

    assert is_problem(answer, 403, "insufficient_permissions"), answer.data


@pytest.mark.parametrize("operation", SUPERUSERS_ONLY)
@pytest.mark.usefixtures("untouched")
def test_others_learn_nothing_more_about_a_superusers_business(
    app: OpenAPI, scene: Scene, callers: dict[str, Api], operation: str
) -> None:
    method, rule = routes(app)[operation]
    about = [scene.address(rule), *(scene.address(rule, user_id=i, type_id=i) for i in (str(uuid4()), "not-an-id"))]

    answers = [callers["stranger"](method, path, {"no": "such"}) for path in [*about, f"{about[0]}?limit=0"]]

    assert {answer.status_code for answer in answers} == {403}


def _of_projects(app: OpenAPI) -> list[str]:
    return [name for name, (_, rule) in routes(app).items() if "<project_id>" in rule]


def test_to_a_stranger_a_project_looks_like_none(app: OpenAPI, scene: Scene, callers: dict[str, Api]) -> None:
    before, none = holdings(), str(uuid4())

    for operation in _of_projects(app):
        method, rule = routes(app)[operation]
        example = EXAMPLES[operation]
        body = example.body(scene) if example.body else None
        hidden = callers["stranger"](method, scene.address(rule), body)
        missing = callers["stranger"](method, scene.address(rule, project_id=none), body)

        assert is_problem(hidden, 404, "not_found"), (operation, hidden.data)
        assert words(hidden, scene.project.id) == words(missing, none), operation

    assert holdings() == before


@pytest.mark.parametrize("thing", ["agent_id", "command_id", "issue_id"])
def test_another_projects_thing_looks_like_none(app: OpenAPI, scene: Scene, thing: str) -> None:
    other = Scene.set(scene.admin)
    before, none = holdings(), str(uuid4())
    about = {name: where for name, where in routes(app).items() if f"<{thing}>" in where[1]}

    for operation, (method, rule) in about.items():
        example = EXAMPLES[operation]
        body = example.body(scene) if example.body else None
        for api in (scene.owner, scene.admin):
            elsewhere = api(method, scene.address(rule, **{thing: other.ids[thing]}), body)
            missing = api(method, scene.address(rule, **{thing: none}), body)

            assert is_problem(elsewhere, 404, "not_found"), (operation, elsewhere.data)
            assert words(elsewhere, other.ids[thing]) == words(missing, none), operation

    assert about
    assert holdings() == before


@pytest.mark.usefixtures("untouched")
def test_another_users_key_looks_like_none(scene: Scene, callers: dict[str, Api]) -> None:
    none = str(uuid4())

    hidden = callers["stranger"].delete(f"keys/{scene.ids['key_id']}")
    missing = callers["stranger"].delete(f"keys/{none}")

    assert is_problem(hidden, 404, "not_found")
    assert words(hidden, scene.ids["key_id"]) == words(missing, none)


@pytest.mark.usefixtures("untouched")
def test_only_superusers_act_for_others(scene: Scene, callers: dict[str, Api]) -> None:
    stranger, other = callers["stranger"], scene.ids["user_id"]

    answers = [
        stranger.get(f"keys?user_id={other}"),
        stranger.post("keys", {"name": "x", "user_id": other}),
        stranger.post("projects", {"name": "x", "owner_id": other}),
    ]

    for answer in answers:
        assert is_problem(answer, 403, "insufficient_permissions"), answer.data


def test_lists_show_the_callers_own_only(scene: Scene, callers: dict[str, Api]) -> None:
    projects = callers["stranger"].get("projects").json["data"]
    keys = callers["stranger"].get("keys").json["data"]

    assert projects == []
    assert [key["prefix"] for key in keys] == [_prefix(callers["stranger"])]
    assert scene.project.id in [project["id"] for project in scene.admin.get("projects").json["data"]]


@pytest.mark.parametrize("path", PLAIN)
@pytest.mark.parametrize("who", ["anonymous", "unknown key", "inactive user"])
def test_what_needs_no_key_asks_for_none(callers: dict[str, Api], who: str, path: str) -> None:
    answer = callers[who].get(path)

    assert answer.status_code in (200, 503 if path == "/readyz" else 200)  # ready once a worker was heard


def test_a_revoked_key_is_refused_within_a_second(scene: Scene) -> None:
    user = scene.admin.user()
    key = user.post("keys", {"name": "short"}).json
    short = Api(user.client, key["key"])
    assert short.get("me").status_code == 200

    user.delete(f"keys/{key['id']}")
    revoked = time.monotonic()

    eventually(lambda: short.get("me").status_code == 401, 2)
    assert time.monotonic() - revoked < busy(1.5), "a second, and what a request takes on a busy machine"


def test_a_key_that_expires_is_refused_from_then_on(scene: Scene) -> None:
    user = scene.admin.user()
    assert user.get("me").status_code == 200

    sql("UPDATE api_keys SET expires_at = now() WHERE prefix = :prefix", prefix=_prefix(user))

    eventually(lambda: user.get("me").status_code == 401, 1.1)


def test_a_user_let_out_is_refused_and_let_in_again_served(scene: Scene) -> None:
    user = scene.admin.user()
    me = user.get("me").json["user"]["id"]

    scene.admin.patch(f"users/{me}", {"is_active": False})
    eventually(lambda: user.get("me").status_code == 403, 1.1)
    scene.admin.patch(f"users/{me}", {"is_active": True})

    assert user.get("me").status_code == 200


def test_a_project_that_changed_hands_is_its_new_owners_only(scene: Scene) -> None:
    old, new = scene.admin.user(), scene.admin.user()
    project = old.post("projects", {"name": f"Estate {uuid4().hex}"}).json["id"]

    refused = old.patch(f"projects/{project}", {"owner_id": new.get("me").json["user"]["id"]})
    moved = scene.admin.patch(f"projects/{project}", {"owner_id": new.get("me").json["user"]["id"]})

    assert is_problem(refused, 403, "insufficient_permissions")
    assert moved.status_code == 200
    assert (old.get(f"projects/{project}").status_code, new.get(f"projects/{project}").status_code) == (404, 200)
