"""Bad bodies, queries and headers at every route: always a problem that says why, never a 5xx, nothing stored."""

import gzip
import json
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from flask_openapi3 import OpenAPI

from tests.stage import fields, is_problem
from tests.surface import EXAMPLES, WITH_BODY, Scene, holdings, routes, send

MIB = 1 << 20
NEEDED = [name for name in WITH_BODY if not EXAMPLES[name].bare]
BULK = ("report_agent_usage", "report_project_usage", "beat_many", "send_commands")
ENTRY = ("entries", 0)

JSON_VALUES: dict[str, list[Any]] = {
    "string": [True, 0, 1.5, [], ["x"], {}, {"a": 1}],
    "boolean": ["true", "", 0, 1, 1.5, [], {}],
    "integer": ["1", "", True, 1.5, [], {}, -1, 10**40],
    "number": [True, [], {}, "", "x", "NaN", "-Infinity", "1_0", "٣", "0x1", " 1", -1, 10**40, "1e999", "1e-999"],
    "object": ["{}", "", 0, True, 1.5, []],
    "array": ["[]", "", 0, True, {}, [0], [None], [[]], ["x"]],
}
"""Values of a wrong kind, or out of any range, by what a field takes."""


@pytest.fixture(autouse=True)
def untouched(scene: Scene) -> Iterator[None]:
    """Nothing in the database changes during the test."""
    before = holdings()
    yield
    assert holdings() == before


def where(app: OpenAPI, scene: Scene, operation: str) -> tuple[str, str]:
    """Method and address of the operation for the scene's things."""
    method, rule = routes(app)[operation]
    return method, scene.address(rule)


def body_fields(app: OpenAPI, operation: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Every field of the operation's body, its place and its schema, those of usage entries included."""
    method, rule = routes(app)[operation]
    document = app.api_doc
    operations = document["paths"][rule.replace("<", "{").replace(">", "}")]
    named = operations[method.lower()]["requestBody"]["content"]["application/json"]["schema"]
    found = {(name,): schema for name, schema in _resolve(document, named)["properties"].items()}
    if ("entries",) in found:
        entry = _resolve(document, found["entries",]["items"])
        found |= {(*ENTRY, name): schema for name, schema in entry["properties"].items()}
    return found


def _resolve(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rsplit("/", 1)[-1]
    return document["components"]["schemas"][name] if name else schema


def kinds(app: OpenAPI, schema: dict[str, Any]) -> set[str]:
    """What kinds of JSON values a field takes."""
    options = [_resolve(app.api_doc, option) for option in schema.get("anyOf", [schema])]
    found = {inner.get("type") for option in options for inner in option.get("anyOf", [option])} - {"null"}
    return {"number"} if "number" in found else found


def put(body: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """The body with another value in this place."""
    changed: Any = json.loads(json.dumps(body))
    inner = changed
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    return changed  # type: ignore[no-any-return]


def example(scene: Scene, operation: str) -> dict[str, Any]:
    """The operation's example body."""
    make = EXAMPLES[operation].body
    assert make is not None
    return make(scene)


@pytest.mark.parametrize("operation", WITH_BODY)
def test_a_value_of_the_wrong_kind_is_a_422_that_names_its_field(app: OpenAPI, scene: Scene, operation: str) -> None:
    method, path = where(app, scene, operation)
    good = example(scene, operation)

    for place, schema in body_fields(app, operation).items():
        (kind,) = kinds(app, schema)
        for value in JSON_VALUES[kind]:
            if operation == "send_commands" and isinstance(value, list):
                continue  # each item is refused by itself: tests/test_bulk.py
            answer = scene.admin(method, path, put(good, place, value))

            assert is_problem(answer, 422, "validation_error"), (place, value, answer.data)
            named = {".".join(str(field).split(".")[: len(place)]) for field in fields(answer)}
            assert named == {".".join(map(str, place))}, (value, answer.data)


@pytest.mark.parametrize("operation", WITH_BODY)
def test_neither_null_nor_absurd_text_in_any_field_is_our_fault(app: OpenAPI, scene: Scene, operation: str) -> None:
    method, path = where(app, scene, operation)
    texts = [
        "",
        " ",
        "x" * 30_000,
        "🦄" * 30_000,
        "\x01",
        "\u202e",
        "null",
        "%00",
        "' OR 1=1 --",
        "\\u0000",
        "İ",
        "\ud83e",
    ]

    for place in body_fields(app, operation):
        for value in [None, *texts]:
            body = put(example(scene, operation), place, value) | {"no_such_field": 1}
            answer = scene.admin(method, path, body)

            assert is_problem(answer, 422, "validation_error"), (place, value, answer.data)


@pytest.mark.parametrize("operation", WITH_BODY)
def test_every_unknown_field_is_named(app: OpenAPI, scene: Scene, operation: str) -> None:
    method, path = where(app, scene, operation)
    body = example(scene, operation) | {"no_such_field": 1, "": 2, "id": str(uuid4())}

    answer = scene.admin(method, path, body)

    assert is_problem(answer, 422, "validation_error"), answer.data
    assert {"no_such_field", "id"} < set(fields(answer))
    assert len(fields(answer)) == 3


@pytest.mark.parametrize("operation", NEEDED)
@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"[{}]", b'"x"', b"1", b"true", b"1.5"])
def test_a_body_that_is_no_object_is_a_422_without_a_field(
    app: OpenAPI, scene: Scene, operation: str, data: bytes
) -> None:
    answer = send(scene.admin, *where(app, scene, operation), data)

    assert is_problem(answer, 422, "validation_error"), answer.data
    assert fields(answer) == [None]


@pytest.mark.parametrize("operation", NEEDED)
def test_a_missing_body_is_a_422_without_a_field(app: OpenAPI, scene: Scene, operation: str) -> None:
    answer = send(scene.admin, *where(app, scene, operation), b"", None)

    assert is_problem(answer, 422, "validation_error"), answer.data
    assert fields(answer) == [None]


MALFORMED = {
    "open brace": b"{",
    "no JSON": b"name=x",
    "single quotes": b"{'name': 'x'}",
    "trailing comma": b'{"name": "x",}',
    "two values": b"{}{}",
    "comment": b"{} // x",
    "spaces only": b"  \n",
    "NUL": b"\0",
    "NUL in a string": b'{"name": "a\0b"}',
    "newline in a string": b'{"name": "a\nb"}',
    "NaN": b'{"name": NaN}',
    "Infinity": b'{"short_term_memory": {"a": [Infinity]}}',
    "-Infinity": b'{"entries": [{"cost": -Infinity}]}',
    "1e400": b'{"entries": [{"cost": 1e400}]}',
    "-1e400": b'{"short_term_memory": {"a": -1e400}}',
    "5,000 digits": b'{"entries": [{"input_tokens": ' + b"9" * 5000 + b"}]}",
    "invalid UTF-8": b'{"name": "\xff"}',
    "cut UTF-8": b'{"name": "\xc3"}',
    "surrogate in UTF-8": b'{"name": "\xed\xa0\x80"}',
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"name": "x"}'.encode("utf-16"),
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    "10,000 arrays": b'{"short_term_memory": {"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}}",
    "10,000 objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "65 levels": b'{"a":' * 65 + b"1" + b"}" * 65,
    "10,000 brackets": b"[" * 10_000,
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_json_is_a_400(app: OpenAPI, scene: Scene, name: str) -> None:
    for operation in WITH_BODY:
        answer = send(scene.admin, *where(app, scene, operation), MALFORMED[name])

        assert is_problem(answer, 400, "malformed_json"), (operation, answer.data)


