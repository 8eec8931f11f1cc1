"""Beats: cheap, many in one request, and never the last word of whoever has lost the lease."""

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from orchestrator.db import Guard
from tests.stage import Api, Project, drain, eventually, fields, is_problem, settle, sql, statements, violations
from tests.test_leases import beat, leased, shown, told


@pytest.fixture
def agent(quiet: Project) -> str:
    """An idle agent."""
    return quiet.born()


def many(project: Project, *beats: dict[str, Any]) -> Any:
    """Many beats in one request."""
    return project.api.post(f"{project.path}/beats", {"beats": list(beats)})


def commands(project: Project) -> list[str]:
    """The verbs of the commands that agents' processes sent, in order."""
    return [row.verb for row in sql("SELECT verb FROM commands WHERE actor_type = 'agent' ORDER BY seq")]


@pytest.mark.usefixtures("known")
def test_a_beat_that_changes_nothing_is_two_statements_and_touches_one_narrow_row(quiet: Project, agent: str) -> None:
    leased(quiet, agent)
    told(quiet, agent, 1, status="idle")

    with statements() as done:
        told(quiet, agent, 1, status="idle")

    assert done == ["SELECT 1", "UPDATE 1", "SELECT 1"]  # the first lets the caller in; a token needs it not
    assert commands(quiet) == []


@pytest.mark.usefixtures("known")
def test_with_its_token_a_beat_is_only_these_two(quiet: Project, agent: str) -> None:
    own = Api(quiet.api.client, leased(quiet, agent)["token"])
    own.post(f"{quiet.agent(agent)}/beat", {"epoch": 1})

    with statements() as done:
        own.post(f"{quiet.agent(agent)}/beat", {"epoch": 1})

    assert done == ["UPDATE 1", "SELECT 1"]


@pytest.mark.usefixtures("known")
def test_five_hundred_beats_are_no_more_statements_than_one(quiet: Project, agent: str) -> None:
    others = [quiet.spawn(wait=False, name=f"scout-{n}")["agent_id"] for n in range(29)]
    settle()
    for each in (agent, *others):
        leased(quiet, each)

    with statements() as done:
        answer = many(quiet, *({"agent_id": each, "epoch": 1} for each in (agent, *others)))

    assert [item["told"]["directive"] for item in answer.json["data"]] == ["continue"] * 30
    assert done == ["SELECT 1", "UPDATE 30", "SELECT 30"]


def test_what_is_said_again_is_no_news_whether_or_not_it_is_applied_yet(quiet: Project, agent: str) -> None:
    leased(quiet, agent)

    for _ in range(2):
        told(quiet, agent, 1, status="working", current_task="read")
    settle()
    told(quiet, agent, 1, status="working", current_task="read")
    told(quiet, agent, 1)
    told(quiet, agent, 1, current_task="write")
    told(quiet, agent, 1, status="idle", current_task=None)
    told(quiet, agent, 1, status="working")
    settle()

    assert commands(quiet) == ["update"] * 4
    assert (shown(quiet, agent)["status"], shown(quiet, agent)["current_task"]) == ("working", None)


def test_what_a_paused_process_says_never_leaves_paused(quiet: Project, agent: str) -> None:
    leased(quiet, agent)
    told(quiet, agent, 1, status="working")
    settle()
    late = told(quiet, agent, 1, status="idle")
    quiet.send(agent, "pause")
    settle()

    assert told(quiet, agent, 1, status="working", ack=True)["directive"] == "pause"
    assert late["directive"] == "continue"
    by_hand = quiet.api.patch(quiet.agent(agent), {"status": "idle"}, Lease_Epoch="1").json
    settle()

    assert shown(quiet, agent)["status"] == "paused"
    assert quiet.command(by_hand["id"])["error"]["code"] == "invalid_transition"


def test_a_patch_with_an_old_epoch_is_fenced_when_it_is_applied(quiet: Project, agent: str) -> None:
    leased(quiet, agent)
    sent = [
        quiet.api.patch(quiet.agent(agent), {"name": f"n{epoch}"}, Lease_Epoch=str(epoch)).json["id"]
        for epoch in (1, 2)
    ]
    settle()

    assert [quiet.command(id_)["state"] for id_ in sent] == ["applied", "rejected"]
    assert quiet.command(sent[1])["error"]["code"] == "fenced"
    wrong = quiet.api.patch(quiet.agent(agent), {"name": "n"}, Lease_Epoch="first")
    assert is_problem(wrong, 422, "validation_error")
    assert fields(wrong) == ["Lease-Epoch"]


