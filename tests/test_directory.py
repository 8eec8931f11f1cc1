"""What agents live among: users and their keys, projects, agent types and issues. These answer at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.stage import WAIT, Api, Project, drain, eventually, sql

SOON = 2
"""Seconds: a key or a right that is taken away ends within one, the requests that notice take time too."""


def made(answer: Any) -> dict[str, Any]:
    """What a request has made."""
    assert answer.status_code == 201, answer.json
    return answer.json  # type: ignore[no-any-return]


def refusal(answer: Any) -> tuple[int, str, str | None]:
    """Status, code and field of a refusal."""
    return answer.status_code, answer.json["errors"][0]["code"], answer.json["errors"][0]["field"]


def email() -> str:
    """An address nobody has."""
    return f"{uuid4().hex}@example.org"


def me(api: Api) -> str:
    """The caller's id."""
    return api.get("me").json["user"]["id"]  # type: ignore[index, no-any-return]


def title() -> str:
    """A name nothing has."""
    return f"Thing {uuid4().hex}"


def test_a_user_is_made_plain_and_active(admin: Api) -> None:
    address = email()

    user = made(admin.post("users", {"email": address.upper()}))

    assert admin.get(f"users/{user['id']}").json == user
    assert user.pop("created_at")
    assert user == {"id": user["id"], "email": address, "is_superuser": False, "is_active": True}


def test_an_address_belongs_to_one_user_in_any_case(admin: Api) -> None:
    address = email()
    admin.post("users", {"email": address})

    assert refusal(admin.post("users", {"email": address.title()})) == (409, "conflict", "email")


@pytest.mark.parametrize("wrong", ["", "nobody", "a@b", "a b@example.org", "@example.org", "a@@example.org", 7, None])
def test_a_user_needs_an_address(admin: Api, wrong: Any) -> None:
    assert refusal(admin.post("users", {"email": wrong})) == (422, "validation_error", "email")


def test_a_user_is_let_out_and_in_again_within_a_second(admin: Api) -> None:
    user = admin.user()
    path = f"users/{me(user)}"

    out = admin.patch(path, {"is_active": False})
    refused = eventually(lambda: (answer := user.get("me")).status_code != 200 and answer, SOON)
    admin.patch(path, {"is_active": True})

    assert (out.status_code, out.json["is_active"]) == (200, False)
    assert refusal(refused) == (403, "insufficient_permissions", None)
    assert user.get("me").status_code == 200


def test_a_user_can_become_a_superuser_and_cease_to_be_one(admin: Api) -> None:
    user = admin.user()
    path = f"users/{me(user)}"

    admin.patch(path, {"is_superuser": True})
    assert eventually(lambda: user.get("users").status_code == 200, SOON)
    admin.patch(path, {"is_superuser": False})
    assert eventually(lambda: user.get("users").status_code == 403, SOON)


def test_a_change_of_nothing_changes_nothing(admin: Api) -> None:
    user = made(admin.post("users", {"email": email()}))

    assert admin.patch(f"users/{user['id']}", {}).json == user
    assert refusal(admin.patch(f"users/{user['id']}", {"is_active": None}))[2] == "is_active"
    assert refusal(admin.patch(f"users/{user['id']}", {"email": email()}))[2] == "email"


def test_a_keys_secret_is_shown_once_and_kept_nowhere(admin: Api) -> None:
    user = admin.user()

    key = made(user.post("keys", {"name": "laptop"}))
    secret = key.pop("key")

    assert Api(admin.client, secret).get("me").json["key"] == {n: key[n] for n in ("id", "name", "prefix")}
    assert key["prefix"] in secret
    assert key in user.get("keys").json["data"]
    assert secret not in user.get("keys").text
    assert sql("SELECT 1 FROM api_keys k WHERE k::text LIKE '%' || :secret || '%'", secret=secret) == []


