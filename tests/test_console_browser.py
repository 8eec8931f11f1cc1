"""The console in a real browser: Chromium, headless, which is sent nowhere but to our own server."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright

from tests.browsing import SAME
from tests.proxy import Proxy
from tests.stage import ROOT, Api, Project, Worker, busy, eventually, free_port
from tests.test_console import link, slug, user_id
from tests.wire import Gunicorn

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage")  # fmt: skip
"""So that it looks for no host of its maker's, and needs no large /dev/shm."""

LIVE = "#pulse[data-state=on]"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: install Debian's package chromium")


@dataclass
class Guest:
    """Somebody signed in, and what the browser complained of meanwhile."""

    page: Page
    base: str
    complaints: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Note errors and warnings of the console, and requests that would leave the host."""
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on(
            "request", lambda r: None if r.url.startswith((self.base, "data:")) else self.elsewhere.append(r.url)
        )

    def go(self, path: str) -> None:
        """Open a page and wait until it is live, where it can be."""
        self.page.goto(self.base + path)
        if self.page.locator("[data-live]").count():
            self.page.wait_for_selector(LIVE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield running
        running.close()


@contextmanager
def guest(browser: Browser, base: str, api: Api, **options: Any) -> Iterator[Guest]:
    """Sign somebody in by a link, in a browser of their own; at its end nothing may have gone wrong in it."""
    context: BrowserContext = browser.new_context(**options)
    context.set_default_timeout(busy(10) * 1000)
    made = Guest(context.new_page(), base)
    made.watch()
    made.page.goto(f"{base}/login?t={link(api)}")
    made.page.click("button")
    made.page.wait_for_url(f"{base}/")
    yield made
    assert (made.complaints, made.elsewhere) == ([], [])
    context.close()


@pytest.fixture
def me(browser: Browser, server: str, admin: Api, project: Project) -> Iterator[Guest]:
    """The administrator."""
    del project
    with guest(browser, server, admin) as made:
        yield made


def test_a_change_arrives_without_a_reload_in_under_a_second(me: Guest, project: Project) -> None:
    agent = project.spawn()["id"]
    me.go(f"/a/{agent}")
    me.page.evaluate("window.same = true")
    status = me.page.locator(".lead .status")

    took = []
    for verb, after in (("pause", "paused"), ("resume", "idle"), ("pause", "paused")):
        project.send(agent, verb)
        eventually(lambda a=after: project.api.get(project.agent(agent)).json["status"] == a)  # type: ignore[misc, index]
        began = time.monotonic()
        expect(status).to_contain_text(after, timeout=busy(5) * 1000)
        took.append(time.monotonic() - began)
        time.sleep(0.5)

    assert min(took) < busy(1)
    assert me.page.evaluate("window.same")


def test_a_pause_with_a_reason_and_its_undo(me: Guest, project: Project) -> None:
    agent = project.spawn()["id"]
    me.go(f"/a/{agent}")

    me.page.click("#do-pause summary")
    me.page.fill("#do-pause input[name=reason]", "budget review")
    me.page.click("#do-pause button")

    expect(me.page.locator(".done")).to_contain_text("pause of scout: applied")
    expect(me.page.locator(".story")).to_contain_text("“budget review”")
    me.page.click("text=Undo")
    expect(me.page.locator(".done")).to_contain_text("resume of scout: applied")
    expect(me.page.locator(".lead .status")).to_contain_text("idle")


def test_a_verb_that_has_become_impossible_is_refused_with_what_is_possible(me: Guest, project: Project) -> None:
    agent = project.spawn()["id"]
    me.go(f"/a/{agent}")
    me.page.click("#pulse")  # nobody tells this page any more
    project.send(agent, "terminate")
    eventually(lambda: project.api.get(project.agent(agent)).json["status"] == "terminated")  # type: ignore[index]

    me.page.click("#do-pause summary")
    me.page.click("#do-pause button")

    expect(me.page.locator(".done.rejected")).to_contain_text("cannot pause an agent that is terminated; nothing is")


def test_what_is_being_typed_is_not_taken_away(me: Guest, project: Project) -> None:
    agent = project.spawn()["id"]
    me.go(f"/a/{agent}")
    me.page.click("#do-pause summary")
    me.page.fill("#do-pause input[name=reason]", "half a sent")

    project.send(agent, "update", current_task="something new")
    time.sleep(busy(1.5))

    assert me.page.input_value("#do-pause input[name=reason]") == "half a sent"
    me.page.locator("#do-pause input[name=reason]").blur()
    expect(me.page.locator(".task-line")).to_contain_text("something new")
    assert me.page.locator("#do-pause").get_attribute("open") is not None


def test_what_is_typed_while_an_answer_is_on_its_way_stays(me: Guest, project: Project) -> None:
    agent = project.spawn()["id"]
    me.go(f"/a/{agent}")
    me.page.click("#do-pause summary")
    me.page.fill("#do-pause input[name=reason]", "half")
    me.page.locator("#do-pause input[name=reason]").blur()
    held: list[Route] = []
    me.page.route(f"**/a/{agent}", lambda route: held.append(route))  # noqa: PLW0108  # Playwright marks what it is given
    project.send(agent, "update", current_task="something new")
    eventually(lambda: me.page.wait_for_timeout(50) or held)

    me.page.fill("#do-pause input[name=reason]", "half a sentence")
    held[0].continue_()
    me.page.unroute(f"**/a/{agent}")
    me.page.wait_for_timeout(busy(1) * 1000)
    me.page.locator("#do-pause input[name=reason]").blur()
    expect(me.page.locator(".task-line")).to_contain_text("something new")

    assert me.page.input_value("#do-pause input[name=reason]") == "half a sentence"


def test_what_is_typed_into_a_form_that_goes_meanwhile_stays(me: Guest, project: Project) -> None:
    agent = project.spawn()["id"]
    me.go(f"/a/{agent}")
    me.page.click("#do-pause summary")
    reason = me.page.locator("#do-pause input[name=reason]")
    reason.fill("half a sentence")
    reason.blur()

    project.send(agent, "terminate")
    expect(me.page.locator("#pulse")).to_contain_text("Waits for what is typed")

    expect(reason).to_have_value("half a sentence")
    me.page.click("#do-pause button")
    expect(me.page.locator(".problem, .done.rejected")).to_contain_text("terminated")


def test_a_hold_that_was_chosen_and_is_lifted_meanwhile_lifts_no_other(me: Guest, project: Project) -> None:
    agent = project.spawn()["id"]
    for owner in ("manual", "budget"):
        project.send(agent, "pause", owner=owner)
    eventually(lambda: len(project.api.get(project.agent(agent)).json["holds"]) == 2)  # type: ignore[index]
    me.go(f"/a/{agent}")
    me.page.click("#do-resume summary")
    me.page.select_option("#do-resume select", "budget")
    me.page.locator("#do-resume select").blur()

    project.send(agent, "resume", owner="budget")
    expect(me.page.locator("#do-resume option")).to_have_count(1)
    me.page.click("#do-resume button")
    me.page.wait_for_timeout(busy(1) * 1000)

    assert [hold["owner"] for hold in project.api.get(project.agent(agent)).json["holds"]] == ["manual"]  # type: ignore[index]


def edit_the_name(me: Guest, name: str) -> None:
    """Change that and nothing else, of the agent whose page is open."""
    me.page.locator("#do-update").evaluate("details => { details.open = true }")
    me.page.fill("#do-update [name=name]", name)
    me.page.click("#do-update button")
    expect(me.page.locator(".done")).to_contain_text("update of")
    expect(me.page.locator(".done")).to_contain_text("applied")


def test_an_edit_of_the_name_leaves_a_task_of_several_lines(me: Guest, project: Project) -> None:
    agent = project.spawn(current_task="line one\nline two")["id"]
    me.go(f"/a/{agent}")

    edit_the_name(me, "renamed")

    now = project.api.get(project.agent(agent)).json
    assert (now["name"], now["current_task"]) == ("renamed", "line one\nline two")  # type: ignore[index]


def test_an_edit_of_the_name_leaves_a_task_that_came_while_the_page_was_open(me: Guest, project: Project) -> None:
    agent = project.spawn(current_task="line one\nline two")["id"]
    me.go(f"/a/{agent}")
    project.send(agent, "update", current_task="a newer one\nof two lines")
    expect(me.page.locator(".task-line")).to_contain_text("a newer one")

    edit_the_name(me, "renamed")

    now = project.api.get(project.agent(agent)).json
    assert (now["name"], now["current_task"]) == ("renamed", "a newer one\nof two lines")  # type: ignore[index]


def test_a_task_of_several_lines_is_shown_and_written_as_such(me: Guest, project: Project) -> None:
    agent = project.spawn(current_task="line one")["id"]
    me.go(f"/a/{agent}")

    me.page.locator("#do-update").evaluate("details => { details.open = true }")
    me.page.fill("#do-update [name=current_task]", "first\nsecond")
    me.page.click("#do-update button")
    expect(me.page.locator(".done")).to_contain_text("applied")

    assert project.api.get(project.agent(agent)).json["current_task"] == "first\nsecond"  # type: ignore[index]
    assert me.page.inner_text(".task-line") == "first\nsecond"


def three(me: Guest, project: Project) -> str:
    """A list of three agents, newest first, that is open; the second one's id."""
    ids = {name: project.spawn(name=name)["id"] for name in ("kb-1", "kb-2", "kb-3")}
    me.go(f"/p/{slug(project)}/agents?q=kb-")
    expect(me.page.locator("table.agents tbody tr")).to_have_count(3)
    return str(ids["kb-2"])