def test_after_a_release_an_epoch_changes_nothing_but_what_was_accepted_before_it(quiet: Project, agent: str) -> None:
    leased(quiet, agent)
    told(quiet, agent, 1, status="working")
    before = quiet.api.patch(quiet.agent(agent), {"name": "before"}, Lease_Epoch="1").json["id"]
    assert quiet.api("DELETE", f"{quiet.agent(agent)}/lease", {"epoch": 1}).status_code == 204
    after = quiet.api.patch(quiet.agent(agent), {"name": "after"}, Lease_Epoch="1").json["id"]
    settle()
    much_later = quiet.api.patch(quiet.agent(agent), {"status": "working"}, Lease_Epoch="1").json["id"]
    settle()

    assert quiet.command(before)["state"] == "applied"
    assert [quiet.command(id_)["error"]["code"] for id_ in (after, much_later)] == ["fenced", "fenced"]
    assert (shown(quiet, agent)["name"], shown(quiet, agent)["status"]) == ("before", "idle")
    assert violations() == {}


@pytest.mark.parametrize("ends", ["replaced", "released"])
def test_what_a_new_process_says_is_news_while_the_end_of_the_former_one_is_queued(
    quiet: Project, agent: str, ends: str
) -> None:
    leased(quiet, agent)
    told(quiet, agent, 1, status="working", current_task="read")
    if ends == "released":
        settle()
        assert quiet.api("DELETE", f"{quiet.agent(agent)}/lease", {"epoch": 1}).status_code == 204
    leased(quiet, agent)

    told(quiet, agent, 2, status="working", current_task="read")
    settle()

    assert (shown(quiet, agent)["status"], shown(quiet, agent)["current_task"]) == ("working", "read")
    assert violations() == {}


def test_a_paused_process_may_say_what_it_is_at(quiet: Project, agent: str) -> None:
    leased(quiet, agent)
    told(quiet, agent, 1, status="working", current_task="read")
    settle()
    quiet.send(agent, "pause", mode="drain")
    settle()

    told(quiet, agent, 1, status="idle", current_task=None)
    settle()

    assert (shown(quiet, agent)["status"], shown(quiet, agent)["current_task"]) == ("paused", None)
    quiet.send(agent, "resume")
    settle()
    assert (shown(quiet, agent)["status"], shown(quiet, agent)["current_task"]) == ("idle", None)
    assert violations() == {}


def test_an_acknowledgement_does_not_outlive_the_pause_it_was_for(quiet: Project, agent: str) -> None:
    leased(quiet, agent)
    quiet.send(agent, "pause")
    settle()
    assert told(quiet, agent, 1, ack=True)["directive"] == "pause"
    settle()
    quiet.send(agent, "resume")
    settle()

    assert told(quiet, agent, 1, ack=True)["directive"] == "continue"
    second = quiet.send(agent, "pause")
    settle()

    assert quiet.command(second["id"])["quiesced_at"] is None
    assert violations() == {}


def test_an_acknowledgement_that_comes_too_late_changes_nothing_and_is_told_the_version_that_is_due(
    quiet: Project, agent: str
) -> None:
    leased(quiet, agent)
    quiet.send(agent, "pause")
    settle()
    quiet.send(agent, "resume")
    settle()
    before = shown(quiet, agent)

    late = told(quiet, agent, 1, ack=True)
    numbered = beat(quiet, agent, 1, ack=before["version"])
    settle()

    assert (late["directive"], late["version"]) == ("continue", before["version"])
    assert is_problem(numbered, 422, "validation_error")
    assert shown(quiet, agent) == before
    assert sql("SELECT acked_at FROM leases")[0].acked_at is None

    quiet.send(agent, "pause", mode="immediate", reason="too dear")
    settle()
    before, lease = shown(quiet, agent), sql("SELECT * FROM leases")
    alone = beat(quiet, agent, 1, ack=True)
    [among] = many(quiet, {"agent_id": agent, "epoch": 1, "ack": True}).json["data"]
    settle()

    assert is_problem(alone, 409, "fenced")
    due = {name: alone.json[name] for name in ("directive", "reason", "version")}  # type: ignore[index]
    assert due == {"directive": "pause", "reason": "too dear", "version": before["version"]}
    assert f"told to pause, as of version {before['version']}" in alone.json["detail"]  # type: ignore[index]
    assert among["error"]["message"] == alone.json["detail"]  # type: ignore[index]
    assert (shown(quiet, agent), sql("SELECT * FROM leases")) == (before, lease)
    assert violations() == {}