def test_making_a_key_takes_no_idempotency_key(admin: Api) -> None:
    before = len(admin.get("keys?limit=100").json["data"])

    answer = admin.post("keys", {"name": "again"}, Idempotency_Key=uuid4().hex)

    assert refusal(answer) == (422, "validation_error", "Idempotency-Key")
    assert len(admin.get("keys?limit=100").json["data"]) == before


def test_a_revoked_key_is_dead_within_a_second_and_listed_no_more(admin: Api) -> None:
    user = admin.user()
    key = made(user.post("keys", {"name": "lost"}))
    thief = Api(admin.client, key["key"])
    assert thief.get("me").status_code == 200

    answer = user.delete(f"keys/{key['id']}")

    assert (answer.status_code, answer.data, answer.content_type) == (204, b"", None)
    assert eventually(lambda: thief.get("me").status_code == 401, SOON)
    assert key["id"] not in [shown["id"] for shown in user.get("keys").json["data"]]
    assert refusal(user.delete(f"keys/{key['id']}"))[:2] == (404, "not_found")


def test_a_key_expires_when_it_says(admin: Api) -> None:
    now = datetime.now(UTC)
    past, soon = [(now + timedelta(hours=hours)).isoformat() for hours in (-1, 1)]
    future = made(admin.post("keys", {"name": "short", "expires_at": soon}))

    assert refusal(admin.post("keys", {"name": "dead", "expires_at": past})) == (422, "validation_error", "expires_at")
    assert Api(admin.client, future["key"]).get("me").status_code == 200
    sql("UPDATE api_keys SET expires_at = now() WHERE id = :id", id=future["id"])
    assert eventually(lambda: Api(admin.client, future["key"]).get("me").status_code == 401, SOON)


def test_only_a_superuser_handles_other_peoples_keys(admin: Api) -> None:
    one, two = admin.user(), admin.user()
    theirs = made(two.post("keys", {"name": "mine"}))

    assert refusal(one.post("keys", {"name": "yours", "user_id": me(two)}))[:2] == (403, "insufficient_permissions")
    assert refusal(one.get(f"keys?user_id={me(two)}"))[:2] == (403, "insufficient_permissions")
    assert refusal(one.delete(f"keys/{theirs['id']}"))[:2] == (404, "not_found")
    assert made(admin.post("keys", {"name": "given", "user_id": me(two)}))["user_id"] == me(two)
    assert theirs["id"] in [key["id"] for key in admin.get(f"keys?user_id={me(two)}").json["data"]]
    assert admin.delete(f"keys/{theirs['id']}").status_code == 204


def test_a_key_for_nobody_is_refused(admin: Api) -> None:
    assert refusal(admin.post("keys", {"name": "x", "user_id": str(uuid4())})) == (422, "validation_error", "user_id")


@pytest.mark.parametrize("thing", ["projects", "agent-types"])
@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Hello, World {}!", "hello-world-{}"),
        ("  --A  b__c-- {} ", "a-b-c-{}"),
        ("ÄÖ {} ß", "{}"),
        ("{}" + "x" * 68, "{}" + "x" * 68),
    ],
)
def test_a_slug_is_made_from_the_name(admin: Api, thing: str, name: str, slug: str) -> None:
    own = uuid4().hex

    assert made(admin.post(thing, {"name": name.format(own)}))["slug"] == slug.format(own)


@pytest.mark.parametrize("thing", ["projects", "agent-types"])
def test_a_name_without_latin_letters_gets_some_slug(admin: Api, thing: str) -> None:
    slugs = {made(admin.post(thing, {"name": "群れ"}))["slug"] for _ in range(2)}

    assert len(slugs) == 2


@pytest.mark.parametrize("thing", ["projects", "agent-types"])
def test_a_name_that_reads_as_an_id_gets_another_slug(admin: Api, thing: str) -> None:
    name = str(uuid4()).upper()

    assert made(admin.post(thing, {"name": name}))["slug"] != name.lower()


