"""The console as pages and forms: useful without scripts, closed to strangers, and clear about what goes wrong."""

import csv
import gzip
import html
import io
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import unquote
from uuid import UUID, uuid4

import pytest
from flask_openapi3 import OpenAPI
from sqlalchemy import text

from orchestrator import audit, overview, sessions, timers
from orchestrator.db import begin
from orchestrator.errors import RateLimited
from orchestrator.feed import Wanted
from tests.browsing import SAME, Visitor, assets, form, words
from tests.stage import Api, Project, busy, drain, eventually, sql
from tests.test_leases import leased, pass_time
from tests.test_rollups import roll
from web.console.crew import ANSWER_SECONDS
from web.console.door import COOKIE, CSP
from web.console.words import duration, money
from web.console.words import number as shortened

WEIGHT = 60 * 1024

ANY = "00000000-0000-7000-8000-000000000000"


def user_id(api: Api) -> Any:
    """Whose key it is."""
    return api.get("me").json["user"]["id"]  # type: ignore[index]


def link(api: Api) -> str:
    """A token that signs this user in."""
    with begin() as db:
        return sessions.link(db, user_id(api))


def slug(project: Project) -> str:
    """The project's, as the console's addresses have it."""
    return str(project.api.get(project.path).json["slug"])  # type: ignore[index]


def told(project: Project, events: int) -> None:
    """Wait until so many events can be read: no older transaction runs any more."""
    path = f"{project.path}/events?limit=100"
    eventually(lambda: len(project.api.get(path).json["data"]) == events)  # type: ignore[index]


def commands(project: Project) -> int:
    """How many commands the project has."""
    return int(sql("SELECT count(*) AS n FROM commands WHERE project_id = :id", id=project.id)[0].n)


@pytest.fixture
def visitor(app: OpenAPI, admin: Api) -> Visitor:
    """The administrator's browser."""
    return Visitor.of(app, admin)


def addresses(app: OpenAPI) -> Iterator[tuple[str, str]]:
    """Each of the console's routes that needs a session: method, and an address that fits."""
    values = {"agent_id": ANY, "project": "any", "name": "fleet", "kind": "keys", "id_": ANY, "verb": "pause"}
    for rule in app.url_map.iter_rules():
        if rule.endpoint.startswith("console.") and not rule.rule.startswith(("/login", "/console/")):
            path = rule.rule
            for name, value in values.items():
                path = path.replace(f"<{name}>", value)
            yield next(method for method in ("GET", "POST") if method in (rule.methods or ())), path


def test_without_a_session_every_page_leads_to_the_sign_in_and_nothing_is_done(app: OpenAPI, quiet: Project) -> None:
    stranger, before = Visitor.of(app), commands(quiet)
    for method, path in addresses(app):
        if method == "GET":
            answer = stranger.get(path)
            assert answer.status_code == 401 if path == "/live" else answer.headers["Location"].startswith("/login")
        else:
            assert stranger.send(path).status_code == 401
        assert answer.headers["Content-Security-Policy"] == CSP
    assert commands(quiet) == before


def test_a_link_signs_in_once_and_with_a_click(app: OpenAPI, admin: Api) -> None:
    user, first, second = admin.user(), Visitor.of(app), Visitor.of(app)
    token = link(user)

    assert f'value="{token}"' in first.get(f"/login?t={token}").text
    assert first.get("/").status_code == 303, "looking at a link does nothing"
    assert first.send("/login", t=token, next="/costs").headers["Location"] == "/costs"
    assert first.get("/").status_code == 200
    again = second.send("/login", t=token)
    assert again.status_code == 401
    assert "has been used" in words(again)
    assert second.get("/").status_code == 303


@pytest.mark.parametrize(
    "spoil",
    ["expires_at = now()", "revoked_at = now()", "user_id = user_id"],
    ids=["too old", "revoked", "of an inactive user"],
)
def test_a_link_that_is_no_good_signs_nobody_in(app: OpenAPI, admin: Api, spoil: str) -> None:
    user, visitor = admin.user(), Visitor.of(app)
    token = link(user)
    sql(f"UPDATE api_keys SET {spoil} WHERE kind = 'link' AND user_id = :id", id=user_id(user))
    if spoil.startswith("user"):
        sql("UPDATE users SET is_active = false WHERE id = :id", id=user_id(user))

    assert visitor.send("/login", t=token).status_code == 401
    assert visitor.get("/").status_code == 303


@pytest.mark.parametrize("key", ["", "nonsense", "orch_00000000_unknown", "x" * 5_000, "ключ"])
def test_a_key_that_is_none_is_refused_with_a_sentence(app: OpenAPI, key: str) -> None:
    answer = Visitor.of(app).send("/login", key=key)

    assert answer.status_code == 401
    assert "there is no such key" in words(answer)


@pytest.mark.parametrize(
    "next_", ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:x", "/\n/x", "//[", "/\\[", ""]
)
def test_nobody_is_led_elsewhere_after_the_sign_in(app: OpenAPI, admin: Api, next_: str) -> None:
    assert Visitor.of(app).send("/login", key=admin.key, next=next_).headers["Location"] == "/"


def test_the_token_of_a_lease_signs_nobody_in(app: OpenAPI, quiet: Project) -> None:
    agent = quiet.born()
    token = quiet.api.post(f"{quiet.agent(agent)}/lease", {"holder": "a-process"}).json["token"]  # type: ignore[index]

    assert Visitor.of(app).send("/login", key=token).status_code == 401
    visitor = Visitor.of(app)
    visitor.client.set_cookie(COOKIE, token)
    assert visitor.get("/").status_code == 303


def test_the_page_that_was_asked_for_is_shown_after_the_sign_in(app: OpenAPI, admin: Api) -> None:
    visitor = Visitor.of(app)
    asked = visitor.get("/commands?state=dead")
    assert "next=/commands?state%3Ddead" in asked.headers["Location"].replace("%2F", "/").replace("%3F", "?")

    assert (
        visitor.send("/login", key=admin.key, next="/commands?state=dead").headers["Location"] == "/commands?state=dead"
    )


def test_a_session_ends_with_its_key_with_its_user_and_by_signing_out(app: OpenAPI, admin: Api) -> None:
    user, other = admin.user(), admin.user()
    by_key, by_user, by_itself = (Visitor.of(app, api) for api in (user, other, admin))
    key = user.get("keys").json["data"][0]["id"]  # type: ignore[index]

    assert admin.delete(f"keys/{key}").status_code == 204
    assert admin.patch(f"users/{user_id(other)}", {"is_active": False}).status_code == 200
    assert by_itself.send("/logout").headers["Location"] == "/login"

    eventually(lambda: by_key.get("/").status_code == 303)
    eventually(lambda: by_user.get("/").status_code == 403)
    assert by_itself.get("/").status_code == 303


def test_a_session_is_no_api_key_and_no_key_among_keys(app: OpenAPI, admin: Api) -> None:
    user = admin.user()
    visitor = Visitor.of(app, user)
    cookie = visitor.client.get_cookie(COOKIE)
    assert cookie is not None
    assert cookie.http_only
    assert cookie.same_site == "Lax"

    assert Api(user.client, cookie.value).get("me").status_code == 401
    assert Api(user.client, link(user)).get("me").status_code == 401
    assert [key["name"] for key in user.get("keys").json["data"]] == ["test"]  # type: ignore[index]
    visitor.client.set_cookie(COOKIE, user.key or "")
    assert visitor.get("/").status_code == 303


