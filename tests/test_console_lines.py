"""The lines for a terminal on the console's pages: each is run as it is, by whoever sees it."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask_openapi3 import OpenAPI

from tests.browsing import Visitor, copied, words
from tests.shell import Orch, serving
from tests.stage import Api, Project, drain, sql


@pytest.fixture
def served(alone: str, tmp_path: Path) -> Iterator[str]:
    """A web server with a database of this test's own."""
    del alone
    with serving(tmp_path / "server.log") as url:
        yield url


def run(api: Api, url: str, line: str, *more: str) -> Any:
    """The answer to a line, run by this user, who has set no project."""
    program, *rest = shlex.split(line)
    assert program == "orch"
    assert api.key is not None
    return Orch({"ORCH_URL": url, "ORCH_API_KEY": api.key}).json(*rest, *more)


def begin(app: OpenAPI, api: Api, url: str, path: str = "/") -> list[str]:
    """Do as the first page says; the nouns of what was run."""
    page = Visitor.of(app, api).get(path)
    assert "No agents yet" in words(page)
    key, *lines = copied(page)
    assert key == "export ORCH_URL=http://localhost ORCH_API_KEY=…"
    for line in lines:
        run(api, url, line, *(["--no-wait"] if " spawn " in line else []))
    drain()
    return [shlex.split(line)[1] for line in lines]


def test_an_administrator_begins_with_what_there_is_not(app: OpenAPI, admin: Api, served: str) -> None:
    assert begin(app, admin, served) == ["type", "project", "agent"]
    assert "scout-01" in words(Visitor.of(app, admin).get("/"))
    for kind, name in (("project", "Other"), ("type", "Writer")):
        run(admin, served, f"orch {kind} create {name}")

    assert begin(app, admin, served, "/?project=other") == ["agent"]
    assert "scout-01" in words(Visitor.of(app, admin).get("/?project=other"))


def test_names_that_are_taken_are_not_proposed(app: OpenAPI, admin: Api, served: str) -> None:
    run(admin, served, "orch type create Researcher --inactive")
    run(admin, served, "orch project create Demo")
    sql("UPDATE projects SET status = 'archived'")

    assert begin(app, admin, served) == ["type", "project", "agent"]


def test_somebody_else_begins_without_an_administrators_rights(app: OpenAPI, admin: Api, served: str) -> None:
    user = admin.user()
    run(admin, served, "orch project create Demo")
    page = Visitor.of(app, user).get("/")
    assert "an administrator makes one" in words(page)
    assert "orch demo" not in words(page)
    assert not any(" type " in line or " spawn " in line for line in copied(page))
    run(admin, served, "orch type create Writer")

    assert begin(app, user, served) == ["project", "agent"]
    assert "scout-01" in words(Visitor.of(app, user).get("/"))


def test_the_lines_on_an_agents_page_need_nothing_else(
    app: OpenAPI, project: Project, server: str, template: tuple[str, str]
) -> None:
    agent = project.spawn()["id"]
    me, seen = Api(project.api.client, template[1]), Visitor.of(app, project.api)

    def line() -> str:
        return copied(seen.get(f"/a/{agent}"), " agent ")[0]

    assert run(me, server, line())["status"] == "paused"
    assert run(me, server, line())["status"] == "idle"
    run(me, server, f"orch agent pause {agent} -p {project.id} --owner budget")
    assert run(me, server, line())["status"] == "idle"


def test_all_of_a_long_story_is_had_with_the_line_below_it(
    app: OpenAPI, project: Project, server: str, template: tuple[str, str]
) -> None:
    agent = project.spawn()["id"]
    for number in range(51):
        project.send(agent, "update", current_task=str(number))
    project.api.patch(project.agent(agent), {"status": "working"}, Prefer="wait=10")

    (line,) = copied(Visitor.of(app, project.api).get(f"/a/{agent}"), " history ")

    assert len(run(Api(project.api.client, template[1]), server, line)) == 53