@pytest.mark.parametrize("thing", ["projects", "agent-types"])
def test_a_taken_slug_is_a_conflict(admin: Api, thing: str) -> None:
    first = made(admin.post(thing, {"name": title()}))

    named = admin.post(thing, {"name": title(), "slug": first["slug"]})
    derived = admin.post(thing, {"name": first["name"].upper()})

    assert refusal(named) == refusal(derived) == (409, "conflict", "slug")
    assert first["slug"] in named.json["errors"][0]["message"]


@pytest.mark.parametrize("slug", ["", "A", "a b", "-a", "a-", "a--b", "ä", "a\n", "x" * 101, 7])
def test_a_slug_is_made_of_small_letters_digits_and_single_hyphens(admin: Api, slug: Any) -> None:
    assert refusal(admin.post("projects", {"name": title(), "slug": slug})) == (422, "validation_error", "slug")


def test_any_user_makes_projects_and_sees_only_his_own(admin: Api) -> None:
    one, two = admin.user(), admin.user()
    project = made(one.post("projects", {"name": title()}))

    assert (project["owner_id"], project["status"]) == (me(one), "active")
    assert one.get("projects").json["data"] == [one.get(f"projects/{project['id']}").json] == [project]
    assert two.get("projects").json["data"] == []
    assert project["id"] in [shown["id"] for shown in admin.get("projects?limit=100").json["data"]]


def test_only_a_superuser_names_another_owner(admin: Api) -> None:
    one, two = admin.user(), admin.user()
    mine = made(one.post("projects", {"name": title(), "owner_id": me(one)}))
    path = f"projects/{mine['id']}"

    assert refusal(one.post("projects", {"name": title(), "owner_id": me(two)}))[:2] == (
        403,
        "insufficient_permissions",
    )
    assert refusal(one.patch(path, {"owner_id": me(two)}))[:2] == (403, "insufficient_permissions")
    assert refusal(admin.patch(path, {"owner_id": str(uuid4())})) == (422, "validation_error", "owner_id")
    assert admin.patch(path, {"owner_id": me(two)}).json["owner_id"] == me(two)
    assert (one.get(path).status_code, two.get(path).status_code) == (404, 200)


def test_a_project_is_renamed_and_keeps_its_slug(project: Project) -> None:
    slug, agent = project.api.get(project.path).json["slug"], project.spawn()["id"]

    changed = project.api.patch(project.path, {"name": " Renamed "})

    assert (changed.json["name"], changed.json["slug"]) == ("Renamed", slug)
    assert project.api.get(project.agent(agent)).json["project_name"] == "Renamed"


@pytest.mark.parametrize(
    "change", [{"name": None}, {"name": " "}, {"status": None}, {"status": "gone"}, {"owner_id": None}, {"slug": "a"}]
)
def test_a_wrong_change_of_a_project_is_refused_by_name(project: Project, change: dict[str, Any]) -> None:
    assert refusal(project.api.patch(project.path, change)) == (422, "validation_error", next(iter(change)))


def test_an_archived_project_refuses_nothing_but_spawns(project: Project) -> None:
    agent = project.spawn()["id"]
    assert project.api.patch(project.path, {"status": "archived"}).json["status"] == "archived"

    spawn = project.api.post(f"{project.path}/agents", {"agent_type_id": project.type_id, "name": "scout"})
    issue = project.api.post(f"{project.path}/issues", {"title": "still here", "assigned_agent_id": agent})
    rename = project.api.patch(project.path, {"name": "Old"})
    end = project.api.delete(project.agent(agent), **WAIT)

    assert refusal(spawn)[:2] == (409, "conflict")
    assert (issue.status_code, rename.status_code, end.status_code) == (201, 200, 200)
    assert project.api.get(f"{project.path}/agents").json["pagination"]["total"] == 1