@pytest.mark.parametrize(("proto", "secure"), [("https", True), ("http", False)])
def test_a_session_that_began_over_tls_stays_there(app: OpenAPI, admin: Api, proto: str, secure: bool) -> None:
    client = app.test_client()

    answer = client.post("/login", data={"key": admin.key}, headers=SAME, base_url=f"{proto}://localhost")

    assert ("Secure" in answer.headers["Set-Cookie"]) is secure


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        (SAME, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Origin": "http://localhost"}, True),
        ({"Origin": "https://localhost"}, False),
        ({"Origin": "http://localhost.evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://["}, False),
        ({}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}, False),
    ],
)
def test_what_another_site_sends_is_not_done(
    quiet: Project, visitor: Visitor, headers: dict[str, str], passes: bool
) -> None:
    agent, before = quiet.born(), commands(quiet)

    answer = visitor.send(f"/a/{agent}/pause", headers=headers)

    assert answer.status_code == (303 if passes else 403)
    assert commands(quiet) == before + passes


def test_what_is_another_users_is_not_there(app: OpenAPI, admin: Api, quiet: Project) -> None:
    agent, stranger = quiet.born(name="secret-agent"), Visitor.of(app, admin.user())
    name, before = slug(quiet), commands(quiet)

    for path in (f"/a/{agent}", f"/p/{name}/agents", f"/?project={name}", f"/charts/fleet?project={name}",
                 f"/commands?project={name}", f"/costs?project={name}", f"/audit.csv?project={name}",
                 f"/live?project={name}", f"/p/{quiet.id}/agents/bulk?verb=pause"):  # fmt: skip
        assert stranger.get(path).status_code == 404, path
    for path in (
        f"/a/{agent}/pause",
        f"/p/{name}/agents",
        f"/p/{name}/agents/bulk",
        f"/settings/projects/{quiet.id}/archive",
    ):
        assert stranger.send(path, verb="pause", count="1", name="x", agent_type_id=quiet.type_id).status_code == 404, (
            path
        )
    for path in ("/", "/commands", "/audit", "/audit.csv", "/costs", f"/commands?agent={agent}"):
        assert "secret-agent" not in stranger.get(path).text, path
    assert commands(quiet) == before


def test_the_fleet_shows_how_many_there_are_and_what_has_happened(quiet: Project, visitor: Visitor) -> None:
    agents = [quiet.born(name=f"scout-{n}") for n in range(3)]
    quiet.send(agents[0], "pause", reason="lunch <break>")
    drain()
    eventually(lambda: "scout-0" in visitor.get(f"/?project={slug(quiet)}").text)

    page = visitor.get(f"/?project={slug(quiet)}")

    assert "○ idle 2" in words(page)
    assert "‖ paused 1" in words(page)
    assert "(lunch <break>)" in words(page)
    assert "<break>" not in page.text


def test_the_last_events_of_a_quiet_fleet_are_not_taken_for_todays(quiet: Project, visitor: Visitor) -> None:
    agent, of = quiet.born(name="asleep"), f"?project={slug(quiet)}"
    told(quiet, 1)

    sql("UPDATE events SET at = now() - interval '3 days' WHERE agent_id = :id", id=agent)

    assert "3 d ago asleep spawn" in words(visitor.get(f"/{of}"))


def test_the_agents_can_be_filtered_and_the_address_says_how(quiet: Project, visitor: Visitor) -> None:
    agents = [quiet.born(name=name) for name in ("alpha", "beta", "alphabet")]
    quiet.send(agents[0], "pause")
    drain()
    base = f"/p/{slug(quiet)}/agents"

    for query, shown in (
        ("", {"alpha", "beta", "alphabet"}),
        ("?q=alph", {"alpha", "alphabet"}),
        ("?status=paused", {"alpha"}),
        ("?status=paused&q=beta", set()),
        (f"?type={quiet.type_id}", {"alpha", "beta", "alphabet"}),
    ):
        page = visitor.get(base + query).text
        assert {name for name in ("alpha", "beta", "alphabet") if f'title="{name}"' in page} == shown, query
    assert "No agent matches" in words(visitor.get(f"{base}?status=working"))
    first = visitor.get(f"{base}?limit=2&status=idle&q=").text
    assert "<option selected>idle</option>" in first


def test_pages_of_agents_follow_each_other(quiet: Project, visitor: Visitor) -> None:
    for n in range(5):
        quiet.born(name=f"n{n}")
    seen, path = [], f"/p/{slug(quiet)}/agents?limit=2"
    while path:
        page = visitor.get(path).text
        seen += [f"n{n}" for n in range(5) if f'title="n{n}"' in page]
        more = page.partition('<p class="more"><a href="')[2].partition('"')[0].replace("&amp;", "&")
        path = more and f"/p/{slug(quiet)}/agents{more}&limit=2"

    assert sorted(seen) == [f"n{n}" for n in range(5)]


def test_a_pause_with_a_reason_is_applied_told_and_undone(visitor: Visitor, project: Project) -> None:
    agent = project.spawn()["id"]

    page = visitor.follow(visitor.send(f"/a/{agent}/pause", reason="budget review"))

    assert "pause of scout : applied" in words(page)
    assert "“budget review”" in words(page)
    assert project.api.get(project.agent(agent)).json["status"] == "paused"  # type: ignore[index]
    undone = visitor.follow(visitor.send(f"/a/{agent}/resume", reason="undo of pause"))
    assert "resume of scout : applied" in words(undone)
    assert project.api.get(project.agent(agent)).json["status"] == "idle"  # type: ignore[index]


def test_an_undo_is_offered_and_done_only_while_nothing_else_has_happened(quiet: Project, visitor: Visitor) -> None:
    agent = quiet.born()
    sent = visitor.send(f"/a/{agent}/pause")
    drain()
    undo = form(visitor.follow(sent), f"/a/{agent}/resume")
    assert undo["reason"] == "undo of pause"
    quiet.send(agent, "resume")
    quiet.send(agent, "pause", reason="a colleague's")
    drain()

    again, late = visitor.follow(sent), visitor.send(f"/a/{agent}/resume", **undo)
    drain()

    assert "Undo" not in words(again)
    assert "nothing was done, for the agent has changed meanwhile" in words(visitor.follow(late))
    assert quiet.api.get(quiet.agent(agent)).json["holds"][0]["reason"] == "a colleague's"  # type: ignore[index]
    assert visitor.send(f"/a/{agent}/resume", version="latest").status_code == 422


def test_an_undo_gives_the_hold_back_to_its_owner(quiet: Project, visitor: Visitor) -> None:
    agent = quiet.born()
    quiet.send(agent, "pause", owner="budget")
    drain()

    lifted = visitor.send(f"/a/{agent}/resume", owner="budget")
    drain()
    visitor.send(f"/a/{agent}/pause", **form(visitor.follow(lifted), f"/a/{agent}/pause"))
    drain()

    held = quiet.api.get(quiet.agent(agent)).json["holds"]  # type: ignore[index]
    assert [hold["owner"] for hold in held] == ["budget"]


