"""Commands: accepted with 202, waited for, listed, told of, and taken back as long as they are queued."""

import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest

from orchestrator import drain as drains
from orchestrator.db import Guard, begin
from orchestrator.link import CLOSED_CHANNEL, link
from orchestrator.settings import settings
from tests.stage import WAIT, Project, blocked, drain, eventually, run, settle, sql, violations
from web.waiters import waiters

WAITERS = sys.modules[waiters.__module__]
"""The module: its package has a function of its name."""


def cancel(project: Project, command_id: str, **headers: str) -> Any:
    """The answer to taking a command back."""
    return project.api.post(f"{project.path}/commands/{command_id}/cancel", **headers)


def listed(project: Project, query: str = "") -> list[str]:
    """The ids on a page of the project's commands."""
    answer = project.api.get(f"{project.path}/commands?{query}")
    assert answer.status_code == 200, answer.json
    return [command["id"] for command in answer.json["data"]]


@contextmanager
def waiting(project: Project, method: str, path: str, body: Any = None) -> Iterator[Future[Any]]:
    """A request, in a thread of its own, that waits for its command when the block begins."""
    here = waiters()  # made before there are two who might each make their own
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(project.api, method, path, body, Prefer="wait=20")
        eventually(lambda: here._waiting or future.done())
        assert not future.done(), future.result().json
        yield future


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The environment, to be changed before `settings.cache_clear()`; afterwards all is as it was."""
    yield monkeypatch
    monkeypatch.undo()
    settings.cache_clear()
    waiters.cache_clear()


def test_a_mutation_is_answered_with_its_command_and_where_to_look(quiet: Project) -> None:
    me = quiet.api.get("me").json["user"]["id"]
    agent = quiet.born()

    answer = quiet.api.post(f"{quiet.agent(agent)}/pause", {"reason": " tea "})

    shown = dict(answer.json)
    address = answer.headers["Location"]
    assert (answer.status_code, address) == (202, f"/api/v1/{quiet.path}/commands/{shown['id']}")
    assert quiet.api.get(address).json == shown
    assert shown.pop("requested_at")
    assert shown.pop("id")
    assert shown == {
        "project_id": quiet.id,
        "agent_id": agent,
        "verb": "pause",
        "state": "queued",
        "reason": "tea",
        "actor": {"type": "user", "id": me},
        "closed_at": None,
        "version": None,
        "error": None,
        "task_id": None,
        "quiesced_at": None,
        "quiesced_by": None,
    }


def test_an_applied_command_tells_when_by_which_task_and_to_which_version(project: Project) -> None:
    agent = project.spawn()["id"]

    shown = project.command(project.send(agent, "pause")["id"], **WAIT)

    assert (shown["state"], shown["version"], shown["error"]) == ("applied", 2, None)
    assert shown["closed_at"] > shown["requested_at"]
    assert shown["task_id"]


def test_looking_at_a_command_can_wait_until_it_is_closed(quiet: Project) -> None:
    command = quiet.send(quiet.born(), "pause")

    with waiting(quiet, "GET", f"{quiet.path}/commands/{command['id']}") as answer:
        drain()

        assert answer.result(timeout=10).json["state"] == "applied"
    assert answer.result().headers["Preference-Applied"] == "wait=20"


def test_a_look_that_waited_in_vain_shows_the_command_as_it_is(quiet: Project) -> None:
    command = quiet.send(quiet.born(), "pause")

    answer = quiet.api.get(f"{quiet.path}/commands/{command['id']}", Prefer="wait=0.05")

    assert (answer.status_code, answer.json) == (200, command)


def test_a_waiter_is_answered_by_the_workers_word_and_not_by_a_poll(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WAITERS, "FIRST_LOOK_SECONDS", 2)
    monkeypatch.setattr(WAITERS, "LOOK_SECONDS", 60)
    agent, took = project.spawn()["id"], []

    for verb in ["pause", "resume"] * 10:
        began = time.perf_counter()
        assert project.api.post(f"{project.agent(agent)}/{verb}", **WAIT).status_code == 200
        took.append(time.perf_counter() - began)

    assert sorted(took)[10] < 0.5, took


def test_a_word_that_is_lost_costs_a_second_or_two(quiet: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WAITERS, "FIRST_LOOK_SECONDS", 60)
    agent = quiet.born()

    with waiting(quiet, "POST", f"{quiet.agent(agent)}/pause") as answer:
        drain()  # which tells nobody

        assert answer.result(timeout=5).status_code == 200


def test_garbage_on_the_workers_channel_deafens_nobody(project: Project) -> None:
    agent = project.spawn()["id"]
    for garbage in ("", "{", "5", "[5]", '["x"]', "null", b"\xff"):
        assert link().client.publish(CLOSED_CHANNEL, garbage)

    began = time.perf_counter()
    answers = [project.api.post(f"{project.agent(agent)}/{verb}", **WAIT) for verb in ["pause", "resume"] * 4]

    assert {answer.status_code for answer in answers} == {200}
    assert time.perf_counter() - began < 8 * 0.5


def test_commands_are_listed_newest_first_and_found_by_state_verb_and_agent(quiet: Project) -> None:
    one, two = quiet.born(), quiet.born()
    spawns = listed(quiet)
    resume = quiet.send(one, "resume")["id"]
    drain()
    pause_two, pause_one = quiet.send(two, "pause")["id"], quiet.send(one, "pause")["id"]

    assert listed(quiet) == [pause_one, pause_two, resume, *spawns]
    assert listed(quiet, "state=queued") == [pause_one, pause_two]
    assert listed(quiet, "state=rejected") == [resume]
    assert listed(quiet, "verb=spawn") == spawns
    assert listed(quiet, f"agent_id={one}") == [pause_one, resume, spawns[1]]
    assert listed(quiet, f"agent_id={two}&state=queued&verb=pause") == [pause_two]
    assert listed(quiet, f"agent_id={uuid4()}") == listed(quiet, "state=dead") == []


def test_filters_hold_from_page_to_page(quiet: Project) -> None:
    one, two = quiet.born(), quiet.born()
    pauses = [quiet.send(agent, "pause")["id"] for agent in (one, two, one, two, one)]

    page = quiet.api.get(f"{quiet.path}/commands?agent_id={one}&verb=pause&limit=2").json
    rest = listed(quiet, f"agent_id={one}&verb=pause&limit=2&cursor={page['pagination']['next_cursor']}")

    assert [command["id"] for command in page["data"]] == [pauses[4], pauses[2]]
    assert rest == [pauses[0]]


@pytest.mark.parametrize("query", ["state=open", "state=", "verb=work", "agent_id=1", "verb=pause&verb=resume"])
def test_a_wrong_filter_is_refused_by_name(project: Project, query: str) -> None:
    answer = project.api.get(f"{project.path}/commands?{query}")

    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, query.partition("=")[0])


def test_a_queued_command_can_be_taken_back_once(quiet: Project) -> None:
    agent = quiet.born()
    command = quiet.send(agent, "pause")

    first, second = cancel(quiet, command["id"]), cancel(quiet, command["id"])
    drain()

    assert (first.status_code, first.json["state"], first.json["version"]) == (200, "cancelled", None)
    assert first.json["closed_at"] > first.json["requested_at"]
    assert quiet.command(command["id"]) == first.json
    assert (second.status_code, second.json["errors"][0]["code"]) == (409, "conflict")
    assert "cancelled" in second.json["errors"][0]["message"]
    assert quiet.api.get(quiet.agent(agent)).json["status"] == "idle"
    assert violations() == {}


@pytest.mark.parametrize(("verb", "state"), [("pause", "applied"), ("resume", "rejected")])
def test_a_closed_command_cannot_be_taken_back(quiet: Project, verb: str, state: str) -> None:
    command = quiet.send(quiet.born(), verb)
    drain()

    answer = cancel(quiet, command["id"])

    assert (answer.status_code, answer.json["errors"][0]["code"]) == (409, "conflict")
    assert state in answer.json["errors"][0]["message"]
    assert quiet.command(command["id"])["state"] == state


def test_the_commands_after_a_cancelled_one_go_on(quiet: Project) -> None:
    agent = quiet.born()
    pause, name = quiet.send(agent, "pause"), quiet.send(agent, "update", name="after")

    cancel(quiet, pause["id"])
    drain()

    shown = quiet.api.get(quiet.agent(agent)).json
    assert (shown["status"], shown["name"], quiet.command(name["id"])["version"]) == ("idle", "after", 2)


def test_an_agent_whose_spawn_is_cancelled_is_never_born(quiet: Project) -> None:
    spawn = quiet.spawn(wait=False)
    pause = quiet.send(spawn["agent_id"], "pause")

    assert cancel(quiet, spawn["id"]).status_code == 200
    drain()

    assert quiet.command(pause["id"])["error"]["code"] == "not_found"
    assert quiet.api.get(quiet.agent(spawn["agent_id"])).status_code == 404
    assert quiet.api.get(f"{quiet.path}/agents").json["data"] == []
    assert violations() == {}


def test_taking_back_is_repeated_without_harm_under_the_same_key(quiet: Project) -> None:
    agent, key = quiet.born(), uuid4().hex
    first, other = quiet.send(agent, "pause"), quiet.send(agent, "pause")

    answers = [cancel(quiet, first["id"], Idempotency_Key=key) for _ in range(2)]
    reused = cancel(quiet, other["id"], Idempotency_Key=key)

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json == answers[1].json
    assert [answer.headers.get("Idempotency-Replayed") for answer in answers] == [None, "true"]
    assert (reused.status_code, reused.json["errors"][0]["code"]) == (422, "idempotency_key_reused")


def test_an_unknown_or_foreign_command_is_not_there(quiet: Project) -> None:
    theirs = Project.make(quiet.api).spawn(wait=False)["id"]

    for id_ in (theirs, str(uuid4()), "1"):
        assert quiet.api.get(f"{quiet.path}/commands/{id_}").status_code == 404
        assert cancel(quiet, id_).status_code == 404


def test_of_five_hundred_races_each_command_is_either_cancelled_or_applied(quiet: Project) -> None:
    agent = quiet.born()
    answers = {}

    def hurry(head_start: int) -> None:
        with begin(Guard.TOOL) as db:
            for _ in range(head_start):  # of the cancel, in statements
                run(db, "SELECT 1")
        drain()

    with ThreadPoolExecutor(2) as pool:
        for race in range(500):
            command = quiet.send(agent, "update", name=f"race {race}")["id"]
            racers = pool.submit(cancel, quiet, command), pool.submit(hurry, random.randrange(12))  # noqa: S311  # chance
            answers[command] = racers[0].result().status_code
            racers[1].result()
    settle()

    states = {str(id_): state for id_, state in sql("SELECT id, state FROM commands WHERE verb = 'update'")}
    told = {str(id_) for (id_,) in sql("SELECT command_id FROM events WHERE verb = 'update'")}
    assert {id_: "cancelled" if status == 200 else "applied" for id_, status in answers.items()} == states
    assert told == {id_ for id_, status in answers.items() if status == 409}
    assert 0 < len(told) < 500, "nobody raced"
    assert violations() == {}


def test_a_rejected_command_answers_who_waited_with_its_error(project: Project) -> None:
    agent = project.spawn()["id"]

    refused = project.api.post(f"{project.agent(agent)}/resume", **WAIT)
    stale = project.api.post(f"{project.agent(agent)}/pause", If_Match='"7"', **WAIT)

    for answer, status, code in ((refused, 409, "invalid_transition"), (stale, 412, "precondition_failed")):
        error = project.command(answer.json["command_id"])["error"]
        assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
        assert answer.json["errors"] == [{name: error[name] for name in ("code", "message", "field")}]
        assert error["code"] == code


def test_a_command_cancelled_while_it_is_waited_for_answers_409(
    quiet: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, looks, ask = quiet.born(), [], WAITERS._ask
    monkeypatch.setattr(WAITERS, "_ask", lambda done: looks.append(done) or ask(done))
    monkeypatch.setattr(waiters(), "_look", lambda: None)  # so that it is the door's own word that wakes it

    with waiting(quiet, "POST", f"{quiet.agent(agent)}/pause") as answer:
        command = listed(quiet, "state=queued")[0]
        eventually(lambda: looks)
        cancel(quiet, command)
        told = answer.result(timeout=2)

    assert (told.status_code, told.json["errors"][0]["code"]) == (409, "conflict")
    assert told.json["command_id"] == command


def test_a_cancel_that_waited_for_its_twin_answers_as_it_did(quiet: Project) -> None:
    agent, once = quiet.born(), uuid4().hex
    command = quiet.send(agent, "pause")["id"]

    with ThreadPoolExecutor(2) as pool:
        with begin(Guard.TOOL) as db:
            run(
                db, "SELECT 1 FROM agents WHERE id = :id FOR NO KEY UPDATE", id=agent
            )  # one waits for it, and one for that
            twins = [pool.submit(cancel, quiet, command, Idempotency_Key=once) for _ in range(2)]
            eventually(lambda: blocked() == 2)
        answers = [twin.result(timeout=10) for twin in twins]

    assert [(answer.status_code, answer.json["state"]) for answer in answers] == [(200, "cancelled")] * 2
    assert sorted(answer.headers.get("Idempotency-Replayed", "") for answer in answers) == ["", "true"]


def test_what_is_accepted_is_answered_so_even_if_the_database_is_then_too_busy_to_look(quiet: Project) -> None:
    agent = quiet.born()

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(quiet.api.post, f"{quiet.agent(agent)}/pause", Prefer="wait=1")
        eventually(lambda: sql("SELECT 1 FROM commands WHERE state = 'queued'"))
        with begin(Guard.TOOL) as db:
            run(db, "LOCK TABLE agents IN ACCESS EXCLUSIVE MODE")
            answer = future.result(timeout=10)

    assert (answer.status_code, answer.json["state"]) == (202, "queued")
    assert answer.headers["Location"].endswith(answer.json["id"])


def test_a_command_that_died_answers_500_with_its_id(quiet: Project) -> None:
    agent = quiet.born()

    with waiting(quiet, "DELETE", quiet.agent(agent)) as answer:
        command = listed(quiet, "state=queued")[0]
        with begin(Guard.DRAIN) as db:
            drains.bury(db, command, "a-task")  # type: ignore[arg-type]
        told = answer.result(timeout=10)

    assert (told.status_code, told.json["errors"][0]["code"]) == (500, "internal")
    assert told.json["command_id"] == command
    assert (quiet.command(command)["state"], quiet.command(command)["task_id"]) == ("dead", "a-task")


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("wait=5", "wait=5"),
        ("wait=31", "wait=30"),
        ("wait=999999999", "wait=30"),
        pytest.param(f"wait={'9' * 500}", "wait=30", id="500 nines"),
        ('Wait="5"', "wait=5"),
        ("respond-async, wait=5", "wait=5"),
        ("wait = 5; foo=bar", "wait=5"),
    ],
)
def test_a_wait_is_echoed_as_it_was_understood(project: Project, prefer: str, applied: str) -> None:
    agent = project.spawn()["id"]

    answer = project.api.post(f"{project.agent(agent)}/pause", Prefer=prefer)

    assert (answer.status_code, answer.headers["Preference-Applied"]) == (200, applied)


@pytest.mark.parametrize("prefer", ["wait", "wait=", "wait=-1", "wait=soon", "wait=1s", "await=5", "respond-async", ""])
def test_a_wait_that_is_not_understood_is_ignored(quiet: Project, prefer: str) -> None:
    agent = quiet.born()

    answer = quiet.api.post(f"{quiet.agent(agent)}/pause", Prefer=prefer)

    assert answer.status_code == 202
    assert "Preference-Applied" not in answer.headers


@pytest.mark.parametrize("prefer", ["wait=0", "wait=0.05"])
def test_a_wait_that_passes_ends_with_202(quiet: Project, prefer: str) -> None:
    answer = quiet.api.post(f"{quiet.agent(quiet.born())}/pause", Prefer=prefer)

    assert (answer.status_code, answer.json["state"]) == (202, "queued")
    assert answer.headers["Preference-Applied"] == prefer
    assert answer.headers["Location"].endswith(answer.json["id"])


def test_waiting_can_be_made_the_default(project: Project, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("ORCH_DEFAULT_WAIT", "10")
    settings.cache_clear()
    wanted = {"agent_type_id": project.type_id, "name": "scout"}

    born = project.api.post(f"{project.path}/agents", wanted)
    hasty = project.api.post(f"{project.agent(born.json['id'])}/pause", Prefer="wait=0")

    assert (born.status_code, born.json["status"], hasty.status_code) == (201, "idle", 202)
    assert "Preference-Applied" not in born.headers


def test_above_the_bound_of_waiters_the_answer_is_202_at_once(quiet: Project, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("ORCH_WAITERS", "1")
    settings.cache_clear()
    waiters.cache_clear()
    one, two = quiet.born(), quiet.born()

    with waiting(quiet, "POST", f"{quiet.agent(one)}/pause") as first:
        second = quiet.api.post(f"{quiet.agent(two)}/pause", Prefer="wait=30")
        assert not first.done()
        drain()

        assert second.status_code == 202
        assert first.result(timeout=10).status_code == 200


def test_a_reason_goes_to_the_command_and_its_event(quiet: Project) -> None:
    agent = quiet.born()
    commands = [
        quiet.api.post(f"{quiet.agent(agent)}/pause", {"reason": "x" * 500}),
        quiet.api.post(f"{quiet.agent(agent)}/resume", X_Reason="only for DELETE"),
        quiet.api.delete(quiet.agent(agent), X_Reason="a header"),
    ]
    drain()

    told = [event["reason"] for event in quiet.api.get(f"{quiet.agent(agent)}/events").json["data"]]
    assert [command.json["reason"] for command in commands] == told[1:] == ["x" * 500, None, "a header"]


def test_a_reason_that_is_too_long_is_refused_wherever_it_stands(quiet: Project) -> None:
    agent = quiet.born()

    body = quiet.api.post(f"{quiet.agent(agent)}/pause", {"reason": "x" * 501})
    header = quiet.api.delete(quiet.agent(agent), X_Reason="x" * 501)

    assert (body.status_code, body.json["errors"][0]["field"]) == (422, "reason")
    assert (header.status_code, header.json["errors"][0]["field"]) == (422, "X-Reason")
    assert listed(quiet, "state=queued") == []


@pytest.mark.parametrize("etag", ["1", 'W/"1"', '"x"', '"1", "2"', ""])
def test_an_if_match_that_is_no_version_of_ours_is_refused(quiet: Project, etag: str) -> None:
    answer = quiet.api.post(f"{quiet.agent(quiet.born())}/pause", If_Match=etag)

    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, "If-Match")


def test_what_was_answered_before_the_next_was_sent_is_applied_first(project: Project) -> None:
    agents = [project.spawn(wait=False)["agent_id"] for _ in range(4)]

    with ThreadPoolExecutor(4) as pool:
        sent = list(pool.map(lambda id_: [project.send(id_, "update", name=f"{n}")["id"] for n in range(25)], agents))

    for agent, commands in zip(agents, sent, strict=True):
        assert project.command(commands[-1], **WAIT)["version"] == 26
        told = project.api.get(f"{project.agent(agent)}/events?limit=100").json["data"]
        assert [event["command_id"] for event in told[1:]] == commands