def test_a_key_acts_on_the_agent_whose_button_has_the_focus(me: Guest, project: Project) -> None:
    three(me, project)
    me.page.locator("button[aria-label='pause kb-2']").focus()

    project.spawn(name="kb-9")
    expect(me.page.locator("table.agents tbody tr")).to_have_count(4)
    me.page.keyboard.press("Enter")

    expect(me.page.locator(".done")).to_contain_text("pause of kb-2: applied")


def test_a_click_acts_on_the_agent_whose_button_was_pressed(me: Guest, project: Project) -> None:
    three(me, project)
    me.page.hover("button[aria-label='pause kb-2']")
    me.page.wait_for_timeout(1_500)  # so that it is the press which holds the page still, and not the way to it

    me.page.mouse.down()
    project.spawn(name="kb-9")
    me.page.wait_for_timeout(busy(1.5) * 1000)
    expect(me.page.locator("table.agents tbody tr")).to_have_count(3)
    me.page.mouse.up()

    expect(me.page.locator(".done")).to_contain_text("pause of kb-2: applied")


def test_a_list_holds_still_for_a_hand_on_its_way_and_not_for_one_that_rests(me: Guest, project: Project) -> None:
    three(me, project)
    box = me.page.locator("button[aria-label='pause kb-2']").bounding_box()
    assert box is not None

    project.spawn(name="kb-9")
    for step in range(12):
        me.page.mouse.move(box["x"] + 5 + step, box["y"] + 5)
        me.page.wait_for_timeout(150)
    assert me.page.locator("table.agents tbody tr").count() == 3

    expect(me.page.locator("table.agents tbody tr")).to_have_count(4)