def test_only_what_can_be_done_is_offered(quiet: Project, visitor: Visitor) -> None:
    mine, budgets, both = (quiet.born(name=name) for name in ("mine", "budgets", "both"))
    for agent, owner in ((mine, "manual"), (budgets, "budget"), (both, "budget"), (both, "manual")):
        quiet.send(agent, "pause", owner=owner)
    drain()

    pages = {agent: visitor.get(f"/a/{agent}").text for agent in (mine, budgets, both)}
    listed = visitor.get(f"/p/{slug(quiet)}/agents").text

    assert [agent for agent, page in pages.items() if 'id="do-pause"' in page] == [budgets]
    assert all('id="do-resume"' in page for page in pages.values())
    assert [agent for agent in pages if f'action="/a/{agent}/resume"' in listed] == [mine, both]
    assert f'href="/a/{budgets}#do-resume" title="held by budget">held by budget</a>' in listed
    assert form(visitor.get(f"/a/{both}"), f"/a/{both}/resume")["owner"] == "manual"


def test_a_resume_says_who_still_holds_the_agent(quiet: Project, visitor: Visitor) -> None:
    agent = quiet.born()
    for owner in ("budget", "manual"):
        quiet.send(agent, "pause", owner=owner)
    drain()

    sent = visitor.send(f"/a/{agent}/resume", owner="manual")
    drain()
    told = words(visitor.follow(sent))
    quiet.send(agent, "resume", owner="budget")
    drain()

    assert "; still held by budget" in told
    assert "still held by" not in words(visitor.follow(sent))


def test_a_refused_verb_says_what_is_possible_now(visitor: Visitor, project: Project) -> None:
    agent = project.spawn()["id"]

    page = visitor.follow(visitor.send(f"/a/{agent}/resume"))

    assert "cannot resume an agent that is idle; possible now: pause, terminate" in words(page)
    assert "possible now: pause, terminate" in words(visitor.get(f"/commands?project={slug(project)}&state=rejected"))


def test_a_form_that_is_sent_twice_counts_once(quiet: Project, visitor: Visitor) -> None:
    agent, mark = quiet.born(), uuid4().hex
    before = commands(quiet)

    first, again = (visitor.send(f"/a/{agent}/pause", once=mark, reason="r") for _ in range(2))

    assert first.headers["Location"] == again.headers["Location"]
    assert commands(quiet) == before + 1
    changed = visitor.send(f"/a/{agent}/pause", once=mark, reason="another")
    assert changed.status_code == 422
    assert "this form was sent already, and said something else then; open it anew" in words(changed)


def test_the_end_of_an_agent_asks_for_its_name_and_keeps_what_was_typed(quiet: Project, visitor: Visitor) -> None:
    agent, before = quiet.born(name="scout-7"), 1

    wrong = visitor.send(f"/a/{agent}/terminate", reason="no longer needed", confirm="scout")

    assert wrong.status_code == 422
    assert "type the agent's name, scout-7" in words(wrong)
    assert 'value="no longer needed"' in wrong.text
    assert 'value="scout"' in wrong.text
    assert commands(quiet) == before
    ranges = re.findall(r'href="([^"]*\?strip=[^"]+)"', wrong.text)
    assert [visitor.get(each).status_code for each in ranges if each.startswith("/")] == [200] * 3
    assert visitor.send(f"/a/{agent}/terminate", confirm="scout-7").status_code == 303


def test_a_reason_that_is_too_long_is_refused_and_kept(quiet: Project, visitor: Visitor) -> None:
    agent = quiet.born()

    answer = visitor.send(f"/a/{agent}/pause", reason="x" * 501)

    assert answer.status_code == 422
    assert "reason : can have at most 500 characters" in words(answer)
    assert "x" * 501 in answer.text


def test_an_agent_can_be_edited_and_spawned(visitor: Visitor, project: Project) -> None:
    project.spawn()  # and so waits until there is a worker, which a page does not
    page = visitor.follow(
        visitor.send(
            f"/p/{slug(project)}/agents", name="made-here", agent_type_id=project.type_id, current_task="look\r\nthere"
        )
    )
    assert "spawn of made-here : applied" in words(page)
    agent = page.text.partition('href="/a/')[2].partition('"')[0]
    assert project.api.get(project.agent(agent)).json["current_task"] == "look\nthere"  # type: ignore[index]

    was = {"was_name": "made-here", "was_current_task": "look\r\nthere"}
    renamed = visitor.send(f"/a/{agent}/update", name="renamed", current_task="look\r\nthere", **was)
    assert "renamed" in words(visitor.follow(renamed))
    project.send(agent, "update", current_task="the agent's own")
    eventually(lambda: "the agent's own" in words(visitor.get(f"/a/{agent}")))
    visitor.send(f"/a/{agent}/update", name="again", current_task="look", was_name="renamed", was_current_task="look")
    assert "the agent's own" in words(visitor.get(f"/a/{agent}")), "what was not changed here stays"
    visitor.send(
        f"/a/{agent}/update", name="again", current_task="", was_name="again", was_current_task="the agent's own"
    )
    assert project.api.get(project.agent(agent)).json["current_task"] is None  # type: ignore[index]
    assert "nothing was changed" in words(visitor.send(f"/a/{agent}/update", name="x", was_name="x"))
    nameless = visitor.send(f"/a/{agent}/update", name="", was_name="again")
    assert nameless.status_code == 422
    bad = visitor.send(f"/p/{slug(project)}/agents", name="x", agent_type_id="nonsense")
    assert bad.status_code == 422
    assert 'value="x"' in bad.text


def test_an_edit_that_was_refused_still_knows_what_its_page_showed(quiet: Project, visitor: Visitor) -> None:
    agent = quiet.born(name="scout", current_task="newer")

    refused = visitor.send(
        f"/a/{agent}/update", name="", current_task="older", was_name="scout", was_current_task="older"
    )

    assert refused.status_code == 422
    assert '<input type="hidden" name="was_current_task" value="older">' in refused.text


@pytest.mark.parametrize("name", ["scout", ""])
def test_an_edit_of_an_agent_that_has_ended_meanwhile_is_refused_and_kept(
    visitor: Visitor, project: Project, name: str
) -> None:
    agent = project.spawn(name="scout", current_task="older")["id"]
    project.send(agent, "terminate")
    eventually(lambda: "It has ended" in words(visitor.get(f"/a/{agent}")))

    refused = visitor.send(
        f"/a/{agent}/update", name=name, current_task="typed for long", was_name="scout", was_current_task="older"
    )
    page = refused.text if refused.status_code == 422 else visitor.follow(refused).text

    assert ">typed for long</textarea>" in page
    assert '<details id="do-update" open>' in page


