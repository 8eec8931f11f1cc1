"""Absurd headers: each is ignored, or refused in words, and never a 5xx."""

from collections.abc import Iterator

import pytest
from flask_openapi3 import OpenAPI

from tests.stage import fields, is_problem
from tests.surface import EXAMPLES, Scene, call, holdings, routes

CHANGING = [name for name in EXAMPLES if not name.startswith(("get_", "list_", "verify", "explain_"))]
VERBS = ["update_agent", "pause_agent", "resume_agent", "terminate_agent"]


@pytest.fixture
def untouched(scene: Scene) -> Iterator[None]:
    """Nothing in the database changes during the test."""
    before = holdings()
    yield
    assert holdings() == before


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "a\x7fb", "ä", "\x01"])
@pytest.mark.parametrize("operation", CHANGING)
@pytest.mark.usefixtures("untouched")
def test_an_idempotency_key_is_1_to_255_printable_characters(
    app: OpenAPI, scene: Scene, operation: str, key: str
) -> None:
    method, rule = routes(app)[operation]
    example = EXAMPLES[operation]

    answer = scene.admin(
        method, scene.address(rule), example.body(scene) if example.body else None, Idempotency_Key=key
    )

    assert is_problem(answer, 422, "validation_error"), answer.data
    assert fields(answer) == ["Idempotency-Key"]


@pytest.mark.parametrize(
    "match", ["", "7", '"x"', 'W/"1"', '"1", "2"', '"-1"', '"' + "9" * 400 + '"', "'1'", '"1', "ä", '"٣"']
)
@pytest.mark.parametrize("operation", VERBS)
@pytest.mark.usefixtures("untouched")
def test_a_precondition_is_one_version_in_quotes(app: OpenAPI, scene: Scene, operation: str, match: str) -> None:
    method, rule = routes(app)[operation]

    answer = scene.owner(method, scene.address(rule), {}, If_Match=match.encode().decode("latin-1"))

    assert is_problem(answer, 422, "validation_error"), answer.data
    assert fields(answer) == ["If-Match"]


@pytest.mark.parametrize(
    "prefer",
    ["", "wait", "wait=", "wait=x", "wait=-1", "wait=1e9", "wait=NaN", "wait=0x1", "wait 5", "await=5",
     "wait=5x", "respond-async", "wait=\u00b2", ",,,;;;", "x" * 5000],
)  # fmt: skip
def test_a_preference_nobody_can_read_is_ignored(app: OpenAPI, scene: Scene, prefer: str) -> None:
    answer = scene.owner.post(f"{scene.address(routes(app)['pause_agent'][1])}", {}, Prefer=prefer)

    assert answer.status_code == 202
    assert "Preference-Applied" not in answer.headers


@pytest.mark.parametrize("operation", EXAMPLES)
def test_headers_that_mean_nothing_here_change_nothing(app: OpenAPI, scene: Scene, operation: str) -> None:
    method, rule = routes(app)[operation]
    example = EXAMPLES[operation]
    odd = {
        "Accept": "text/html",
        "Accept_Charset": "\xff",
        "Range": "bytes=0-1",
        "If_None_Match": "*",
        "If_Modified_Since": "yesterday",
        "X_HTTP_Method_Override": "DELETE",
        "X_Forwarded_For": "not an address",
        "X_Forwarded_Proto": "gopher",
        "Cookie": "a=b; =; \xff",
        "Origin": "null",
        "Prefer": "handling=strict",
    }
    ids = example.ready(scene)

    answer = scene.admin(method, scene.address(rule, **ids), example.body(scene) if example.body else None, **odd)

    assert answer.status_code == example.status, answer.data


@pytest.mark.parametrize("given", ["", "a b", "x" * 101, "ä", "\x7f", "a\tb"])
def test_an_odd_request_id_is_replaced_by_ours(scene: Scene, given: str) -> None:
    answer = scene.owner.get("projects/none", X_Request_ID=given)

    assert is_problem(answer, 404, "not_found")
    assert answer.headers["X-Request-ID"] != given
    assert len(answer.headers["X-Request-ID"]) == 32


def test_a_plain_request_id_is_kept(scene: Scene) -> None:
    answer = scene.owner.get("projects/none", X_Request_ID="trace/1:2")

    assert (answer.json or {})["request_id"] == answer.headers["X-Request-ID"] == "trace/1:2"


@pytest.mark.parametrize("reason", ["x" * 501, "ä" * 501, "a\x00b"])
@pytest.mark.usefixtures("untouched")
def test_a_reason_in_a_header_keeps_the_rules_of_a_reason(app: OpenAPI, scene: Scene, reason: str) -> None:
    path = scene.address(routes(app)["terminate_agent"][1])

    answer = scene.owner.delete(path, X_Reason=reason)

    assert is_problem(answer, 422, "validation_error"), answer.data
    assert fields(answer) == ["X-Reason"]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [(b"x" * 500, "x" * 500), (b"  tea ", "tea"), ("größer 🦄".encode(), "größer 🦄"), (b"gr\xf6\xdfer", "größer")],
    ids=["500", "spaces", "UTF-8", "Latin-1"],
)
def test_a_reason_in_a_header_is_read_as_it_was_meant(app: OpenAPI, scene: Scene, sent: bytes, kept: str) -> None:
    answer = scene.owner.delete(scene.address(routes(app)["terminate_agent"][1]), X_Reason=sent.decode("latin-1"))

    assert (answer.status_code, (answer.json or {})["reason"]) == (202, kept)


@pytest.mark.parametrize(
    "operation", ["pause_agent", "resume_agent", "terminate_agent", "cancel_command", "revoke_key"]
)
@pytest.mark.parametrize("kind", [None, "text/plain", "application/json"])
def test_what_needs_no_body_needs_no_content_type(app: OpenAPI, scene: Scene, operation: str, kind: str | None) -> None:
    method, rule = routes(app)[operation]
    path = scene.address(rule, **EXAMPLES[operation].ready(scene))
    headers = {"Authorization": f"Bearer {scene.owner.key}"}

    answer = scene.owner.client.open(path, method=method, content_type=kind, headers=headers)

    assert answer.status_code == EXAMPLES[operation].status, answer.data


def test_the_examples_are_accepted_as_they_are(app: OpenAPI, scene: Scene) -> None:
    for operation in CHANGING:
        assert call(scene, scene.admin, app, operation).status_code == EXAMPLES[operation].status, operation