@pytest.mark.parametrize(
    "string", [r"\u0000", r"a\u0000b", r"\ud800", r"\udc00x", r"\udfff\ud800", r"\\\u0000", r"\uD83E"]
)
def test_a_nul_or_half_a_pair_in_any_string_is_a_422(app: OpenAPI, scene: Scene, string: str) -> None:
    for operation in WITH_BODY:
        for body in (
            f'{{"name": "{string}"}}',
            f'{{"{string}": 1}}',
            f'{{"short_term_memory": {{"a": ["{string}"]}}}}',
        ):
            answer = send(scene.admin, *where(app, scene, operation), body.encode())

            assert is_problem(answer, 422, "validation_error"), (operation, answer.data)
            assert fields(answer) == [None], (operation, answer.data)


@pytest.mark.parametrize(
    "kind",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json",
     "application/merge-patch+json", "application/problem+json", "json", "application/json2", "*/*", "\u00fc"],
)  # fmt: skip
def test_another_content_type_is_a_415(app: OpenAPI, scene: Scene, kind: str | None) -> None:
    for operation in WITH_BODY:
        data = json.dumps(example(scene, operation)).encode()
        answer = send(scene.admin, *where(app, scene, operation), data, kind)

        assert is_problem(answer, 415, "unsupported_media_type"), (operation, answer.data)


def test_a_compressed_body_is_a_415(app: OpenAPI, scene: Scene) -> None:
    method, path = where(app, scene, "spawn_agent")
    plain = json.dumps(example(scene, "spawn_agent")).encode()

    packed = scene.admin.client.open(path, method=method, data=gzip.compress(plain), headers=coded(scene, "gzip"))
    mislabelled = scene.admin.client.open(path, method=method, data=plain, headers=coded(scene, "br"))
    as_it_is = scene.admin.client.open(path, method=method, data=b"{}", headers=coded(scene, "Identity"))

    assert is_problem(packed, 415, "unsupported_media_type"), packed.data
    assert is_problem(mislabelled, 415, "unsupported_media_type"), mislabelled.data
    assert is_problem(as_it_is, 422, "validation_error"), as_it_is.data


def coded(scene: Scene, how: str) -> dict[str, str]:
    """The headers of a body in this coding."""
    key = f"Bearer {scene.admin.key}"
    return {"Authorization": key, "Content-Type": "application/json", "Content-Encoding": how}