@pytest.mark.parametrize(
    ("sent_to", "sent_from", "back"),
    [
        ("/a/{id}/pause", "http://localhost/a/{id}?strip=7d", "/a/{id}?strip=7d"),
        ("/a/{id}/pause", "http://localhost/a/{id}/update", "/a/{id}"),
        ("/p/x/agents/bulk", "http://localhost/p/x/agents/bulk?verb=pause&q=a", "/p/x/agents/bulk?verb=pause&q=a"),
        ("/settings/keys", None, "/settings"),
        ("/a/{id}/pause", "https://elsewhere.example/a", "/a/{id}"),
        ("/a/{id}/pause", "http://[", "/a/{id}"),
        ("/logout", None, "/"),
    ],
)
def test_a_form_that_comes_after_the_session_leads_back_to_its_page(
    app: OpenAPI, sent_to: str, sent_from: str | None, back: str
) -> None:
    headers = SAME | ({"Referer": sent_from.format(id=ANY)} if sent_from else {})

    answer = Visitor.of(app).send(sent_to.format(id=ANY), headers=headers)

    assert answer.status_code == 401
    (link_,) = re.findall(r'href="/login\?next=([^"]*)"', answer.text)
    assert unquote(html.unescape(link_)) == back.format(id=ANY)


def test_whose_user_is_deactivated_is_told_so_where_they_sign_in(app: OpenAPI, admin: Api) -> None:
    user = admin.user()
    assert admin.patch(f"users/{user_id(user)}", {"is_active": False}).status_code == 200

    answer = Visitor.of(app).send("/login", key=user.key)

    assert answer.status_code == 401
    assert "Your user has been deactivated" in words(answer)


def test_the_address_of_a_refused_form_for_many_leads_to_the_list(quiet: Project, visitor: Visitor) -> None:
    base = f"/p/{slug(quiet)}/agents"

    assert visitor.get(f"{base}/bulk").headers["Location"] == base


def test_all_that_match_are_paused_once_their_number_is_typed(quiet: Project, visitor: Visitor) -> None:
    for name in ("alpha", "alphabet", "beta"):
        quiet.born(name=name)
    base = f"/p/{slug(quiet)}/agents/bulk"
    asked = visitor.get(f"{base}?verb=pause&q=alph")
    assert "Pause 2 agents of" in words(asked)

    for count, status in (("", 422), ("many", 422), ("3", 409), ("9" * 30, 422)):
        answer = visitor.send(base, verb="pause", q="alph", count=count, reason="kept <words>")
        assert answer.status_code == status, count
        assert "kept &lt;words&gt;" in answer.text
        assert "number : " in words(answer)
    assert commands(quiet) == 3
    sent = visitor.send(base, verb="pause", q="alph", count="2", reason="night")
    drain()

    assert "Pause, a batch of 2: 2 applied" in words(visitor.follow(sent))
    assert "q=alph" in sent.headers["Location"], "what was looked for is shown"
    assert visitor.get(f"{base}?verb=dance").status_code == 422
    nobody = visitor.get(f"{base}?verb=pause&q=omega")
    assert "There is no agent to pause" in words(nobody)
    assert 'name="count"' not in nobody.text, "there is nothing to be sent"


def test_a_batch_can_be_undone_for_those_that_it_was_applied_to(quiet: Project, visitor: Visitor) -> None:
    agents = {name: quiet.born(name=name) for name in ("alpha", "beta", "gamma")}
    quiet.send(agents["gamma"], "pause", reason="paused before")
    drain()
    base = f"/p/{slug(quiet)}/agents/bulk"
    sent = visitor.send(base, verb="pause", count="3", reason="by mistake")
    waiting = visitor.follow(sent)
    drain()
    told = visitor.follow(sent)
    batch = str(sql("SELECT id FROM batches")[0].id)

    assert "Undo…" not in words(waiting), "not while some of it waits"
    assert "Pause, a batch of 3: 2 applied, 1 refused . Undo…" in words(told)
    asked = visitor.get(f"{base}?verb=resume&batch={batch}")
    assert "Resume 2 agents of" in words(asked)
    assert f"undo of batch {batch}" in asked.text
    visitor.send(base, verb="resume", batch=batch, count="2", reason="undo")
    drain()

    status = {row.name: row.status for row in sql("SELECT name, status FROM agents")}
    assert status == {"alpha": "idle", "beta": "idle", "gamma": "paused"}
    listed = visitor.get(f"/p/{slug(quiet)}/agents?batch={batch}")
    assert "2 of 2" in words(listed)
    assert f"Of batch {batch}" in words(listed)
    assert "undo of batch" not in visitor.get(f"{base}?verb=terminate&batch={batch}").text
    assert visitor.get(f"{base}?verb=resume&batch=nonsense").status_code == 422


@pytest.mark.parametrize(
    ("path", "accept", "status", "kind"),
    [
        ("/nowhere", "text/html,*/*;q=0.8", 404, "text/html"),
        ("/nowhere", "*/*", 404, "application/problem+json"),
        ("/nowhere", "application/json,text/html;q=0.5", 404, "application/problem+json"),
        ("/api/v1nowhere", "text/html", 404, "text/html"),
        ("/api/v1/nowhere", "text/html,*/*;q=0.8", 401, "application/problem+json"),
        ("/logout", "text/html,*/*;q=0.8", 405, "text/html"),
        ("/logout", "*/*", 405, "application/problem+json"),
    ],
)
def test_who_goes_astray_is_told_so_in_their_own_form(
    visitor: Visitor, path: str, accept: str, status: int, kind: str
) -> None:
    answer = visitor.client.get(path, headers={"Accept": accept})

    assert (answer.status_code, answer.mimetype) == (status, kind)
    assert (answer.headers.get("Content-Security-Policy") == CSP) == (kind == "text/html")
    assert ("Allow" in answer.headers) == (path == "/logout")


def test_the_page_of_an_agent_hears_of_that_agent_alone(quiet: Project, visitor: Visitor) -> None:
    agent = quiet.born(name="o'brien")

    page = visitor.get(f"/a/{agent}").text

    assert f'data-live="/live?agent={agent}"' in page
    assert visitor.get(f"/live?agent={ANY}").status_code == 404
    assert visitor.get("/live?agent=nonsense").status_code == 404


def test_what_can_be_done_on_a_page_can_be_copied_for_a_terminal(
    visitor: Visitor, project: Project, server: str, template: tuple[str, str]
) -> None:
    agent = project.spawn()["id"]
    copied = re.findall(r'data-copy="(curl [^"]+)"', visitor.get(f"/a/{agent}").text)
    (line,) = [html.unescape(each).replace("http://localhost", server) for each in copied]

    answer = subprocess.run(
        ["bash", "-c", f"{line} -s"], env=os.environ | {"ORCH_API_KEY": template[1]}, capture_output=True, check=True
    )

    assert json.loads(answer.stdout)["verb"] == "pause"


def test_the_ledger_the_audit_and_the_costs_tell_what_happened(quiet: Project, visitor: Visitor) -> None:
    agent = quiet.born(name="=cmd()")
    quiet.send(agent, "resume", reason="too early")
    quiet.send(agent, "pause", reason="+later")
    usage = [{"report_id": "r1", "cost": 2.5, "input_tokens": 1_000, "model": "m-large"},
             {"report_id": "r2", "output_tokens": 7}]  # fmt: skip
    assert quiet.api.post(f"{quiet.agent(agent)}/usage", {"entries": usage}).status_code == 202
    drain()
    of = f"?project={slug(quiet)}"

    assert "cannot resume an agent that is idle" in words(visitor.get(f"/commands{of}&state=rejected"))
    assert "+later" not in words(visitor.get(f"/commands{of}&state=rejected"))
    eventually(lambda: "+later" in words(visitor.get(f"/audit{of}")))
    rows = list(csv.DictReader(io.StringIO(visitor.get(f"/audit.csv{of}").text)))
    assert [(row["verb"], row["agent"], row["reason"]) for row in rows] == [
        ("pause", "'=cmd()", "'+later"), ("spawn", "'=cmd()", "")
    ]  # fmt: skip
    costs = words(visitor.get(f"/costs{of}"))
    assert "m-large $2.50 1,000 tok" in costs
    assert "not named 1 of 1 report" in costs
    assert visitor.get(f"/charts/cost{of}").json["columns"][1:] == [[2.5], [1007]]  # type: ignore[index]
    assert visitor.get(f"/charts/cost.csv{of}").text.splitlines()[0] == "time,USD,tokens"