def test_usage_that_comes_with_a_beat_is_counted_once_even_from_a_lost_lease(quiet: Project, agent: str) -> None:
    leased(quiet, agent)
    entries = [{"report_id": "1", "input_tokens": 5, "cost": "0.25"}]

    told(quiet, agent, 1, entries=entries)
    assert is_problem(beat(quiet, agent, 2, entries=[*entries, {"report_id": "2", "input_tokens": 1}]), 409, "fenced")
    settle()

    assert (shown(quiet, agent)["tokens_used"], shown(quiet, agent)["cost_incurred"]) == (6, "0.25")
    assert violations() == {}


def test_the_usage_of_an_unknown_agent_is_as_unknown_as_it_is(quiet: Project, agent: str) -> None:
    leased(quiet, agent)
    entry = {"report_id": "1", "input_tokens": 5}

    alone = quiet.api.post(f"{quiet.agent(str(uuid4()))}/beat", {"epoch": 1, "entries": [entry]})
    among = many(quiet, *({"agent_id": each, "epoch": 1, "entries": [entry]} for each in (str(uuid4()), agent)))

    assert is_problem(alone, 404, "not_found")
    assert [item["error"] and item["error"]["code"] for item in among.json["data"]] == ["not_found", None]
    settle()
    assert shown(quiet, agent)["tokens_used"] == 5


def test_in_a_batch_what_is_wrong_with_one_does_not_stop_the_others(quiet: Project, agent: str) -> None:
    fenced, stranger, unleased = quiet.born(), str(uuid4()), quiet.born()
    for each in (agent, fenced):
        leased(quiet, each)
    elsewhere = Project.make(quiet.api).born()

    answer = many(
        quiet,
        {"agent_id": fenced, "epoch": 9, "status": "working"},
        {"agent_id": agent, "epoch": 1, "status": "working"},
        *({"agent_id": each, "epoch": 1} for each in (stranger, unleased, elsewhere)),
    )

    data = answer.json["data"]
    assert [item["agent_id"] for item in data] == [fenced, agent, stranger, unleased, elsewhere]
    assert [item["error"] and item["error"]["code"] for item in data] == [
        "fenced",
        None,
        "not_found",
        "fenced",
        "not_found",
    ]
    assert data[1]["told"]["directive"] == "continue"
    settle()
    assert [shown(quiet, each)["status"] for each in (fenced, agent)] == ["idle", "working"]


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({}, ["epoch"]),
        ({"epoch": 0}, ["epoch"]),
        ({"epoch": "1"}, ["epoch"]),
        ({"epoch": 1, "status": "paused"}, ["status"]),
        ({"epoch": 1, "status": "terminated"}, ["status"]),
        ({"epoch": 1, "status": None}, ["status"]),
        ({"epoch": 1, "ack": "yes"}, ["ack"]),
        ({"epoch": 1, "entries": [{"report_id": "1", "cost": "-1"}]}, ["entries.0.cost"]),
        ({"epoch": 1, "lease_id": "mine"}, ["lease_id"]),
        ({"epoch": 1, "holder": "x"}, ["holder"]),
    ],
)
def test_a_malformed_beat_changes_nothing(quiet: Project, agent: str, body: dict[str, Any], wrong: list[str]) -> None:
    leased(quiet, agent)
    before = sql("SELECT * FROM leases")

    answer = quiet.api.post(f"{quiet.agent(agent)}/beat", body)

    assert is_problem(answer, 422, "validation_error")
    assert fields(answer) == wrong
    assert sql("SELECT * FROM leases") == before
    assert commands(quiet) == []