@pytest.mark.parametrize("operation", WITH_BODY)
def test_a_body_over_its_size_is_a_413(app: OpenAPI, scene: Scene, operation: str) -> None:
    most = 4 * MIB if operation in BULK else MIB
    method, path = where(app, scene, operation)
    filled = [b'{"no_such_field": "' + b"x" * (size - 21) + b'"}' for size in (most, most + 1, 2 * most)]

    fits, over, twice = (send(scene.admin, method, path, data) for data in filled)

    assert len(filled[0]) == most
    assert is_problem(fits, 422, "validation_error"), fits.data
    assert is_problem(over, 413, "payload_too_large"), over.data
    assert is_problem(twice, 413, "payload_too_large"), twice.data


def _cursor(*parts: Any) -> str:
    return urlsafe_b64encode(json.dumps(list(parts)).encode()).decode().rstrip("=")


BAD_CURSORS = [
    "x", "=", "====", "🦄", "%00", "-", "null", "[]", "9" * 999, "x" * 1000, "bnVsbA",
    *(urlsafe_b64encode(raw).decode() for raw in (b"{}", b"1", b'"x"', b"{", b"\xff", b"[" * 500, b"[[]]", b"[{}]")),
    *(_cursor(*parts) for parts in ([], [None], [1], [True], ["x"], ["x"] * 2, [1, 2], [None] * 3, ["-1"], ["1" * 900],
      ["2026-01-01T00:00:00", str(uuid4())], ["2026-01-01T00:00:00+00:00", "x"], ["٣"], [str(2**63)], [["x"], {}])),
]  # fmt: skip
"""None of these was ever given out."""


@pytest.mark.parametrize("operation", [name for name in EXAMPLES if name.startswith("list_")])
def test_a_forged_cursor_is_a_422_that_names_it(app: OpenAPI, scene: Scene, operation: str) -> None:
    names = {"list_events": "after", "list_project_events": "after", "list_agent_events": "after_version"}
    name = names.get(operation, "cursor")
    method, path = where(app, scene, operation)

    for cursor in BAD_CURSORS:
        answer = scene.admin(method, f"{path}?{name}={cursor}")

        assert is_problem(answer, 422, "validation_error"), (cursor, answer.data)
        assert fields(answer) == [name]


def query_fields(app: OpenAPI, operation: str) -> list[str]:
    """The operation's query parameters."""
    method, rule = routes(app)[operation]
    named = app.api_doc["paths"][rule.replace("<", "{").replace(">", "}")][method.lower()].get("parameters", [])
    return [parameter["name"] for parameter in named if parameter["in"] == "query"]


@pytest.mark.parametrize("operation", [name for name in EXAMPLES if name.startswith(("get_", "list_"))])
def test_a_repeated_or_empty_parameter_is_a_422_that_names_it(app: OpenAPI, scene: Scene, operation: str) -> None:
    method, path = where(app, scene, operation)

    for name in query_fields(app, operation):
        for query in (f"{name}=", f"{name}=1&{name}=1", f"{name}=&{name}=", f"{name}=%00", f"{name}=a%00b"):
            answer = scene.admin(method, f"{path}?{query}")

            assert is_problem(answer, 422, "validation_error"), (query, answer.data)
            assert fields(answer) == [name], query


@pytest.mark.parametrize("operation", [name for name in EXAMPLES if name.startswith(("get_", "list_"))])
def test_no_value_of_a_parameter_is_our_fault(app: OpenAPI, scene: Scene, operation: str) -> None:
    method, path = where(app, scene, operation)
    values = ["-1", "0", "1e3", "9" * 30, "9" * 5000, "NaN", "null", "[]", "x" * 2000, "%ff", "%F0%9F%A6%84", "'"]
    values += ["%5C", "0001-01-01T00:00:00%2B23:59", "9999-12-31T23:59:59-23:59", "2026-13-01T00:00:00Z", "%25"]

    for name in [*query_fields(app, operation), "no_such_parameter"]:
        for value in values:
            answer = scene.admin(method, f"{path}?{name}={value}")

            assert answer.status_code == 200 or is_problem(answer, 422, "validation_error"), (name, value, answer.data)


@pytest.mark.parametrize(
    ("query", "field"),
    [("limit=0", "limit"), ("limit=101", "limit"), ("limit=-1", "limit"), ("limit=x", "limit"), ("limit=1.5", "limit"),
     ("page=0", "page"), ("page=x", "page"), ("page=501", "page"), (f"page={10**30}", "page"), ("status=x", "status"),
     ("status=IDLE", "status"), ("cursor=x", "cursor"), ("q=" + "x" * 101, "q"), ("type=" + "x" * 1001, "type")],
)  # fmt: skip
def test_a_bad_filter_of_agents_is_a_422_that_names_it(scene: Scene, query: str, field: str) -> None:
    answer = scene.owner.get(f"{scene.project.path}/agents?{query}")

    assert is_problem(answer, 422, "validation_error"), answer.data
    assert fields(answer) == [field]
