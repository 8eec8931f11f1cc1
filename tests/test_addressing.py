"""Addresses: ids that are malformed, unknown, written in capitals; slashes, junk and methods nobody offers."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from flask_openapi3 import OpenAPI

from tests.stage import fields, is_problem
from tests.surface import EXAMPLES, PLAIN, Scene, holdings, routes

IDS = ["project_id", "agent_id", "command_id", "issue_id", "user_id", "key_id", "type_id"]

MALFORMED = {
    "word": lambda _: "not-an-id",
    "number": lambda _: "1",
    "no dashes": lambda id_: id_.replace("-", ""),
    "braces": lambda id_: f"{{{id_}}}",
    "urn": lambda id_: f"urn:uuid:{id_}",
    "space before": lambda id_: f" {id_}",
    "newline after": lambda id_: f"{id_}\n",
    "one too long": lambda id_: f"{id_}0",
    "one too short": lambda id_: id_[:-1],
    "other digits": lambda id_: "٣" + id_[1:],
    "not hexadecimal": lambda id_: "g" + id_[1:],
    "NUL": lambda id_: f"{id_}\0",
    "dots": lambda _: "...",
    "SQL": lambda _: "' OR 1=1 --",
    "very long": lambda _: "x" * 10_000,
    "unicode": lambda _: "🦄",
    "percent": lambda _: "%",
    "undefined": lambda _: "undefined",
}


@pytest.fixture(autouse=True)
def untouched(scene: Scene) -> Iterator[None]:
    """Nothing in the database changes during the test."""
    before = holdings()
    yield
    assert holdings() == before


def ask(scene: Scene, app: OpenAPI, operation: str, **ids: str) -> Any:
    """The operation's example for these ids instead of the scene's, as a superuser sends it."""
    method, rule = routes(app)[operation]
    body = EXAMPLES[operation].body
    return scene.admin(method, scene.address(rule, **ids), body(scene) if body else None)


def words(answer: Any, id_: str) -> str:
    """What the answer says about this id, the id itself left out."""
    said = {name: value for name, value in answer.json.items() if name not in ("request_id", "instance")}
    return json.dumps(said).replace(json.dumps(id_)[1:-1], "ID")


def operations(app: OpenAPI, thing: str) -> list[str]:
    """The operations whose address names such a thing."""
    return [name for name, (_, rule) in routes(app).items() if f"<{thing}>" in rule]


@pytest.mark.parametrize("spelling", MALFORMED)
@pytest.mark.parametrize("thing", IDS)
def test_a_malformed_id_is_the_same_404_as_an_unknown_one(
    app: OpenAPI, scene: Scene, thing: str, spelling: str
) -> None:
    malformed, unknown = MALFORMED[spelling](scene.ids[thing]), str(uuid4())

    for operation in operations(app, thing):
        odd = ask(scene, app, operation, **{thing: quote(malformed, safe="")})
        missing = ask(scene, app, operation, **{thing: unknown})

        assert is_problem(odd, 404, "not_found"), (operation, odd.data)
        assert is_problem(missing, 404, "not_found"), (operation, missing.data)
        assert unknown in missing.json["detail"]
        assert words(odd, malformed) == words(missing, unknown), operation


@pytest.mark.parametrize("thing", IDS)
@pytest.mark.parametrize("junk", ["%ff", "%c3%28", "%ed%a0%80", "%2f", "%2e%2e", "%5c", "%00", "%0d%0a", "%25", ";a=b"])
def test_junk_in_an_address_is_a_404(app: OpenAPI, scene: Scene, thing: str, junk: str) -> None:
    for operation in operations(app, thing):
        for spelling in (junk, scene.ids[thing] + junk):
            answer = ask(scene, app, operation, **{thing: spelling})

            assert is_problem(answer, 404, "not_found"), (operation, spelling, answer.data)


@pytest.mark.parametrize("thing", IDS)
def test_an_empty_id_is_no_address(app: OpenAPI, scene: Scene, thing: str) -> None:
    for operation in operations(app, thing):
        answer = ask(scene, app, operation, **{thing: ""})

        assert answer.status_code in (404, 405), (operation, answer.data)
        assert is_problem(answer, answer.status_code), answer.data


@pytest.mark.parametrize("operation", [name for name in EXAMPLES if name.startswith("get_") and name != "get_me"])
def test_ids_are_read_in_any_case_and_printed_in_lower(app: OpenAPI, scene: Scene, operation: str) -> None:
    lower = ask(scene, app, operation)
    upper = ask(scene, app, operation, **{name: id_.upper() for name, id_ in scene.ids.items()})

    assert (upper.status_code, upper.json) == (200, lower.json)


def test_ids_in_bodies_and_filters_are_read_in_any_case(scene: Scene) -> None:
    agent = scene.ids["agent_id"]
    path = scene.project.path

    filtered = scene.owner.get(f"{path}/commands?agent_id={agent.upper()}").json["data"]
    by_type = scene.owner.get(f"{path}/agents?type={scene.project.type_id.upper()}").json["data"]
    keys = scene.admin.get(f"keys?user_id={scene.ids['user_id'].upper()}").json["data"]

    assert {command["agent_id"] for command in filtered} == {agent}
    assert agent in [shown["id"] for shown in by_type]
    assert scene.ids["key_id"] in [key["id"] for key in keys]


@pytest.mark.parametrize("spelling", MALFORMED)
def test_a_malformed_id_in_a_body_or_filter_is_a_422_that_names_it(scene: Scene, spelling: str) -> None:
    path, agents = scene.project.path, f"{scene.project.path}/agents"
    odd = MALFORMED[spelling](scene.ids["agent_id"]).replace("\0", "x")
    spawn = {"agent_type_id": scene.project.type_id, "name": "scout"}

    refused = {
        "agent_type_id": scene.owner.post(agents, spawn | {"agent_type_id": odd}),
        "project_id": scene.owner.post(agents, spawn | {"project_id": odd}),
        "assigned_agent_id": scene.owner.post(f"{path}/issues", {"title": "bug", "assigned_agent_id": odd}),
        "owner_id": scene.admin.post("projects", {"name": "x", "owner_id": odd}),
        "user_id": scene.admin.post("keys", {"name": "x", "user_id": odd}),
        "agent_id": scene.owner.get(f"{path}/commands?agent_id={quote(odd)}"),
        "entries.0.agent_id": scene.owner.post(f"{path}/usage", {"entries": [{"report_id": "1", "agent_id": odd}]}),
    }

    for name, answer in refused.items():
        assert is_problem(answer, 422, "validation_error"), (name, answer.data)
        assert fields(answer) == [name]


@pytest.mark.parametrize("operation", EXAMPLES)
def test_a_trailing_or_double_slash_is_a_404_and_never_a_redirect(app: OpenAPI, scene: Scene, operation: str) -> None:
    method, rule = routes(app)[operation]
    path = scene.address(rule)

    for spelling in (f"{path}/", f"{path}//", path.replace("/v1/", "/v1//"), path.replace("/api/", "/api//")):
        answer = scene.admin(method, spelling)

        expected = 401 if answer.status_code == 401 else 404
        assert is_problem(answer, expected), (spelling, answer.data)


@pytest.mark.parametrize("path", PLAIN)
def test_a_trailing_slash_is_a_404_outside_the_api_too(scene: Scene, path: str) -> None:
    assert is_problem(scene.admin.get(f"{path}/"), 404, "not_found")


@pytest.mark.parametrize(
    "path", ["/p", "/api", "/api/v2/me", "/API/V1/me", "/index.php", "/.env", "/static/x", "/docs/x"]
)
def test_an_address_nobody_offers_is_a_404(scene: Scene, path: str) -> None:
    assert is_problem(scene.admin.get(path), 404, "not_found")


@pytest.mark.parametrize("verb", ["BREW", "PUT", "TRACE", "CONNECT", "PROPFIND", "X" * 500])
def test_another_method_is_a_405_that_names_the_right_ones(app: OpenAPI, scene: Scene, verb: str) -> None:
    for operation, (method, rule) in routes(app).items():
        answer = scene.admin(verb, scene.address(rule))

        assert is_problem(answer, 405, "method_not_allowed"), (operation, answer.data)
        assert method in answer.headers["Allow"].split(", "), operation
        assert answer.headers["Allow"] == scene.admin("OPTIONS", scene.address(rule)).headers["Allow"], operation


@pytest.mark.parametrize("operation", EXAMPLES)
def test_options_names_the_methods(app: OpenAPI, scene: Scene, operation: str) -> None:
    rule = routes(app)[operation][1]
    here = {method for method, same in routes(app).values() if same == rule}
    here |= {"PATCH", "DELETE"} if rule.endswith("/agents/metrics") else set()  # "metrics" stands where an id could
    here |= {"GET"} if rule.endswith("/commands/by-filter") else set()

    answer = scene.admin("OPTIONS", scene.address(rule))

    assert (answer.status_code, answer.data, answer.content_type) == (204, b"", None)
    assert set(answer.headers["Allow"].split(", ")) == here | {"OPTIONS"} | ({"HEAD"} if "GET" in here else set())


@pytest.mark.parametrize("operation", [name for name in EXAMPLES if name.startswith(("get_", "list_"))])
def test_head_answers_as_get_without_a_body(app: OpenAPI, scene: Scene, operation: str) -> None:
    path = scene.address(routes(app)[operation][1])

    head, get = scene.admin("HEAD", path), scene.admin("GET", path)

    assert (head.status_code, head.data) == (200, b"")
    assert [head.headers.get(name) for name in ("ETag", "Content-Type", "Content-Length")] == [
        get.headers.get(name) for name in ("ETag", "Content-Type", "Content-Length")
    ]
