"""The API's own documents: OpenAPI 3.1 that says what the routes do, and a page made of local files."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from flask_openapi3 import OpenAPI
from werkzeug.test import TestResponse

from orchestrator import __version__
from tests.stage import ROOT
from tests.surface import EXAMPLES, WITH_BODY, Scene, call, routes

NINE = [
    "spawn_agent", "list_project_agents", "get_project_agent_metrics", "get_agent", "update_agent", "pause_agent",
    "resume_agent", "terminate_agent", "get_agent_metrics",
]  # fmt: skip


@pytest.fixture
def document(scene: Scene) -> dict[str, Any]:
    """What /openapi.json says."""
    answer = scene.admin.get("/openapi.json")
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    return answer.json  # type: ignore[no-any-return]


def operations(document: dict[str, Any]) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Method, path and description of every operation, by its id."""
    return {
        operation["operationId"]: (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def references(value: Any) -> Iterator[str]:
    """Every $ref in the document."""
    if isinstance(value, dict):
        yield from (ref for name, ref in value.items() if name == "$ref")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from references(inner)


def resolve(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The schema itself, where it is named by reference."""
    ref = schema.get("$ref")
    return document["components"]["schemas"][ref.rsplit("/", 1)[-1]] if ref else schema


def test_it_is_openapi_3_1_of_this_version(document: dict[str, Any]) -> None:
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    assert (document["info"]["title"], document["info"]["version"]) == ("Orchestrator", __version__)
    assert set(document) <= {
        "openapi", "info", "jsonSchemaDialect", "servers", "paths", "webhooks", "components", "security", "tags",
        "externalDocs",
    }  # fmt: skip


def test_it_describes_exactly_the_routes_there_are(app: OpenAPI, document: dict[str, Any]) -> None:
    described = {name: (method, path) for name, (method, path, _) in operations(document).items()}

    assert described == {
        name: (method, rule.replace("<", "{").replace(">", "}")) for name, (method, rule) in routes(app).items()
    }
    assert set(NINE) <= set(described)


def test_operations_are_called_as_their_functions(app: OpenAPI, document: dict[str, Any]) -> None:
    functions = {
        app.view_functions[rule.endpoint].__name__ for rule in app.url_map.iter_rules() if "." in rule.endpoint
    }

    assert set(operations(document)) <= functions
    assert len(operations(document)) == sum(len(methods) for methods in document["paths"].values())


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}

    assert set(references(document)) <= known


def test_every_operation_asks_for_a_bearer_key(document: dict[str, Any]) -> None:
    (required,) = document["security"]
    (scheme,) = [document["components"]["securitySchemes"][name] for name in required]

    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert all("security" not in operation for _, _, operation in operations(document).values())


@pytest.mark.parametrize("operation", EXAMPLES)
def test_every_parameter_in_an_address_is_described(document: dict[str, Any], operation: str) -> None:
    _, path, described = operations(document)[operation]
    parameters = [each for each in described.get("parameters", []) if each["in"] == "path"]

    assert sorted(each["name"] for each in parameters) == sorted(re.findall(r"{(\w+)}", path))
    assert all(each["required"] and each["schema"]["format"] == "uuid" for each in parameters)


@pytest.mark.parametrize("operation", EXAMPLES)
def test_every_header_that_an_operation_heeds_is_described_and_no_other(
    app: OpenAPI, scene: Scene, document: dict[str, Any], operation: str
) -> None:
    parameters = operations(document)[operation][2].get("parameters", [])
    right = {"Prefer": "wait=0", "Idempotency-Key": uuid4().hex}
    wrong = {"If-Match": "7", "Lease-Epoch": "0", "X-Reason": "x" * 501, "Idempotency-Key": ""}

    taken = saying(scene, app, operation, right)
    refused = {name for name in wrong if saying(scene, app, operation, {name: wrong[name]}).status_code == 422}

    heeded = refused | ({"Prefer"} if "Preference-Applied" in taken.headers else set())
    heeded -= {"Idempotency-Key"} if taken.status_code == 422 else set()
    assert {each["name"] for each in parameters if each["in"] == "header"} == heeded
    assert all(each["description"] for each in parameters if each["in"] == "header")


def saying(scene: Scene, app: OpenAPI, operation: str, headers: dict[str, str]) -> TestResponse:
    """The answer to the operation's example with these headers, without the body that it does not need."""
    example, (method, rule) = EXAMPLES[operation], routes(app)[operation]
    body = example.body(scene) if example.body and not example.bare else None
    return scene.admin(method, scene.address(rule, **example.ready(scene)), body, **headers)


@pytest.mark.parametrize("operation", EXAMPLES)
def test_every_operation_says_how_it_can_be_refused(document: dict[str, Any], operation: str) -> None:
    method, path, described = operations(document)[operation]
    query = [each for each in described.get("parameters", []) if each["in"] == "query"]
    expected = {"401", "403", "429", "503"} | ({"404"} if "{" in path else set()) | ({"422"} if query else set())
    expected |= {"400", "413", "415"} if "requestBody" in described else set()
    expected |= {"422"} if method != "GET" else set()  # any Idempotency-Key

    refusals = {status: answer for status, answer in described["responses"].items() if status >= "400"}

    assert expected <= set(refusals)
    for answer in refusals.values():
        assert answer["content"]["application/problem+json"]["schema"] == {"$ref": "#/components/schemas/Problem"}


@pytest.mark.parametrize("operation", EXAMPLES)
def test_every_operation_is_summed_up(document: dict[str, Any], operation: str) -> None:
    described = operations(document)[operation][2]

    assert described["summary"].endswith(".")
    assert set(described["tags"]) <= {tag["name"] for tag in document["tags"]}


@pytest.mark.parametrize("operation", EXAMPLES)
def test_a_body_is_required_where_it_is_needed(document: dict[str, Any], operation: str) -> None:
    described = operations(document)[operation][2].get("requestBody")

    assert (described is not None) == (operation in WITH_BODY)
    if described is not None:
        assert described.get("required", False) is not EXAMPLES[operation].bare
        assert resolve(document, described["content"]["application/json"]["schema"])["additionalProperties"] is False


@pytest.mark.parametrize("operation", EXAMPLES)
def test_an_answer_has_exactly_the_fields_that_are_described(
    app: OpenAPI, scene: Scene, document: dict[str, Any], operation: str
) -> None:
    answer = call(scene, scene.admin, app, operation)

    described = operations(document)[operation][2]["responses"][str(answer.status_code)]
    if answer.status_code == 204:
        assert (answer.data, described.get("content")) == (b"", None)
    else:
        assert_described(document, described["content"]["application/json"]["schema"], answer.json)


def assert_described(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    """The value has the fields of the schema and no other, at every depth."""
    schema = resolve(document, schema)
    if isinstance(value, dict) and "properties" in schema:
        assert set(schema.get("required", ())) <= set(value) <= set(schema["properties"])
        for name, inner in value.items():
            assert_described(document, schema["properties"][name], inner)
    elif isinstance(value, dict | list) and "anyOf" in schema:
        (option,) = [each for each in schema["anyOf"] if each.get("type") != "null"]
        assert_described(document, option, value)
    elif isinstance(value, list):
        for inner in value:
            assert_described(document, schema["items"], inner)


def test_a_problem_has_exactly_the_fields_that_are_described(scene: Scene, document: dict[str, Any]) -> None:
    problem = document["components"]["schemas"]["Problem"]

    answer = scene.owner.post("projects", {"name": 1, "colour": "red"})

    assert_described(document, problem, answer.json)
    assert "detail" not in problem["required"]


ASSET = re.compile(r"""(?:src|href)\s*=\s*["']([^"']+)["']""")


def test_the_page_is_made_of_local_files_that_are_there(scene: Scene) -> None:
    page = scene.admin.client.get("/docs")
    assets = ASSET.findall(page.text)

    assert (page.status_code, page.mimetype) == (200, "text/html")
    assert len(assets) >= 3
    for asset in assets:
        assert not re.match(r"([a-z]+:)?//|data:", asset)
        with scene.admin.client.get(f"/{asset}") as got:
            assert (got.status_code, len(got.data) > 100) == (200, True), asset


def test_the_page_fetches_nothing_from_elsewhere(scene: Scene) -> None:
    page = scene.admin.client.get("/docs").text
    (style,) = [asset for asset in ASSET.findall(page) if asset.endswith(".css")]
    with scene.admin.client.get(f"/{style}") as sheet:
        css = sheet.text

    assert not re.search(r"https?://|//cdn", page)
    assert '"validatorUrl": null' in page  # else Swagger UI shows a picture from a validator on the web
    assert '"openapi.json"' in page
    assert all(url.startswith("data:") for url in re.findall(r"""url\(["']?([^"')]{1,40})""", css))


@pytest.mark.parametrize(
    "junk", ["../../../etc/passwd", "..%2f..%2fweb/docs.py", "swagger/../../docs.py", "%00", "/etc/passwd"]
)
def test_the_pages_files_lead_nowhere_else(scene: Scene, junk: str) -> None:
    assert scene.admin.client.get(f"/docs-assets/swagger/{junk}").status_code == 404


def test_the_readme_says_in_how_many_processes_the_tests_run() -> None:
    [processes] = map(int, re.findall(r"^test:.*(?:\n\t.*)*?-n (\d+) ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    numbers = dict(enumerate("no one two three four five six seven eight".split()))  # noqa: SIM905  # as they are counted
    readme = " ".join((ROOT / "README.md").read_text().split())

    assert f"`make test` runs in {numbers[processes]} processes" in readme
    assert f"the given number and the {numbers[processes - 1]} after it" in readme


def test_what_counts_is_described_step_by_step() -> None:
    steps = re.findall(r"^make (\w+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    told = " ".join((ROOT / "CONTRIBUTING.md").read_text().split())
    [sentence] = re.findall(r"`\.ci/run` is what counts: .*?\.(?= [A-Z`#])", told)

    words = {"test": "tests", "lint": "lint", "types": "types", "faults": "machine's faults", "chaos": "campaign"}
    places = [sentence.index(words[step]) for step in steps]
    assert places == sorted(places)
    assert "Chromium" in told