def test_an_inactive_type_takes_no_new_agents_and_keeps_the_old(project: Project) -> None:
    old = project.spawn()
    kind = project.api.patch(f"agent-types/{project.type_id}", {"is_active": False, "name": "Closed"}).json
    wanted = {"agent_type_id": project.type_id, "name": "scout"}

    refused = project.api.post(f"{project.path}/agents", wanted)
    shown = project.api.get(project.agent(old["id"])).json
    project.api.patch(f"agent-types/{project.type_id}", {"is_active": True})

    assert (kind["is_active"], shown["agent_type_name"]) == (False, "Closed")
    assert refusal(refused) == (422, "validation_error", "agent_type_id")
    assert project.spawn()["agent_type_id"] == project.type_id


def test_types_are_read_by_everybody_and_written_by_superusers(admin: Api) -> None:
    user, kind = admin.user(), made(admin.post("agent-types", {"name": title(), "is_active": False}))

    assert user.get(f"agent-types/{kind['id']}").json == kind
    assert kind["is_active"] is False
    assert user.get("agent-types?limit=1").json["data"]
    assert refusal(user.post("agent-types", {"name": title()}))[:2] == (403, "insufficient_permissions")
    assert refusal(user.patch(f"agent-types/{kind['id']}", {"name": "x"}))[:2] == (403, "insufficient_permissions")


def issue(project: Project, **body: Any) -> dict[str, Any]:
    """A new issue."""
    return made(project.api.post(f"{project.path}/issues", {"title": "bug"} | body))


def test_an_issue_is_made_open_and_assigned_to_nobody(project: Project) -> None:
    shown = issue(project, title=" bug ")

    assert project.api.get(f"{project.path}/issues/{shown['id']}").json == shown
    assert shown.pop("created_at")
    assert shown == {
        "id": shown["id"],
        "project_id": project.id,
        "title": "bug",
        "body": None,
        "status": "open",
        "assigned_agent_id": None,
    }


def test_an_agents_issues_are_counted_whatever_their_status(project: Project) -> None:
    agent, other = project.spawn()["id"], project.spawn()["id"]
    for status in ("open", "in_progress", "in_review", "blocked", "closed"):
        last = issue(project, status=status, assigned_agent_id=agent)
    issue(project)

    def count(id_: str) -> int:
        return project.api.get(project.agent(id_)).json["assigned_issues_count"]  # type: ignore[no-any-return]

    path = f"{project.path}/issues/{last['id']}"
    seen = [(count(agent), count(other))]
    for assignee in (other, None):
        project.api.patch(path, {"assigned_agent_id": assignee})
        seen.append((count(agent), count(other)))
    project.api.patch(path, {"status": "open"})

    assert seen == [(5, 0), (4, 1), (4, 0)]
    found = {a["id"]: a["assigned_issues_count"] for a in project.api.get(f"{project.path}/agents").json["data"]}
    assert found == {agent: 4, other: 0}


def test_issues_are_found_by_status_and_agent(project: Project) -> None:
    agent = project.spawn()["id"]
    mine, closed = issue(project, assigned_agent_id=agent), issue(project, status="closed", assigned_agent_id=agent)
    free = issue(project)

    def found(query: str) -> list[str]:
        return [shown["id"] for shown in project.api.get(f"{project.path}/issues?{query}").json["data"]]

    assert found("") == [free["id"], closed["id"], mine["id"]]
    assert found("status=open") == [free["id"], mine["id"]]
    assert found(f"assigned_agent_id={agent}&status=closed") == [closed["id"]]
    assert refusal(project.api.get(f"{project.path}/issues?status=lost"))[2] == "status"


def test_an_agent_of_another_project_or_none_is_not_assigned(quiet: Project) -> None:
    foreign, mine = Project.make(quiet.api).spawn(wait=False)["agent_id"], issue(quiet)
    drain()

    for agent in (foreign, str(uuid4())):
        new = quiet.api.post(f"{quiet.path}/issues", {"title": "bug", "assigned_agent_id": agent})
        changed = quiet.api.patch(f"{quiet.path}/issues/{mine['id']}", {"assigned_agent_id": agent})
        assert refusal(new) == refusal(changed) == (422, "validation_error", "assigned_agent_id")
    assert quiet.api.get(f"{quiet.path}/issues").json["data"] == [mine]


