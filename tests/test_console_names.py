"""Odd names and reasons on the console's pages: they hide and disguise nobody, and an agent with one can be ended."""

import unicodedata

import pytest
from flask_openapi3 import OpenAPI

from tests.browsing import Visitor, words
from tests.stage import Api, Project, drain, eventually
from tests.test_console import slug
from web.console.words import is_said

TURNED, BACK = "\u202e", "\u202c"


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("a  b", "a b"),
        ("a\u00a0b", "a b"),
        (unicodedata.normalize("NFD", "éclair"), "éclair"),
        ("éclair", unicodedata.normalize("NFD", "éclair")),
        ("sc\u200bout", "scout"),
        ("sc\u200bout", r"sc\u200bout"),
        (f"scout{TURNED}10", "scout10"),
        ("\u200b", r"\u200b"),
        ("ﬁle", "file"),
    ],
)
def test_a_name_is_typed_as_it_is_seen(quiet: Project, app: OpenAPI, admin: Api, name: str, typed: str) -> None:
    agent, visitor = quiet.born(name=name), Visitor.of(app, admin)

    refused = [visitor.send(f"/a/{agent}/terminate", confirm=each).status_code for each in ("", " ", "\u200b", "other")]

    assert refused == [422] * 4
    assert visitor.send(f"/a/{agent}/terminate", confirm=typed).status_code == 303


def test_another_name_is_not_taken_for_it() -> None:
    for typed, name in (("scout", "Scout"), ("ab", "a b"), ("eclair", "éclair"), ("scout-1", "scout-01"), ("", "")):
        assert not is_said(typed, name), (typed, name)


def test_nothing_that_is_written_by_others_turns_or_hides_what_stands_beside_it(
    quiet: Project, app: OpenAPI, admin: Api
) -> None:
    odd = f"odd{TURNED}eno\u200b"
    agent, visitor = quiet.born(name=odd, current_task=f"a task{TURNED}"), Visitor.of(app, admin)
    quiet.send(agent, "pause", reason=f"reason{TURNED} yb")
    quiet.send(agent, "pause", reason="refused")
    usage = {"entries": [{"report_id": "r", "model": f"model{TURNED}", "cost": 1}]}
    assert quiet.api.post(f"{quiet.agent(agent)}/usage", usage).status_code == 202
    admin.patch(quiet.path, {"name": f"project{TURNED}"})
    drain()
    name = slug(quiet)

    for path in ("/", f"/?project={name}", f"/p/{name}/agents", f"/p/{name}/agents/bulk?verb=pause", f"/a/{agent}",
                 f"/commands?project={name}", f"/audit?project={name}", f"/costs?project={name}",
                 "/settings"):  # fmt: skip
        page = visitor.get(path).text.replace(f'value="{odd}"', "").replace(f'value="a task{TURNED}"', "")
        page = page.replace(f"a task{TURNED}</textarea>", "")
        assert page.count(TURNED) == page.count("\u200b") == 0, path
    seen = visitor.get(f"/a/{agent}")
    assert r"<bdi>odd\u202eeno\u200b</bdi>" in seen.text
    assert r"“reason\u202e yb”" in words(seen)
    eventually(lambda: r"<bdi>reason\u202e yb</bdi>" in visitor.get(f"/audit?project={name}").text)