def test_the_fleet_is_drawn_as_it_was_at_the_end_of_each_bin(quiet: Project, visitor: Visitor) -> None:
    quiet.born()
    roll()

    drawn: Any = visitor.get(f"/charts/fleet?project={slug(quiet)}").json

    times, idle = drawn["columns"][0], drawn["columns"][1 + drawn["names"].index("idle")]
    assert [times[-1], idle[-1]] == [drawn["ends"][1], 1], "as it is now"
    assert all(time % drawn["step"] == 0 for time in times[:-1])
    assert times == sorted(times)
    assert times[0] > drawn["ends"][0]


def test_the_filter_of_the_audit_is_before_what_it_narrows(visitor: Visitor) -> None:
    page = visitor.get("/audit").text

    assert page.index('role="search"') < page.index("<table")


def test_the_audit_says_what_was_changed_and_can_be_narrowed(quiet: Project, visitor: Visitor) -> None:
    one, other, of = quiet.born(), quiet.born(), f"?project={slug(quiet)}"
    quiet.send(one, "update", name="\u202erenamed", current_task="<b>count</b> " + "sheep " * 300)
    quiet.send(other, "pause")
    drain()

    page = eventually(lambda: (shown := visitor.get(f"/audit{of}&verb=update")).text.count('id="event-') == 1 and shown)
    assert r"name <bdi>“\u202erenamed”</bdi>, current_task <bdi>“&lt;b&gt;count&lt;/b&gt; sheep" in page.text
    assert "…”" in page.text
    assert "current_task “<b>count</b> sheep" in words(visitor.get(f"/a/{one}"))
    assert f'href="/audit.csv?verb=update&amp;project={slug(quiet)}"' in page.text
    assert "<option selected>update</option>" in page.text
    assert 'holds ["manual"]' in words(visitor.get(f"/audit{of}&verb=pause"))
    wanted: dict[str, list[str]] = {
        "verb=update": ["update"],
        "status=paused": ["pause"],
        f"agent={other}&verb=pause": ["pause"],
        f"agent={one}": ["update", "spawn"],
        "verb=terminate": [],
        "": ["pause", "update", "spawn", "spawn"],
    }
    for query, verbs in wanted.items():
        rows = list(csv.DictReader(io.StringIO(visitor.get(f"/audit.csv{of}&{query}").text)))
        assert sorted(row["verb"] for row in rows) == sorted(verbs), query
        assert visitor.get(f"/audit{of}&{query}").text.count('id="event-') == len(verbs), query
    assert '"current_task": "<b>count</b> sheep' in visitor.get(f"/audit.csv{of}&verb=update").text.replace('""', '"')


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("verb=fly", "<option selected>fly<"),
        ("status=asleep", "<option selected>asleep<"),
        ("agent=typed", 'value="typed"'),
        (f"cursor=x&agent={ANY}", f'value="{ANY}"'),
        (f"limit=0&agent={ANY}", f'value="{ANY}"'),
        ("cursor=x", ""),
    ],
)
def test_nonsense_in_the_audits_filters_is_said_and_kept(
    quiet: Project, visitor: Visitor, query: str, kept: str
) -> None:
    answer = visitor.get(f"/audit?project={slug(quiet)}&{query}")

    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    assert kept in answer.text.partition('<form class="filter"')[2]
    assert "Nothing was looked for." in words(answer)
    assert visitor.get(f"/audit.csv?{query}").status_code == (200 if query.startswith(("cursor", "limit")) else 422)


def test_a_narrowed_audit_goes_on_over_what_it_leaves_out(
    quiet: Project, visitor: Visitor, admin: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "SCAN", 6)
    monkeypatch.setattr(audit, "LEAST", 2)
    second = Project.make(admin)
    agents = [project.born() for project in (quiet, second) for _ in range(5)]
    for agent, project in zip(agents, [quiet] * 5 + [second] * 5, strict=True):
        project.send(agent, "pause")
        project.send(agent, "resume")
    drain()
    told(quiet, 15)
    told(second, 15)

    with begin() as db:
        projects = [UUID(quiet.id), UUID(second.id)]
        whole = audit.events(db, projects, None, 100)[0]
        found, cursor, pages = [], None, 0
        while pages == 0 or cursor is not None:
            rows, cursor = audit.events(db, projects, cursor, 2, Wanted("pause", None))
            found += rows
            pages += 1

    assert [(row.agent_id, row.version) for row in found] == [
        (row.agent_id, row.version) for row in whole if row.verb == "pause"
    ]
    assert (len(found), pages > 5) == (10, True)
    rows = list(csv.DictReader(io.StringIO(visitor.get(f"/audit.csv?project={slug(quiet)}&verb=spawn").text)))
    assert len(rows) == 5


def test_what_has_no_price_is_unknown_and_not_nothing(quiet: Project, visitor: Visitor) -> None:
    agent, of = quiet.born(), f"?project={slug(quiet)}"
    entries = [{"report_id": "r1", "input_tokens": 5, "model": "llama-ft", "tasks_completed": 2},
               {"report_id": "r2", "input_tokens": 5, "cost": 0, "model": "given-away"},
               {"report_id": "r3", "input_tokens": 5, "cost": "0.01", "model": "cheap"}]  # fmt: skip
    quiet.api.post(f"{quiet.agent(agent)}/usage", {"entries": entries[:1]})
    drain()
    unknown, glance, of_agent = (words(visitor.get(path)) for path in (f"/costs{of}", f"/{of}", f"/a/{agent}"))
    sql("UPDATE usage_hours SET hour = hour - interval '2 days'")
    earlier = words(visitor.get(f"/costs{of}&range=24h"))
    sql("UPDATE usage_hours SET hour = hour + interval '2 days'")
    quiet.api.post(f"{quiet.agent(agent)}/usage", {"entries": entries[1:]})
    drain()
    page = words(visitor.get(f"/costs{of}"))

    assert "in 7d – tokens" in unknown
    assert "of all time – " in unknown
    assert "of all time – " in earlier, "whatever the range"
    assert "spent today – " in glance
    assert "cost – tokens 5 tasks 2 per task – " in of_agent
    assert "cost $0.01 tokens 15 tasks 2 per task $0.005 " in words(visitor.get(f"/a/{agent}"))
    assert "spent today $0.01 " in words(visitor.get(f"/{of}"))
    assert "llama-ft – 5 tok" in page
    assert "given-away $0.00 5 tok" in page