def test_the_list_goes_on_while_somebody_fills_in_its_filter(me: Guest, project: Project) -> None:
    three(me, project)
    me.page.fill("#search", "kb-7")

    project.spawn(name="kb-9")
    expect(me.page.locator("table.agents tbody tr")).to_have_count(4)

    assert me.page.input_value("#search") == "kb-7"
    expect(me.page.locator("#search")).to_be_focused()


@pytest.mark.parametrize("change", [{"name": "gone"}, {"status": "paused"}], ids=["of its name", "of its status"])
def test_after_a_change_the_focus_is_on_no_button_that_does_another_thing(
    me: Guest, project: Project, change: dict[str, str]
) -> None:
    agent = three(me, project)
    mine = me.page.locator("button[aria-label='pause kb-2']")
    mine.focus()

    if "name" in change:
        project.send(agent, "update", **change)
    else:
        project.send(agent, "pause")
    expect(mine).to_have_count(0)

    assert me.page.evaluate("document.activeElement.tagName") == "BODY"


def test_a_page_whose_user_is_deactivated_says_so(browser: Browser, server: str, admin: Api, worker: Worker) -> None:
    owner = admin.user()
    Project.make(admin, owner).spawn()
    with guest(browser, server, owner) as me:
        me.go("/commands")

        admin.patch(f"users/{user_id(owner)}", {"is_active": False})

        expect(me.page.locator("h1")).to_have_text("Signed out", timeout=busy(20) * 1000)
        expect(me.page.locator("[role=alert]")).to_contain_text("Your user has been deactivated")
        me.page.click("text=Sign in")
        assert me.page.input_value("input[name=next]") == "/commands"
        me.complaints.clear()  # the browser notes what was refused