def test_a_foreign_lease_id_an_old_epoch_and_a_terminated_agent_are_fenced(quiet: Project, agent: str) -> None:
    lease_id = leased(quiet, agent)["lease_id"]
    assert told(quiet, agent, 1, lease_id=lease_id)["directive"] == "continue"
    assert is_problem(beat(quiet, agent, 1, lease_id=str(uuid4())), 409, "fenced")
    assert is_problem(beat(quiet, agent, 2), 409, "fenced")
    stop = quiet.send(agent, "terminate")
    settle()

    assert told(quiet, agent, 1)["directive"] == "terminate"
    quiet.api("DELETE", f"{quiet.agent(agent)}/lease", {"epoch": 1})
    settle()

    late = beat(quiet, agent, 1)
    assert is_problem(late, 409, "fenced")
    assert late.json["directive"] == "terminate"  # type: ignore[index]
    assert quiet.command(stop["id"])["quiesced_by"] == "release"
    assert violations() == {}


@pytest.mark.parametrize(
    ("beats", "wrong"),
    [
        ([], ["beats"]),
        ([{"agent_id": str(uuid4()), "epoch": 1} for _ in range(501)], ["beats"]),
        ([{"agent_id": "x", "epoch": 1}], ["beats.0.agent_id"]),
        ([{"agent_id": str(uuid4()), "epoch": 0}], ["beats.0.epoch"]),
        (
            [{"agent_id": str(uuid4()), "epoch": 1, "entries": [{"report_id": str(n)} for n in range(501)]}] * 2,
            ["beats"],
        ),
        ([{"agent_id": str(id_), "epoch": 1} for id_ in [uuid4()] * 2], ["beats.1.agent_id"]),
    ],
)
def test_a_malformed_batch_is_refused_whole(quiet: Project, beats: list[dict[str, Any]], wrong: list[str]) -> None:
    answer = many(quiet, *beats)

    assert is_problem(answer, 422, "validation_error")
    assert fields(answer) == wrong


def test_whoever_waits_for_the_second_stage_is_answered_when_the_process_stands_still(project: Project) -> None:
    agent = project.in_status("working")
    leased(project, agent)
    pause = f"{project.agent(agent)}/pause"

    early = project.api.post(f"{pause}?until=quiesced", Prefer="wait=0.5")
    assert (early.status_code, early.json["state"], early.json["quiesced_at"]) == (202, "applied", None)
    told(project, agent, 1, ack=True)
    late = project.api.get(f"{project.path}/commands/{early.json['id']}?until=quiesced", Prefer="wait=10").json

    assert (late["quiesced_by"], late["state"]) == ("ack", "applied")
    assert is_problem(project.api.post(f"{pause}?until=never"), 422, "validation_error")
    at_once = project.api.delete(f"{project.agent(agent)}?until=quiesced", Prefer="wait=10")
    assert at_once.status_code == 200
    eventually(lambda: shown(project, agent)["quiesced_by"] == "ack")


def test_a_worker_that_lives_keeps_a_deadline_within_two_seconds(project: Project) -> None:
    agents = [project.in_status("working") for _ in range(3)]
    for agent in agents:
        leased(project, agent)
    pauses = [project.send(agent, "pause", deadline=1)["id"] for agent in agents]

    def fenced(agent: str) -> bool:
        return beat(project, agent, 1).status_code == 409

    for agent in agents:
        eventually(lambda agent=agent: fenced(agent))  # type: ignore[misc]  # it beats on meanwhile

    for pause in pauses:
        command = eventually(lambda pause=pause: (now := project.command(pause))["quiesced_at"] and now)  # type: ignore[misc]
        asked, still = (datetime.fromisoformat(command[name]) for name in ("requested_at", "quiesced_at"))
        assert command["quiesced_by"] == "expiry"
        assert timedelta(seconds=1) <= still - asked <= timedelta(seconds=1 + 2), still - asked


def test_statements_of_a_batch_in_the_worker_stay_ten(quiet: Project, agent: str) -> None:
    leased(quiet, agent)
    told(quiet, agent, 1, status="working", entries=[{"report_id": "1"}])
    quiet.send(agent, "pause")

    with statements(Guard.DRAIN) as done:
        drain()

    assert len(done) - 2 <= 10, done