def test_the_strip_of_an_agent_is_whole_from_its_birth_on(quiet: Project, visitor: Visitor) -> None:
    agent = quiet.born()
    quiet.send(agent, "pause")
    drain()
    sql("UPDATE agents SET created_at = now() - interval '4 hours' WHERE id = :id", id=agent)
    sql("UPDATE events SET at = now() - (4 - version) * interval '1 hour' WHERE agent_id = :id", id=agent)

    page = visitor.get(f"/a/{agent}").text

    assert 'aria-label="paused 67 % idle 33 % "' in page
    assert "Since its birth, 3 h ago." in page
    assert "Since its birth" not in visitor.get(f"/a/{agent}?strip=1h").text


def test_the_workers_page_says_who_works(visitor: Visitor, project: Project) -> None:
    project.spawn()

    began = time.monotonic()
    page = words(visitor.get("/workers"))
    took = time.monotonic() - began

    assert took < busy(ANSWER_SECONDS), "as soon as all have answered"
    assert "orchestrator.drain" in page
    assert "messages in commands" in page


def test_settings_make_and_end_keys_types_projects_and_users(app: OpenAPI, admin: Api, visitor: Visitor) -> None:
    name = uuid4().hex
    made = visitor.send("/settings/keys", name=name)
    secret = words(made).partition("shown this once: ")[2].partition(" ")[0]
    assert Api(admin.client, secret).get("me").json["key"]["name"] == name  # type: ignore[index]
    for kind, fields in (
        ("types", {"name": name}),
        ("projects", {"name": name}),
        ("users", {"email": f"{name}@a.example"}),
    ):
        assert visitor.send(f"/settings/{kind}", **fields).status_code == 303
        assert name in words(visitor.get("/settings"))
        taken = visitor.send(f"/settings/{kind}", **fields)
        assert taken.status_code == 409
        assert "is taken" in words(taken)
    key = next(key["id"] for key in admin.get("keys").json["data"] if key["name"] == name)  # type: ignore[index]
    assert visitor.send(f"/settings/keys/{key}/revoke").status_code == 303
    eventually(lambda: Api(admin.client, secret).get("me").status_code == 401)
    assert visitor.send("/settings/keys", name="").status_code == 422
    assert visitor.send(f"/settings/keys/{key}/dance").status_code == 404
    assert visitor.send("/settings/spoons", name="x").status_code == 404

    plain = Visitor.of(app, admin.user())
    assert plain.send("/settings/users", email="x@y.example").status_code == 403
    assert plain.send("/settings/types", name="x").status_code == 403
    assert "E-mail" not in words(plain.get("/settings"))


@pytest.mark.parametrize(
    "path",
    ["/?range=9y", "/?project=none-such", "/commands?state=odd", "/commands?verb=odd", "/commands?agent=x",
     "/commands?cursor=%00", "/audit?cursor=nonsense", "/audit?limit=0", "/audit?limit=%C2%B2", "/audit?limit=1000000",
     "/costs?range=1h", "/charts/odd", "/charts/fleet.xml", "/a/odd", f"/a/{ANY}", f"/a/{ANY}?strip=1y",
     "/p/odd/agents", "/live?after=nonsense", "/console/x/none.js", "/a/%F0%9F%92%A9", "/?project=%00",
     "/p/%00/agents", "/a/%00", "/charts/%00", "/p/%00/agents/bulk?verb=pause"],
)  # fmt: skip
def test_nonsense_in_an_address_is_a_page_with_a_sentence(visitor: Visitor, path: str) -> None:
    answer = visitor.get(path)

    assert answer.status_code in (404, 422)
    assert 'role="alert"' in answer.text
    assert answer.headers["Content-Security-Policy"] == CSP


@pytest.mark.parametrize("field", ["reason", "q", "type", "current_task", "name", "key", "next"])
def test_nothing_that_no_field_can_hold_is_an_error_of_ours(
    quiet: Project, visitor: Visitor, admin: Api, field: str
) -> None:
    agent, base = quiet.born(), f"/p/{slug(quiet)}/agents"
    odd: dict[str, Any] = {field: "a\0b"}

    for path, more in ((f"/a/{agent}/pause", {}), (f"/a/{agent}/update", {}), (base, {"agent_type_id": quiet.type_id}),
                       (f"{base}/bulk", {"verb": "pause", "count": "1"}), ("/settings/users", {}),
                       ("/login", {})):  # fmt: skip
        assert visitor.send(path, **(more | odd)).status_code == 422, path
    assert visitor.get(f"{base}?{field}=%00").status_code == 422
    assert visitor.get("/commands?limit=" + "9" * 5_000).status_code == 422


def test_only_forms_are_taken_and_no_large_ones(app: OpenAPI, quiet: Project, visitor: Visitor) -> None:
    agent = quiet.born()
    before, path = commands(quiet), f"/a/{agent}/pause"

    assert visitor.client.post(path, json={"reason": "x"}, headers=SAME).status_code == 415
    assert visitor.client.post(path, data="reason=x", content_type="text/plain", headers=SAME).status_code == 415
    assert visitor.client.post("/login", data={"f": (io.BytesIO(b"x" * 10_000), "f")}, headers=SAME).status_code == 415
    assert visitor.send(path, reason="x" * 70_000).status_code == 413
    assert Visitor.of(app).send("/login", key="x" * 70_000).status_code == 413
    assert commands(quiet) == before


