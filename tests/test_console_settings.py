"""The console's settings: nothing is made twice, nothing ends with one click, nothing that was typed is lost."""

from typing import Any
from uuid import uuid4

import pytest
from flask_openapi3 import OpenAPI

from tests.browsing import Visitor, form, words
from tests.stage import Api, Project, sql


@pytest.fixture
def visitor(app: OpenAPI, admin: Api) -> Visitor:
    """The administrator's browser."""
    return Visitor.of(app, admin)


def keys(name: str) -> list[Any]:
    """Those with this name."""
    return sql("SELECT * FROM api_keys WHERE name = :name", name=name)


def test_a_key_is_made_once_however_often_its_form_is_sent(visitor: Visitor) -> None:
    name = uuid4().hex
    sent = form(visitor.get("/settings"), "/settings/keys") | {"name": name}

    first, again = (visitor.send("/settings/keys", **sent) for _ in range(2))

    assert "shown this once: orch_" in words(first)
    assert len(keys(name)) == 1
    assert "This form has made its key already" in words(again)
    assert "shown this once" not in words(again)
    changed = visitor.send("/settings/keys", **sent | {"name": f"{name}-2"})
    assert changed.status_code == 422
    assert "this form was sent already, and said something else then; open it anew" in words(changed)


@pytest.mark.parametrize("kind", ["types", "projects", "users"])
def test_what_is_made_is_made_once_however_often_its_form_is_sent(visitor: Visitor, kind: str) -> None:
    name = uuid4().hex
    given = {"email": f"{name}@a.example"} if kind == "users" else {"name": name}
    sent = form(visitor.get("/settings"), f"/settings/{kind}") | given
    sent.pop("is_superuser", None)  # as a browser leaves it out, unticked

    answers = [visitor.send(f"/settings/{kind}", **sent) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [303, 303]
    assert words(visitor.get("/settings")).count(f"{name}@a" if kind == "users" else f"{name} {name}") == 1


def test_a_key_ends_once_it_was_asked_whether_it_shall(visitor: Visitor, admin: Api) -> None:
    name = uuid4().hex
    assert admin.post("keys", {"name": name}).status_code == 201
    (key,) = keys(name)
    page = visitor.get("/settings")
    path = f"/settings/keys/{key.id}/revoke"

    asked = page.text.partition(f'aria-label="revoke {name}"')[2].partition("</details>")[0]
    sent = form(page, path)
    answers = [visitor.send(path, **sent) for _ in range(2)]

    assert f'action="{path}"' in asked, "its button is behind a question"
    assert "It ends for good" in asked
    assert [answer.status_code for answer in answers] == [303, 303], "by a double click, too"
    assert keys(name)[0].revoked_at is not None
    assert page.text.count("You are signed in with it") == 1


def test_a_refused_user_is_still_to_be_a_superuser(visitor: Visitor) -> None:
    for given, ticked in (({"is_superuser": "on"}, True), ({}, False)):
        refused = visitor.send("/settings/users", email="nobody", **given)

        assert refused.status_code == 422
        assert ('name="is_superuser" checked' in refused.text) is ticked


def test_what_a_slug_and_an_owner_may_be_is_said_in_words(quiet: Project, visitor: Visitor) -> None:
    refused = visitor.send("/settings/projects", name="x", slug="No Slug")
    owner = quiet.api.post(f"{quiet.agent(quiet.born())}/pause", {"owner": "No Owner"})

    assert "slug : must be lower-case letters (a-z) and digits, with single hyphens between them" in words(refused)
    assert owner.json["errors"][0]["message"].startswith("must be lower-case letters (a-z) and digits")  # type: ignore[index]


def test_where_there_is_no_agent_type_the_page_of_agents_says_who_makes_one(app: OpenAPI, admin: Api) -> None:
    owner = admin.user()
    owner.post("projects", {"name": "Typeless", "slug": (slug := f"typeless-{uuid4().hex[:8]}")})
    used = [row.id for row in sql("UPDATE agent_types SET is_active = false WHERE is_active RETURNING id")]

    theirs, mine = (words(Visitor.of(app, each).get(f"/p/{slug}/agents")) for each in (owner, admin))
    sql("UPDATE agent_types SET is_active = true WHERE id = ANY(:used)", used=used)

    assert "There is no agent type in use yet: an administrator makes one" in theirs
    assert "There is no agent type in use yet: make one under Settings" in mine
    assert "spawn one below" not in theirs