def test_another_projects_issue_is_not_there(project: Project) -> None:
    theirs = issue(Project.make(project.api))
    path = f"{project.path}/issues/{theirs['id']}"

    assert project.api.get(path).status_code == project.api.patch(path, {"title": "x"}).status_code == 404


Request = tuple[str, str, dict[str, Any] | None]

POSTS: dict[str, Callable[[Project], Request]] = {
    "user": lambda _: ("POST", "users", {"email": email()}),
    "project": lambda _: ("POST", "projects", {"name": title()}),
    "type": lambda _: ("POST", "agent-types", {"name": title()}),
    "issue": lambda p: ("POST", f"{p.path}/issues", {"title": "bug"}),
}
CHANGES: dict[str, Callable[[Project], Request]] = {
    "user": lambda p: ("PATCH", f"users/{me(p.api.user())}", {"is_superuser": True}),
    "project": lambda p: ("PATCH", p.path, {"name": title()}),
    "type": lambda p: ("PATCH", f"agent-types/{p.type_id}", {"name": title()}),
    "issue": lambda p: ("PATCH", f"{p.path}/issues/{issue(p)['id']}", {"status": "closed"}),
    "key": lambda p: ("DELETE", f"keys/{made(p.api.post('keys', {'name': 'x'}))['id']}", None),
}
"""For each thing, a request that makes one, or that changes one."""


@pytest.mark.parametrize("request_", [*POSTS.values(), *CHANGES.values()], ids=[*POSTS, *(f"{n}-" for n in CHANGES)])
def test_the_same_request_under_the_same_key_is_done_once(project: Project, request_: Any) -> None:
    key, (method, path, body) = uuid4().hex, request_(project)

    first, again = (project.api(method, path, body, Idempotency_Key=key) for _ in range(2))
    other = project.api("POST", f"{project.path}/issues", {"title": "else"}, Idempotency_Key=key)

    assert first.status_code == again.status_code in (200, 201, 204), first.json
    assert first.data == again.data
    assert [answer.headers.get("Idempotency-Replayed") for answer in (first, again)] == [None, "true"]
    assert refusal(other)[:2] == (422, "idempotency_key_reused")


@pytest.mark.parametrize("post", POSTS.values(), ids=POSTS)
def test_twenty_parallel_retries_make_one(project: Project, post: Callable[[Project], Request]) -> None:
    key, (method, path, body) = uuid4().hex, post(project)

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: project.api(method, path, body, Idempotency_Key=key), range(20)))

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" in answer.headers for answer in answers) == 19


def test_a_replay_shows_the_present_state(project: Project) -> None:
    key, body = uuid4().hex, {"title": "bug"}
    first = made(project.api.post(f"{project.path}/issues", body, Idempotency_Key=key))
    project.api.patch(f"{project.path}/issues/{first['id']}", {"status": "closed"})

    again = project.api.post(f"{project.path}/issues", body, Idempotency_Key=key)

    assert (again.status_code, again.json) == (201, first | {"status": "closed"})


def test_a_refused_request_leaves_its_key_free(admin: Api) -> None:
    key, taken = uuid4().hex, made(admin.post("agent-types", {"name": title()}))

    refused = admin.post("agent-types", {"name": title(), "slug": taken["slug"]}, Idempotency_Key=key)
    fresh = admin.post("agent-types", {"name": title()}, Idempotency_Key=key)

    assert (refused.status_code, fresh.status_code) == (409, 201)


def test_two_callers_may_use_the_same_key(admin: Api) -> None:
    key, one, two = uuid4().hex, admin.user(), admin.user()

    mine, theirs = (made(who.post("projects", {"name": title()}, Idempotency_Key=key)) for who in (one, two))

    assert mine["id"] != theirs["id"]