def test_what_was_typed_is_kept_when_there_were_too_many(
    quiet: Project, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, base = quiet.born(), f"/p/{slug(quiet)}/agents"

    def refuse(action: str, who: str) -> None:
        if action != "console":
            raise RateLimited(f"too many {action}", retry_after=3)

    monkeypatch.setattr("web.gate.spend", refuse)
    for path, fields in ((f"/a/{agent}/pause", {"reason": "typed"}), (base, {"name": "typed", "agent_type_id": "x"}),
                         (f"{base}/bulk", {"verb": "pause", "count": "1", "reason": "typed"}),
                         ("/settings/keys", {"name": "typed"})):  # fmt: skip
        answer = visitor.send(path, **fields)
        assert answer.status_code == 429, path
        assert 'value="typed"' in answer.text, path


def test_a_project_is_found_however_many_there_are(
    quiet: Project, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, name = quiet.born(), slug(quiet)
    monkeypatch.setattr(overview, "_PROJECTS", text("SELECT * FROM projects WHERE :superuser AND :user IS NULL"))

    assert visitor.get(f"/p/{name}/agents").status_code == 200
    assert visitor.get(f"/p/{str(quiet.id).upper()}/agents").status_code == 200
    assert visitor.get(f"/a/{agent}").status_code == 200


def test_more_projects_than_a_page_is_about_hide_no_agent_and_make_no_page_heavy(
    quiet: Project, visitor: Visitor
) -> None:
    quiet.born(name="scout")
    name = slug(quiet)
    sql("""INSERT INTO projects (id, slug, name, owner_id)
        SELECT uuidv7(), 'later-' || n, 'Later project ' || n, owner_id
        FROM projects CROSS JOIN generate_series(1, 600) n WHERE id = :id""", id=quiet.id)  # fmt: skip

    for path in ("/", f"/?project={name}"):
        assert "No agents yet" not in words(visitor.get(path)), path
    assert "○ idle 1" in words(visitor.get(f"/?project={name}"))
    for path in ("/", "/commands", "/costs", "/audit"):
        assert "Of the newest 500 of 601 projects" in words(visitor.get(path)), path
        assert "Of the newest" not in words(visitor.get(f"{path}?project={name}")), path
    agents = visitor.get(f"/p/{name}/agents")
    assert form(agents, "/go") == {"slug": "", "page": "agents", "project": name}
    assert agents.text.count("<option") < 100
    assert visitor.get("/go?project=later-600&slug=later-1&page=agents").headers["Location"] == "/p/later-1/agents"
    weight = sum(len(visitor.get(each, Accept_Encoding="gzip").data) for each in ("/", *assets(visitor.get("/"))))
    assert weight <= WEIGHT


def test_a_project_without_agents_shows_how_to_begin(quiet: Project, visitor: Visitor) -> None:
    quiet.spawn(wait=False)
    assert "No agents yet" in words(visitor.get("/")), "one that is not born yet is none"

    drain()

    assert "No agents yet" not in words(visitor.get("/"))
    other = Project.make(quiet.api)
    assert "No agents yet" in words(visitor.get(f"/?project={slug(other)}"))


def test_the_tiles_of_several_projects_lead_to_which_there_are(quiet: Project, visitor: Visitor) -> None:
    quiet.born()
    name = slug(quiet)
    assert f'href="/p/{name}/agents?status=idle"' in visitor.get("/").text
    Project.make(quiet.api)

    page = visitor.get("/").text

    assert page.count('<a href="#projects">') == 5
    assert 'id="projects"' in page
    assert f'<a href="/p/{name}/agents?status=idle">1</a>' in page


def test_a_page_that_says_what_went_wrong_leads_on(quiet: Project, visitor: Visitor, app: OpenAPI) -> None:
    for path, title in (("/a/odd", "Not found"), ("/nowhere", "Not found"), ("/logout", "Not possible there"),
                        ("/?range=9y", "That cannot be"), ("/?q=%00", "That cannot be")):  # fmt: skip
        page = visitor.get(path, Accept="text/html")
        assert f"<h1>{title}</h1>" in page.text, path
        assert 'aria-label="Pages"' in page.text, path
        assert "Sign in" not in words(page), path
        assert "Request" in words(page), path
    assert visitor.get("/go?page=agents").headers["Location"] == f"/p/{slug(quiet)}/agents"
    stranger = Visitor.of(app).get("/nowhere", Accept="text/html")
    assert "Sign in" in words(stranger)
    assert 'aria-label="Pages"' not in stranger.text


def test_what_needs_attention_is_counted_where_it_is(quiet: Project, visitor: Visitor) -> None:
    agents = [quiet.born() for _ in range(3)]
    for agent in agents:
        quiet.send(agent, "update", status="working")
        quiet.send(agent, "update", status="waiting")
    drain()
    sql("UPDATE agents SET updated_at = now() - interval '3 hours' WHERE id = :id", id=agents[1])
    sql("UPDATE events SET at = now() - interval '3 hours' WHERE agent_id = :id", id=agents[1])
    quiet.send(agents[0], "resume")
    drain()

    page = words(visitor.get(f"/?project={slug(quiet)}"))

    assert "1 agent has waited, unchanged, for more than 30 min" in page
    assert "1 command was refused within the hour" in page
    assert "◷ waiting for 3 h" in words(visitor.get(f"/a/{agents[1]}"))


def test_what_needs_attention_in_the_only_project_there_is_can_be_seen(
    quiet: Project, app: OpenAPI, admin: Api
) -> None:
    owner = admin.user()
    only = Project.make(admin, owner)
    agent = only.born()
    only.send(agent, "update", status="working")
    only.send(agent, "update", status="waiting")
    drain()
    sql("UPDATE agents SET updated_at = now() - interval '3 hours' WHERE id = :id", id=agent)

    line = Visitor.of(app, owner).get("/").text.partition('<li id="is-waiting">')[2].partition("</li>")[0]

    assert f'<a href="/p/{slug(only)}/agents?status=waiting">see</a>' in line


def test_who_has_lost_a_lease_is_named_and_linked_to(quiet: Project, visitor: Visitor) -> None:
    agents = [quiet.born(name=f"lost-{number}") for number in range(7)]
    for number, agent in enumerate(agents):
        leased(quiet, agent)
        pass_time(agent, 60 - number)
    drain()
    with begin() as db:
        timers.lost_leases(db)

    page = visitor.get(f"/?project={slug(quiet)}")

    shown = words(page).partition("7 agents lost their lease within the hour: ")[2].partition("…")[0]
    assert shown.count("lost-") == 5
    named = page.text.partition('id="is-lost"')[2].partition("</li>")[0]
    assert sum(f'<a href="/a/{agent}"><bdi>lost-' in named for agent in agents) == 5


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "–"), (float("nan"), "–"), (0, "0 ms"), (0.9994, "999 ms"), (0.9996, "1.0 s"), (9.94, "9.9 s"),
        (9.96, "10 s"), (59.4, "59 s"), (59.7, "1 min"), (3_569, "59 min"), (3_590, "1 h"), (84_000, "23 h"),
        (86_000, "1 d"), (-3, "0 ms"),
    ],
)  # fmt: skip
def test_a_duration_is_told_in_the_unit_that_it_is_rounded_to(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("value", "told"),
    [(999_999, "999,999"), (10**6, "1.0M"), (999_949_999, "999.9M"), (999_960_000, "1.0G"), (10**15, "1000.0T")],
)
def test_a_large_number_is_told_in_the_largest_unit_that_it_has_one_of(value: int, told: str) -> None:
    assert shortened(value) == told


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (None, "–"), ("0", "$0.00"), ("1234.567", "$1,234.57"), ("0.01", "$0.01"), ("0.0099999999", "$0.01"),
        ("0.0033333333333333333333333333", "$0.0033"), ("0.0000000001", "$0.0000000001"),
    ],
)  # fmt: skip
def test_less_than_a_cent_is_told_in_two_digits(amount: str | None, shown: str) -> None:
    assert money(None if amount is None else Decimal(amount)) == shown


def test_an_agent_that_moved_often_is_drawn_as_far_as_it_is_known(
    quiet: Project, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.console.agents.TOLD", 3)
    agent = quiet.born()
    for _ in range(3):
        quiet.send(agent, "pause")
        quiet.send(agent, "resume")
    drain()
    sql("UPDATE events SET at = now() - (8 - version) * interval '1 hour' WHERE agent_id = :id", id=agent)

    page = visitor.get(f"/a/{agent}").text

    assert "only its last 3 events are drawn" in page
    assert 'aria-label="idle 67 % paused 33 % "' in page


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"status": "asleep"}, "status : can be 'idle', 'working'"),
        ({"batch": "x"}, "batch : must be a UUID"),
        ({"q": "n" * 101}, "q : can have at most 100 characters"),
        ({"cursor": "x"}, "cursor : is not a cursor this server gave out"),
        ({"limit": "-1"}, "limit : can be 1 to 100"),
    ],
)
def test_nonsense_in_an_agents_filters_keeps_its_page(
    quiet: Project, visitor: Visitor, wrong: dict[str, str], says: str
) -> None:
    typed = {"q": "scout", "type": "no-such", "status": "idle", "batch": ANY} | wrong

    page = visitor.client.get(f"/p/{slug(quiet)}/agents", query_string=typed)

    assert page.status_code == 422
    assert says in words(page)
    assert 'aria-label="Pages"' in page.text
    assert "data-live" not in page.text, "what is wrong is wrong for good"
    assert form(page, None) == {name: typed[name] for name in ("batch", "q", "type", "status")}