def test_an_error_leaves_the_page_as_it_was_and_it_recovers(me: Guest, project: Project) -> None:
    agent = project.spawn()["id"]
    me.go(f"/a/{agent}")
    me.page.click("#do-pause summary")
    me.page.fill("#do-pause input[name=reason]", "kept")
    me.page.locator("#do-pause input[name=reason]").blur()
    me.page.route(f"**/a/{agent}", lambda route: route.fulfill(status=503, body="<p>away</p>"))

    project.send(agent, "update", current_task="while it was away")
    eventually(lambda: me.page.wait_for_timeout(50) or me.complaints)

    expect(me.page.locator(".lead")).to_contain_text("idle")
    me.page.unroute(f"**/a/{agent}")
    expect(me.page.locator(".task-line")).to_contain_text("while it was away", timeout=busy(10) * 1000)
    assert me.page.input_value("#do-pause input[name=reason]") == "kept"
    me.complaints.clear()  # the browser notes the 503


def test_a_page_whose_session_is_over_shows_the_sign_in(me: Guest, project: Project) -> None:
    agent = project.spawn()["id"]
    me.go(f"/a/{agent}")

    me.page.request.post(f"{me.base}/logout", headers=SAME)
    time.sleep(1.2)  # a session that is over lives on for a second in a process that has just used it
    me.page.keyboard.press("r")

    me.page.wait_for_url("**/login?next=**", timeout=busy(10) * 1000)
    me.complaints.clear()  # the browser notes the stream that was refused


def test_all_that_match_are_paused_with_their_number_typed(me: Guest, project: Project) -> None:
    for name in ("alpha", "alphabet", "beta"):
        project.spawn(name=name)
    me.go(f"/p/{slug(project)}/agents?q=alph")

    me.page.click("button[value=pause]")
    expect(me.page.locator("h1")).to_contain_text("Pause 2 agents")
    me.page.fill("input[name=reason]", "night")
    me.page.fill("input[name=count]", "3")
    me.page.click("form button:has-text('Pause 2')")
    expect(me.page.locator("[role=alert]")).to_contain_text("2 agents match, not 3; nothing was sent")
    assert me.page.input_value("input[name=reason]") == "night"
    me.page.fill("input[name=count]", "2")
    me.page.click("form button:has-text('Pause 2')")

    expect(me.page.locator(".done")).to_contain_text("Pause, a batch of 2: 2 applied")
    me.complaints.clear()  # the browser notes that the first try was answered 409


def test_a_filter_is_in_the_address_and_comes_back_from_it(me: Guest, project: Project) -> None:
    for name in ("alpha", "beta"):
        project.spawn(name=name)
    me.go(f"/p/{slug(project)}/agents")

    me.page.fill("#search", "alp")
    me.page.select_option(".filter select[name=status]", "idle")
    me.page.click(".filter button")
    address = me.page.url
    me.go("/")
    me.page.goto(address)

    assert re.search(r"q=alp.*status=idle", address)
    assert me.page.input_value("#search") == "alp"
    expect(me.page.locator("table.agents tbody tr")).to_have_count(1)


def test_a_stream_that_was_cut_goes_on_without_a_gap(
    browser: Browser, server: str, admin: Api, project: Project
) -> None:
    agent = project.spawn()["id"]
    with Proxy(("127.0.0.1", int(server.rsplit(":", 1)[1]))) as proxy:
        base = f"http://127.0.0.1:{proxy.port}"
        with guest(browser, base, admin) as me:
            me.go(f"/a/{agent}")
            expect(me.page.locator(".story li")).to_have_count(1)
            proxy.reset()
            for number in range(3):
                project.send(agent, "update", name=f"name {number}")
            expect(me.page.locator(".story li")).to_have_count(4, timeout=busy(20) * 1000)
            me.page.wait_for_selector(LIVE)
            project.send(agent, "update", name="after")
            expect(me.page.locator(".story li")).to_have_count(5)
            me.complaints.clear()  # the browser notes each connection that was cut


def test_the_keyboard_is_enough(me: Guest, project: Project) -> None:
    agent = project.spawn(name="keyed")["id"]
    me.go("/")
    keys = me.page.keyboard

    keys.press("g")
    keys.press("c")
    me.page.wait_for_url("**/commands*")
    keys.press("g")
    keys.press("f")
    me.page.wait_for_url(lambda url: url.rstrip("/") == me.base)
    me.go(f"/p/{slug(project)}/agents")
    keys.press("/")
    keys.type("key")
    keys.press("Enter")
    me.page.wait_for_url("**q=key**")
    me.page.locator(f"a[href='/a/{agent}']").focus()
    keys.press("Enter")
    me.page.wait_for_url(f"**/a/{agent}")
    me.page.locator("#do-pause summary").focus()
    for key in ("Enter", "Tab"):
        keys.press(key)
    keys.type("by hand")
    keys.press("Enter")

    expect(me.page.locator(".story")).to_contain_text("“by hand”")


