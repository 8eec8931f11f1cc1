"""What an Idempotency-Key may be, who takes one, and whose it is."""

from typing import Any
from uuid import uuid4

import pytest
from flask_openapi3 import OpenAPI

from tests.stage import fields, is_problem
from tests.surface import EXAMPLES, Scene, routes

REPEATED = {"lease_agent", "beat", "beat_many"}
"""Mutations that may be sent again as they are, under any key or none, and are then done again."""

KEYLESS = {"create_key"}
"""Mutations that take no key: a secret is shown once."""


def key() -> dict[str, str]:
    """A header with a key nobody has used."""
    return {"Idempotency_Key": uuid4().hex}


def replayed(*answers: Any) -> list[bool]:
    """Which answers say that an earlier request made what they show."""
    return [answer.headers.get("Idempotency-Replayed") == "true" for answer in answers]


def test_every_mutation_is_done_once_under_a_key(app: OpenAPI, scene: Scene) -> None:
    for operation, (method, rule) in routes(app).items():
        if method == "GET" or operation in KEYLESS | REPEATED:
            continue
        example, once = EXAMPLES[operation], key()
        api = scene.admin if example.superuser else scene.owner
        request = (method, scene.address(rule, **example.ready(scene)), example.body(scene) if example.body else None)

        first, again = api(*request, **once), api(*request, **once)
        other = api.post(f"projects/{scene.project.id}/issues", {"title": "another request"}, **once)

        assert first.status_code == again.status_code == example.status, (operation, again.data)
        assert first.data == again.data, operation
        assert replayed(first, again) == [False, True], operation
        assert is_problem(other, 422, "idempotency_key_reused"), operation


@pytest.mark.parametrize("operation", sorted(REPEATED))
def test_what_may_be_sent_again_takes_a_key_and_is_done_again(app: OpenAPI, scene: Scene, operation: str) -> None:
    method, rule = routes(app)[operation]
    example, once, used = EXAMPLES[operation], key(), key()
    request = (method, scene.address(rule, **example.ready(scene)), example.body(scene))  # type: ignore[misc]
    scene.owner.post(f"{scene.project.path}/issues", {"title": "another request"}, **used)

    first, again = scene.owner(*request, **once), scene.owner(*request, **once)
    other = scene.owner(*request, **used)

    assert first.status_code == again.status_code == example.status, again.data
    assert replayed(first, again) == [False, False]
    if operation == "lease_agent":
        assert again.json["epoch"] == first.json["epoch"] + 1  # type: ignore[index]
    assert is_problem(other, 422, "idempotency_key_reused")


@pytest.mark.parametrize("operation", sorted(KEYLESS))
def test_a_key_that_could_not_be_honoured_is_refused(app: OpenAPI, scene: Scene, operation: str) -> None:
    method, rule = routes(app)[operation]
    example = EXAMPLES[operation]
    address, body = scene.address(rule, **example.ready(scene)), example.body(scene) if example.body else None

    answer = scene.owner(method, address, body, **key())

    assert is_problem(answer, 422, "validation_error")
    assert fields(answer) == ["Idempotency-Key"]


def test_an_id_is_the_same_in_any_case(scene: Scene) -> None:
    once, path = key(), f"projects/{scene.project.id}/issues"

    first = scene.owner.post(path, {"title": "bug"}, **once)
    again = scene.owner.post(path.replace(scene.project.id, scene.project.id.upper()), {"title": "bug"}, **once)

    assert replayed(first, again) == [False, True]
    assert first.json == again.json


def test_a_get_takes_no_key(scene: Scene) -> None:
    once = key()
    scene.owner.post(f"projects/{scene.project.id}/issues", {"title": "bug"}, **once)

    fine, wrong = scene.owner.get("projects", **once), scene.owner.get(f"{scene.project.path}/agents?limit=0", **once)

    assert fine.status_code == 200
    assert replayed(fine) == [False]
    assert is_problem(wrong, 422, "validation_error")


def test_another_callers_same_key_is_free(scene: Scene) -> None:
    once, path = key(), f"{scene.project.path}/issues"

    mine, theirs = (who.post(path, {"title": "bug"}, **once) for who in (scene.owner, scene.admin))

    assert (mine.status_code, theirs.status_code) == (201, 201)
    assert replayed(mine, theirs) == [False, False]
    assert mine.json["id"] != theirs.json["id"]  # type: ignore[index]


@pytest.mark.parametrize("odd", [" ", "~", "a b", "x" * 255, '"quoted"', "é".encode().hex(), "00000"])
def test_a_key_is_any_printable_text_and_compared_as_it_is(scene: Scene, odd: str) -> None:
    user, path = scene.admin.user(is_superuser=True), f"{scene.project.path}/issues"

    answers = [user.post(path, {"title": "bug"}, Idempotency_Key=given) for given in (odd, odd, odd[:-1] + "y")]

    assert [answer.status_code for answer in answers] == [201] * 3
    assert replayed(*answers) == [False, True, False]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("agents", {"name": 1}),
        ("issues", {"title": ""}),
        ("/api/v1/projects", {"name": ""}),
        ("/api/v1/users", {"email": "nobody"}),
    ],
)
def test_a_used_key_is_told_before_what_is_wrong_with_the_body(scene: Scene, path: str, body: dict[str, Any]) -> None:
    once, path = key(), path if path.startswith("/") else f"{scene.project.path}/{path}"
    scene.admin.post(f"{scene.project.path}/issues", {"title": "bug"}, **once)

    answer = scene.admin.post(path, body, **once)

    assert is_problem(answer, 422, "idempotency_key_reused")