def test_more_than_is_matched_by_is_refused_before_anything_is_sent(quiet: Project, visitor: Visitor) -> None:
    quiet.born(name="n" * 100)

    asked = visitor.get(f"/p/{slug(quiet)}/agents/bulk?verb=pause&q={'n' * 101}")

    assert asked.status_code == 422
    assert "q : can have at most 100 characters" in words(asked)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"agent": "scout-01"}, "agent : there is no agent 'scout-01'"),
        ({"agent": "twin"}, "agent : several agents are called 'twin'; name it by its id"),
        ({"state": "zzz"}, "state : can be queued"),
        ({"verb": "zzz"}, "verb : can be spawn"),
        ({"batch": "zzz"}, "batch : must be a batch's id"),
    ],
)
def test_nonsense_in_a_ledgers_filters_keeps_what_was_typed(
    quiet: Project, visitor: Visitor, wrong: dict[str, str], says: str
) -> None:
    for _ in range(2):
        quiet.born(name="twin")
    typed = {"verb": "pause", "state": "applied", "batch": ANY, "project": slug(quiet), "range": "24h"} | wrong

    page = visitor.client.get("/commands", query_string=typed)

    assert page.status_code == 422
    assert says in words(page)
    assert 'aria-label="Pages"' in page.text
    assert typed.items() <= form(page, None).items()


def test_commands_are_found_by_their_agents_name(quiet: Project, visitor: Visitor) -> None:
    agents = [quiet.born(name=name) for name in ("alpha", "beta")]

    page = visitor.get(f"/commands?project={slug(quiet)}&agent=alpha").text

    assert [agent for agent in agents if f'href="/a/{agent}"' in page] == agents[:1]


def test_filters_are_kept_by_what_is_filtered_anew(quiet: Project, visitor: Visitor, admin: Api) -> None:
    name = slug(quiet)
    ledger = visitor.get(f"/commands?project={name}&batch={ANY}&range=24h")
    assert f"Of batch {ANY} . Show all" in words(ledger)
    assert {"project": name, "batch": ANY, "range": "24h"}.items() <= form(ledger, None).items()
    gone = admin.get(f"agent-types/{quiet.type_id}").json["slug"]  # type: ignore[index]
    for given, kept in ((quiet.type_id, gone), (quiet.type_id.upper(), gone), (gone, gone)):
        assert form(visitor.get(f"/p/{name}/agents?type={given}"), None)["type"] == kept
    assert admin.patch(f"agent-types/{quiet.type_id}", {"is_active": False}).status_code == 200

    for given in (quiet.type_id, gone):
        assert form(visitor.get(f"/p/{name}/agents?type={given}"), None)["type"] == given


def test_a_spawn_keeps_the_filters_that_it_was_sent_from(quiet: Project, visitor: Visitor) -> None:
    path = f"/p/{slug(quiet)}/agents?status=paused&q=s"
    action = html.unescape(re.findall(r'<form class="spawn" method="post" action="([^"]+)"', visitor.get(path).text)[0])

    refused = visitor.send(action, name="x", agent_type_id="nonsense", reason="for the night")
    sent = visitor.send(action, name="x", agent_type_id=quiet.type_id, reason="for the night")

    assert refused.status_code == 422
    assert {"status": "paused", "q": "s"}.items() <= form(refused, None).items()
    assert 'value="for the night"' in refused.text
    assert sent.headers["Location"].startswith(path)
    assert sql("SELECT reason FROM commands WHERE verb = 'spawn'")[-1].reason == "for the night"


def test_a_page_is_light_and_loads_nothing_from_elsewhere(quiet: Project, visitor: Visitor) -> None:
    for number in range(50):
        quiet.spawn(wait=False, name=f"agent-{number}", current_task="a task that has some words in it")
    drain()
    for path in ("/", f"/p/{slug(quiet)}/agents", "/commands", "/costs", "/audit", "/settings", "/workers"):
        plain = visitor.get(path)
        assert "http://" not in plain.text.replace("http://localhost", "").replace("http://www.w3.org", "")
        weight = len(visitor.get(path, Accept_Encoding="gzip").data)
        for address in assets(plain):
            asset = visitor.get(address, Accept_Encoding="gzip")
            assert asset.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            weight += len(asset.data)
        assert weight <= WEIGHT, (path, weight)


def test_whatever_leads_or_acts_from_a_list_is_known_by_an_id(quiet: Project, visitor: Visitor) -> None:
    agents = [quiet.born(name=f"agent-{number}") for number in range(3)]
    quiet.send(agents[0], "resume")
    usage = {"entries": [{"report_id": "r", "input_tokens": 5, "cost": 1}]}
    assert quiet.api.post(f"{quiet.agent(agents[0])}/usage", usage).status_code == 202
    drain()
    eventually(lambda: "agent-2" in visitor.get("/audit").text)

    for path in ("/", f"/p/{slug(quiet)}/agents", f"/a/{agents[0]}", "/commands", "/costs", "/audit", "/workers"):
        page = visitor.get(path).text
        assert 'data-live="' in page
        items = re.findall(r"<(tr|li)\b([^>]*)>(.*?)</\1>", page, re.DOTALL)
        nameless = [body for _, marks, body in items if re.search("<a |<button", body) and ' id="' not in marks]
        assert nameless == [], f"{path}: a refresh writes another one over it, and a press does what that one says"


def test_long_tasks_do_not_make_a_page_heavy(quiet: Project, visitor: Visitor) -> None:
    for number in range(100):
        task = " ".join(uuid4().hex[:9] for _ in range(200))
        quiet.spawn(wait=False, name=f"agent-{number}", current_task=task)
    drain()

    for rows, path in ((50, f"/p/{slug(quiet)}/agents"), (100, f"/p/{slug(quiet)}/agents?limit=100")):
        page = visitor.get(path)
        weight = len(visitor.get(path, Accept_Encoding="gzip").data)
        weight += sum(len(visitor.get(address, Accept_Encoding="gzip").data) for address in assets(page))
        assert page.text.count("…</bdi></td>") == rows
        assert weight <= WEIGHT, (path, weight)


def test_an_asset_is_what_it_is_in_any_encoding(visitor: Visitor) -> None:
    address = next(iter(assets(visitor.get("/"))))

    plain, packed = visitor.get(address), visitor.get(address, Accept_Encoding="gzip")

    assert gzip.decompress(packed.data) == plain.data
    assert visitor.get(address.replace(address.split("/")[2], "old")).headers["Cache-Control"] == "no-store"


def test_sessions_and_links_that_are_over_are_deleted_and_keys_are_not(admin: Api) -> None:
    from workers import tasks  # noqa: PLC0415  # it reads the environment, which is set by now

    user = admin.user()
    link(user)
    with begin() as db:
        sessions.begin(db, user_id(user))
    sql("UPDATE api_keys SET expires_at = now() - interval '2 days' WHERE user_id = :id", id=user_id(user))

    tasks.prune()

    assert [row.kind for row in sql("SELECT kind FROM api_keys WHERE user_id = :id", id=user_id(user))] == ["key"]