def grave(page: Page) -> list[tuple[str, str]]:
    """What keeps somebody from reading it, in the colours it has now. Only that comes back: the list of all that was
    looked at is long."""
    found = page.evaluate("axe.run({resultTypes: ['violations']}).then(results => results.violations)")
    return [(v["id"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("width", [360, 1440])
def test_every_page_fits_and_can_be_read_by_everybody(
    browser: Browser, server: str, admin: Api, project: Project, width: int
) -> None:
    agent = project.spawn(name="a-name-that-is-as-long-as-names-may-be-" + "x" * 60, current_task="task " * 80)["id"]
    project.send(agent, "pause", reason="because " * 20)
    usage = {
        "report_id": "1",
        "cost": 1_000_000,
        "input_tokens": 10**12,
        "model": "a-model-with-a-very-long-name-" + "y" * 60,
    }
    project.api.post(f"{project.agent(agent)}/usage", {"entries": [usage]})
    paths = ["/", f"/?project={slug(project)}", f"/p/{slug(project)}/agents", f"/a/{agent}", "/commands", "/costs",
             "/workers", "/audit", "/settings", f"/p/{slug(project)}/agents/bulk?verb=terminate"]  # fmt: skip
    with guest(browser, server, admin, viewport={"width": width, "height": 900}) as me:
        for path in paths:
            me.go(path)
            me.page.evaluate(Axe().axe_script)
            for scheme in ("light", "dark"):  # one after the other on the same page, which takes long to open
                me.page.emulate_media(color_scheme=scheme)
                assert me.page.evaluate("document.documentElement.scrollWidth") <= width, (path, scheme)
                assert grave(me.page) == [], (path, scheme)


@pytest.mark.parametrize("width", [500, 1440])
def test_no_table_of_costs_runs_out_of_its_card(
    browser: Browser, server: str, admin: Api, project: Project, width: int
) -> None:
    agent = project.spawn(name="scout-of-the-northern-provinces-and-islands")["id"]
    spent = {"a-model-that-is-named-at-length": 999_999.99, "another-one-that-is-as-long-as-it": "0.0000000001"}
    usage = [{"report_id": model, "model": model, "cost": cost, "input_tokens": 10**8} for model, cost in spent.items()]
    project.api.post(f"{project.agent(agent)}/usage", {"entries": usage})
    of = slug(project)
    with guest(browser, server, admin, viewport={"width": width, "height": 900}) as me:
        eventually(lambda: me.go(f"/costs?project={of}") or me.page.locator(".bars tr").count() >= 4)

        over = "[...document.querySelectorAll('section')].filter(s => s.scrollWidth > s.clientWidth).length"
        assert me.page.evaluate(over) == 0
        assert me.page.locator(".bars th").first.evaluate("th => th.clientWidth") > 60


@pytest.mark.parametrize("width", [360, 1440])
def test_long_names_leave_room_for_the_numbers(
    browser: Browser, server: str, admin: Api, project: Project, width: int
) -> None:
    made = admin.post("projects", {"name": uuid4().hex + "W" * 60})
    kind = admin.post("agent-types", {"name": uuid4().hex + "T" * 60})
    long = Project(admin, made.json["id"], kind.json["id"])  # type: ignore[index]
    agent = long.spawn(name="n" * 100)["id"]
    long.send(agent, "pause", owner="budget-" + "o" * 50)
    eventually(lambda: long.api.get(long.agent(agent)).json["holds"])  # type: ignore[index]
    with guest(browser, server, admin, viewport={"width": width, "height": 900}) as me:
        me.go(f"/p/{slug(long)}/agents")
        held = me.page.locator("table.agents .act")
        assert held.evaluate("cell => cell.clientWidth") < width / 3
        for path in (f"/p/{slug(long)}/agents", "/", "/settings"):
            me.go(path)
            names = me.page.evaluate("[...document.querySelectorAll('.scroll .cut')].map(name => name.clientWidth)")
            assert names
            assert max(names) < max(width / 5, 160), path


def test_a_commands_time_is_in_its_own_row(browser: Browser, server: str, admin: Api, project: Project) -> None:
    project.spawn(name="an-agent-of-a-middling-name")
    with guest(browser, server, admin, viewport={"width": 360, "height": 900}) as me:
        me.go("/")
        below = """[...document.querySelectorAll('.ticker li')].filter(row => row.querySelector('.took')
            .getBoundingClientRect().bottom > row.getBoundingClientRect().bottom + 1).length"""
        assert me.page.locator(".ticker .took").count()
        assert me.page.evaluate(below) == 0


def test_a_link_to_what_can_be_done_opens_it(me: Guest, project: Project) -> None:
    agent = project.spawn()["id"]

    me.go(f"/a/{agent}#do-terminate")

    expect(me.page.locator("#do-terminate input[name=confirm]")).to_be_visible()


BARS = """
    window.bars = [];
    const rect = Path2D.prototype.rect;
    Path2D.prototype.rect = function (x, y, width, height) {
        if (height > 20 && width < 300) bars.push([x, width]);
        return rect.call(this, x, y, width, height);
    };
"""
"""Notes where bars are drawn, and how wide, in pixels of the canvas."""


def test_the_bar_of_what_was_spent_lies_within_its_time(me: Guest, project: Project) -> None:
    agent = project.spawn()["id"]
    project.api.post(f"{project.agent(agent)}/usage", {"entries": [{"report_id": "1", "cost": 1}]})
    of = f"project={slug(project)}&range=24h"
    numbers = f"{me.base}/charts/cost?{of}"
    eventually(lambda: me.page.request.get(numbers).json()["columns"][0], 30)
    me.page.add_init_script(BARS)
    me.go(f"/costs?{of}")

    [left, width] = eventually(lambda: me.page.evaluate("bars"))[-1]
    project.send(agent, "pause")
    me.page.wait_for_event("response", lambda answer: answer.request.headers.get("hx-request") == "true")
    me.page.wait_for_timeout(300)
    expect(me.page.locator("[data-chart] canvas")).to_be_visible()

    drawn = me.page.request.get(numbers).json()
    (start,), (since, until) = drawn["columns"][0], drawn["ends"]
    ratio = me.page.evaluate("devicePixelRatio")
    plot = me.page.evaluate(
        "(() => { const [o, c] = ['.u-over', 'canvas'].map(s => document.querySelector(s).getBoundingClientRect());"
        " return [o.left - c.left, o.width]; })()"
    )
    begins, ends = (plot[0] + (at - since) / (until - since) * plot[1] for at in (start, start + drawn["step"]))
    assert begins - 3 < left / ratio < begins + 3
    assert left / ratio + width / ratio < ends + 3


def test_the_chart_of_latencies_has_each_part_at_each_quantile(me: Guest, project: Project) -> None:
    me.go(f"/commands?project={slug(project)}")

    for part in ("waiting", "applying", "whole"):
        for quantile in ("p50", "p95", "p99"):
            expect(me.page.locator(".u-legend")).to_contain_text(f"{part} {quantile}")
    styles = "[...document.querySelectorAll('.u-legend .u-marker')].map(m => getComputedStyle(m).borderStyle)"
    assert set(me.page.evaluate(styles)) >= {"solid", "dashed", "dotted"}, "as the lines are"


def test_without_scripts_it_works_as_well(browser: Browser, server: str, admin: Api, project: Project) -> None:
    agent = project.spawn()["id"]
    with guest(browser, server, admin, java_script_enabled=False) as me:
        me.page.goto(f"{server}/a/{agent}")
        me.page.click("#do-pause summary")
        me.page.fill("#do-pause input[name=reason]", "no scripts")
        me.page.click("#do-pause button")

        expect(me.page.locator(".done")).to_contain_text("applied")
        me.page.select_option("#project", slug(project))
        me.page.click("text=Go")
        assert f"/p/{slug(project)}/agents" in me.page.url
        me.page.goto(f"{server}/costs")
        expect(me.page.locator(".chart .note")).to_be_visible()
        assert me.page.locator(".plot").bounding_box() is None, "there is no room kept for a chart that does not come"


def test_the_first_agent_ends_the_first_page(browser: Browser, server: str, admin: Api, worker: Worker) -> None:
    owner = admin.user()
    with guest(browser, server, owner) as me:
        me.go("/")
        expect(me.page.locator("h1")).to_contain_text("No agents yet")

        Project.make(admin, owner).spawn(name="the-first")

        expect(me.page.locator("body")).to_contain_text("the-first", timeout=busy(10) * 1000)
        expect(me.page.locator("h1")).to_have_text("Fleet")
        expect(me.page.locator("nav a[data-key=a]")).to_be_visible()
        expect(me.page.locator("#project")).to_be_visible()
        expect(me.page.locator("[data-chart=fleet] canvas")).to_be_visible()


def test_a_new_name_is_in_the_heading_and_in_the_title(me: Guest, project: Project) -> None:
    agent = project.spawn(name="old-name")["id"]
    me.go(f"/a/{agent}")

    project.send(agent, "update", name="new-name")

    expect(me.page.locator("h1")).to_contain_text("new-name")
    expect(me.page).to_have_title("new-name · orch")


def test_the_keyboard_reaches_any_project(me: Guest, project: Project) -> None:
    Project.make(project.api)
    me.go("/audit")
    where, keys = me.page.url, me.page.keyboard
    me.page.focus("#project")

    keys.press("ArrowDown")
    keys.press("ArrowDown")
    me.page.wait_for_timeout(500)
    chosen = me.page.input_value("#project")
    assert me.page.url == where
    keys.press("Tab")
    keys.press("Enter")

    me.page.wait_for_url(f"**/audit?project={chosen}")


def test_the_search_is_a_key_away_where_a_page_has_none(me: Guest, project: Project) -> None:
    project.spawn(name="sought")
    me.go("/")

    me.page.keyboard.press("/")
    me.page.wait_for_url("**/agents#search")
    expect(me.page.locator("#search")).to_be_focused()
    me.page.keyboard.type("sou")
    me.page.keyboard.press("Enter")

    me.page.wait_for_url("**q=sou**")


def test_a_letter_long_after_g_leads_nowhere(me: Guest, project: Project) -> None:
    me.go("/")

    me.page.keyboard.press("g")
    me.page.wait_for_timeout(2_000)
    me.page.keyboard.press("c")
    me.page.wait_for_timeout(300)

    assert me.page.url == f"{me.base}/"


def test_names_are_as_long_as_they_may_be_whatever_is_in_them(me: Guest, project: Project) -> None:
    name = "\N{ROBOT FACE}" * 100
    project.spawn()  # and so waits until there is a worker
    me.go(f"/p/{slug(project)}/agents")

    me.page.focus(".spawn input[name=name]")
    me.page.keyboard.insert_text(name)
    me.page.click(".spawn button")

    expect(me.page.locator(".done")).to_contain_text(f"spawn of {name}: applied")


WRITTEN = """
    window.written = [];
    const write = CanvasRenderingContext2D.prototype.fillText;
    CanvasRenderingContext2D.prototype.fillText = function (text, x, ...rest) {
        written.push([text, this.textAlign === "right" ? x - this.measureText(text).width : x, this.fillStyle]);
        return write.call(this, text, x, ...rest);
    };
"""
"""Notes what is written into charts: the words, where they begin, and their colour."""


def test_the_axis_of_a_chart_has_room_for_its_numbers(me: Guest, project: Project) -> None:
    agent = project.spawn()["id"]
    entries = [{"report_id": str(n), "cost": 1_000_000} for n in range(3)]
    project.api.post(f"{project.agent(agent)}/usage", {"entries": entries})
    of = f"project={slug(project)}"
    eventually(lambda: sum(me.page.request.get(f"{me.base}/charts/cost?{of}").json()["columns"][1]) == 3_000_000, 30)
    me.page.add_init_script(WRITTEN)
    me.go(f"/costs?{of}")

    written = eventually(lambda: me.page.evaluate("written"))

    money = [(said, start) for said, start, _ in written if said.startswith("$")]
    assert "$3.0M" in dict(money)
    assert all(start >= 0 for _, start in money)


def test_a_chart_has_the_colours_of_the_scheme_that_is_chosen_now(me: Guest, project: Project) -> None:
    project.spawn()
    me.page.emulate_media(color_scheme="light")
    me.page.add_init_script(WRITTEN)
    me.go("/")
    eventually(lambda: me.page.evaluate("written"))

    me.page.evaluate("written.length = 0")
    me.page.emulate_media(color_scheme="dark")

    colours = {colour for _, _, colour in eventually(lambda: me.page.evaluate("written"))}
    quiet = "getComputedStyle(document.documentElement).getPropertyValue('--quiet').trim()"
    assert colours == {me.page.evaluate(quiet)}
    expect(me.page.locator("[data-chart] canvas")).to_have_count(1)


TOP = "element => element.getBoundingClientRect().top"
LEFT, RIGHT = TOP.replace("top", "left"), TOP.replace("top", "right")


def test_on_a_narrow_screen_what_is_needed_is_at_hand(
    browser: Browser, server: str, admin: Api, project: Project
) -> None:
    for number in range(20):
        project.spawn(wait=False, name=f"narrow-{number}", current_task="a task of several words")
    project.spawn(name="narrow-last")
    with guest(browser, server, admin, viewport={"width": 360, "height": 800}) as me:
        me.go(f"/p/{slug(project)}/agents")
        expect(me.page.locator("#search")).to_be_in_viewport()
        expect(me.page.locator("button[aria-label='pause narrow-last']")).to_be_in_viewport(ratio=1)
        mine = me.page.locator("table.agents tr", has_text="narrow-last")
        assert mine.locator(".status").evaluate(RIGHT) <= mine.locator("button").evaluate(LEFT)
        me.page.click("text=All that match, and spawn")
        expect(me.page.locator(".spawn h2")).to_be_in_viewport()
        me.go("/commands")
        filter_, table = (me.page.locator(each).evaluate(TOP) for each in ("#search", ".scroll"))
        assert filter_ < table
        me.go("/audit")
        assert me.page.locator("td time").first.evaluate("time => time.getClientRects().length") == 1


@pytest.fixture
def with_flower(world: None, worker: Worker, tmp_path: Path) -> Iterator[str]:
    """A web server that knows where a Flower is."""
    port, secret = free_port(), "orch:not-to-be-guessed"
    command = [
        sys.executable,
        "-m",
        "celery",
        "-q",
        "-A",
        "workers.app",
        "flower",
        "--address=127.0.0.1",
        f"--port={port}",
    ]
    command += ["--url_prefix=flower", "--read_only=True", "--logging=error"]
    environment = os.environ | {"FLOWER_BASIC_AUTH": secret}
    with (tmp_path / "flower.log").open("wb") as log:
        flower = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        eventually(lambda: answers(f"http://127.0.0.1:{port}/flower/healthcheck"), 30)
        with Gunicorn.start(tmp_path / "web.log", ORCH_FLOWER_URL=f"http://{secret}@127.0.0.1:{port}") as web:
            yield f"http://127.0.0.1:{web.port}"
    finally:
        flower.terminate()
        flower.wait(timeout=20)


def answers(url: str) -> bool:
    """Whether anybody does there, and how it is not refused."""
    with suppress(httpx2.HTTPError):
        return httpx2.get(url).status_code == 200
    return False


def drains(me: Guest, project: Project, agent: str) -> bool:
    """Whether Flower's list shows a drain, after one more: it knows only what has happened since it listens."""
    project.send(agent, "update", name="moved")
    me.page.goto(f"{me.base}/flower/tasks")
    me.page.wait_for_timeout(1_000)
    return "orchestrator.drain" in me.page.inner_text("body")


def test_flower_shows_workers_and_drains_to_who_is_signed_in_and_refuses_control(
    browser: Browser, with_flower: str, admin: Api, project: Project
) -> None:
    agent = project.spawn()["id"]
    assert httpx2.get(f"{with_flower}/flower/tasks").headers["Location"].startswith("/login")
    with guest(browser, with_flower, admin) as me:
        me.go("/workers")
        me.page.click("text=Flower")
        expect(me.page.locator("body")).to_contain_text("Online", timeout=busy(20) * 1000)
        assert eventually(lambda: drains(me, project, agent), 60)
        me.go(f"/a/{agent}")
        me.page.click(".story li:first-child a:has-text('task')")
        assert "/flower/task/" in me.page.url
        expect(me.page.locator("body")).to_contain_text("applied", timeout=busy(20) * 1000)
        refused = me.page.request.post(f"{with_flower}/flower/api/worker/shutdown/worker", headers=SAME)
        assert refused.status in (403, 404, 405)
        me.page.click("text=Back to the console")
        me.page.wait_for_url("**/workers")
    with guest(browser, with_flower, admin.user()) as stranger:
        stranger.page.goto(f"{with_flower}/flower/tasks")
        expect(stranger.page.locator("[role=alert]")).to_contain_text("only a superuser may do that")
        stranger.complaints.clear()  # the browser notes the 403
