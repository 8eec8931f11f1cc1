"""Leases: one process at a time acts as an agent, says that it lives, and is told whether to go on."""

from typing import Any

import pytest
from werkzeug.test import TestResponse

from orchestrator import timers
from orchestrator.db import Guard, begin
from orchestrator.keys import KeyRing
from tests.stage import Api, Project, fields, is_problem, settle, sql, violations
from web import gate


def lease(project: Project, agent_id: str, holder: str = "host-1:7", **more: Any) -> TestResponse:
    """Ask for the agent's lease."""
    return project.api.post(f"{project.agent(agent_id)}/lease", {"holder": holder} | more)


def leased(project: Project, agent_id: str, holder: str = "host-1:7", **more: Any) -> dict[str, Any]:
    """The agent's lease, granted."""
    answer = lease(project, agent_id, holder, **more)
    assert answer.status_code == 201, answer.json
    return answer.json  # type: ignore[return-value]


def beat(project: Project, agent_id: str, epoch: int, **says: Any) -> TestResponse:
    """One beat."""
    return project.api.post(f"{project.agent(agent_id)}/beat", {"epoch": epoch} | says)


def told(project: Project, agent_id: str, epoch: int, **says: Any) -> dict[str, Any]:
    """What a process is told."""
    answer = beat(project, agent_id, epoch, **says)
    assert answer.status_code == 200, answer.json
    return answer.json  # type: ignore[return-value]


def shown(project: Project, agent_id: str) -> dict[str, Any]:
    """The agent as the API shows it."""
    return project.api.get(project.agent(agent_id)).json  # type: ignore[return-value]


def pass_time(agent_id: str, seconds: float) -> None:
    """Let so much time go by for the agent's lease."""
    sql(
        "UPDATE leases SET beat_at = beat_at - make_interval(secs => :s), granted_at = granted_at"
        " - make_interval(secs => :s) WHERE agent_id = :agent",
        s=seconds,
        agent=agent_id,
    )


def overdue(agent_id: str) -> None:
    """Let the deadline of the agent's stop have passed."""
    past = "UPDATE agents SET stop = jsonb_set(stop, '{deadline}', to_jsonb(now() - interval '1 second'))"
    sql(f"{past} WHERE id = :agent", agent=agent_id)


def sweep() -> int:
    """What the sweep sends, and its application."""
    with begin(Guard.DRAIN) as db:
        sent = timers.send_due(db)
    settle()
    return sent


@pytest.fixture
def agent(quiet: Project) -> str:
    """An idle agent."""
    return quiet.born()


def test_a_lease_is_granted_beaten_and_given_back(quiet: Project, agent: str) -> None:
    granted = leased(quiet, agent, ttl=10)
    assert granted["epoch"] == 1
    assert (granted["ttl"], granted["directive"], granted["reason"]) == (10, "continue", None)

    assert told(quiet, agent, 1, status="working", current_task="read") == {
        "directive": "continue",
        "mode": None,
        "deadline": None,
        "reason": None,
        "version": 1,
    }
    settle()
    assert (shown(quiet, agent)["status"], shown(quiet, agent)["current_task"]) == ("working", "read")

    given_back = quiet.api("DELETE", f"{quiet.agent(agent)}/lease", {"epoch": 1})
    assert given_back.status_code == 204
    settle()

    events = quiet.api.get(f"{quiet.agent(agent)}/events").json["data"]  # type: ignore[index]
    assert [(e["verb"], e["actor"]["type"], e["reason"]) for e in events[1:]] == [
        ("work", "agent", None),
        ("rest", "system", "lease_released"),
    ]
    assert is_problem(beat(quiet, agent, 1), 409, "fenced")
    assert violations() == {}


def test_another_lease_s_id_gives_nothing_back(quiet: Project, agent: str) -> None:
    mine = leased(quiet, agent)
    foreign = {"epoch": 1, "lease_id": "00000000-0000-7000-8000-000000000000"}

    refused = quiet.api("DELETE", f"{quiet.agent(agent)}/lease", foreign)

    assert is_problem(refused, 409, "fenced")
    assert told(quiet, agent, 1)["directive"] == "continue"
    own = quiet.api("DELETE", f"{quiet.agent(agent)}/lease", {"epoch": 1, "lease_id": mine["lease_id"]})
    assert own.status_code == 204


def test_a_word_that_was_lost_on_its_way_is_said_again_by_the_sweep(quiet: Project, agent: str) -> None:
    leased(quiet, agent)
    pause = quiet.send(agent, "pause")
    settle()
    sql("UPDATE leases SET acked_at = now() WHERE agent_id = :agent", agent=agent)  # and then its process was killed

    sweep()

    assert quiet.command(pause["id"])["quiesced_by"] == "ack"
    assert violations() == {}


def test_only_one_process_at_a_time_holds_it_and_the_same_one_starts_anew(quiet: Project, agent: str) -> None:
    leased(quiet, agent, "one")

    refused = lease(quiet, agent, "two")
    again = leased(quiet, agent, "one")

    assert is_problem(refused, 409, "lease_held")
    assert "one" in refused.json["detail"]  # type: ignore[index]
    assert again["epoch"] == 2
    assert is_problem(beat(quiet, agent, 1), 409, "fenced")
    assert told(quiet, agent, 2)["directive"] == "continue"


def test_a_pause_is_told_from_its_acceptance_on_and_quiesced_by_the_word_of_the_process(
    quiet: Project, agent: str
) -> None:
    leased(quiet, agent)
    told(quiet, agent, 1, status="working")
    settle()
    pause = quiet.send(agent, "pause", reason="too dear", deadline=60)

    at_once = told(quiet, agent, 1)
    assert (at_once["directive"], at_once["mode"], at_once["reason"]) == ("pause", "checkpoint", "too dear")
    assert at_once["deadline"] is not None
    settle()
    assert (shown(quiet, agent)["status"], shown(quiet, agent)["quiesced_at"]) == ("paused", None)
    assert quiet.command(pause["id"])["quiesced_by"] is None

    told(quiet, agent, 1, ack=True)
    settle()

    agent_now, command = shown(quiet, agent), quiet.command(pause["id"])
    assert agent_now["quiesced_by"] == command["quiesced_by"] == "ack"
    assert agent_now["quiesced_at"] == command["quiesced_at"] is not None
    assert violations() == {}


def test_a_stop_without_a_process_is_quiesced_at_once(quiet: Project, agent: str) -> None:
    pause = quiet.send(agent, "pause")
    settle()
    assert shown(quiet, agent)["quiesced_by"] == quiet.command(pause["id"])["quiesced_by"] == "no_lease"

    quiet.send(agent, "resume")
    settle()

    assert (shown(quiet, agent)["quiesced_by"], shown(quiet, agent)["quiesced_at"]) == (None, None)


def test_who_comes_after_the_end_is_told_why_and_by_whom(quiet: Project, agent: str) -> None:
    leased(quiet, agent)
    me = quiet.api.get("me").json["user"]["id"]  # type: ignore[index]
    quiet.send(agent, "terminate", reason="too dear")
    settle()

    assert told(quiet, agent, 1)["reason"] == "too dear"
    refused = lease(quiet, agent)
    assert is_problem(refused, 409, "conflict")
    assert refused.json["reason"] == "too dear"  # type: ignore[index]
    explained = quiet.api.get(f"{quiet.agent(agent)}/explain").json["why"]  # type: ignore[index]
    assert explained[0] == f"it was terminated by user {me}: too dear"


def test_an_immediate_stop_fences_from_its_acceptance_on(quiet: Project, agent: str) -> None:
    leased(quiet, agent)
    told(quiet, agent, 1, status="working")  # queued, and not applied yet

    pause = quiet.send(agent, "pause", mode="immediate")
    late = beat(quiet, agent, 1, status="waiting")

    assert is_problem(late, 409, "fenced")
    assert late.json["directive"] == "pause"  # type: ignore[index]
    settle()
    assert [e["verb"] for e in quiet.api.get(f"{quiet.agent(agent)}/events").json["data"]] == [  # type: ignore[index]
        "spawn",
        "pause",
    ]
    assert quiet.command(pause["id"])["quiesced_by"] == "no_lease"
    quiet.send(agent, "resume")
    settle()
    assert leased(quiet, agent)["epoch"] == 3
    assert violations() == {}


def test_an_immediate_stop_that_is_refused_ends_what_was_under_way(quiet: Project, agent: str) -> None:
    leased(quiet, agent)
    pause = quiet.send(agent, "pause")
    settle()

    again = quiet.send(agent, "pause", mode="immediate")
    at_once = beat(quiet, agent, 1)
    settle()

    assert is_problem(at_once, 409, "fenced")
    assert quiet.command(again["id"])["state"] == "rejected"  # its owner has a hold already
    assert quiet.command(pause["id"])["quiesced_by"] == shown(quiet, agent)["quiesced_by"] == "no_lease"
    assert violations() == {}


def test_an_immediate_stop_that_is_cancelled_leaves_nobody_at_work(quiet: Project, agent: str) -> None:
    leased(quiet, agent)
    told(quiet, agent, 1, status="working")
    settle()

    pause = quiet.send(agent, "pause", mode="immediate")
    assert quiet.api.post(f"{quiet.path}/commands/{pause['id']}/cancel").status_code == 200
    settle()

    assert shown(quiet, agent)["status"] == "idle"
    assert quiet.api.get(f"{quiet.agent(agent)}/events").json["data"][-1]["reason"] == "lease_fenced"  # type: ignore[index]
    assert leased(quiet, agent)["epoch"] == 3
    assert violations() == {}


def test_a_lost_lease_puts_the_agent_to_rest_and_three_within_ten_minutes_pause_it(quiet: Project, agent: str) -> None:
    for loss in range(1, 4):
        epoch = leased(quiet, agent, f"process-{loss}")["epoch"]
        told(quiet, agent, epoch, status="working")
        settle()
        pass_time(agent, 30 * 4 / 3 + 1)
        assert is_problem(beat(quiet, agent, epoch), 409, "fenced")  # whether or not the sweep came by

        assert sweep() == (1 if loss < 3 else 2)
        assert sweep() == 0

        assert shown(quiet, agent)["status"] == ("idle" if loss < 3 else "paused")
    (hold,) = shown(quiet, agent)["holds"]
    assert (hold["owner"], hold["placed_by"]["type"]) == ("fault", "system")
    assert "process-3" in hold["reason"]
    assert is_problem(lease(quiet, agent), 409, "held")
    assert violations() == {}


def test_losses_count_by_when_they_happened_and_not_by_when_they_are_noticed(quiet: Project, agent: str) -> None:
    leased(quiet, agent)
    sql(
        """UPDATE leases SET losses = ARRAY[now() - interval '13 minutes', now() - interval '11 minutes'],
            beat_at = now() - interval '4 minutes', granted_at = now() - interval '5 minutes'
        WHERE agent_id = :agent""",
        agent=agent,
    )

    sweep()

    assert shown(quiet, agent)["status"] == "paused"
    assert shown(quiet, agent)["holds"][0]["owner"] == "fault"


def test_losses_that_the_next_process_finds_before_the_sweep_count_as_well(quiet: Project, agent: str) -> None:
    for loss in range(1, 4):
        leased(quiet, agent, f"process-{loss}")
        pass_time(agent, 41)

    refused = lease(quiet, agent, "process-4")
    settle()

    assert is_problem(refused, 409, "held")
    (hold,) = shown(quiet, agent)["holds"]
    assert (hold["owner"], "process-3" in hold["reason"]) == ("fault", True)
    assert violations() == {}


def test_a_frozen_process_is_quiesced_by_the_loss_of_its_lease(quiet: Project, agent: str) -> None:
    leased(quiet, agent)
    told(quiet, agent, 1, status="working")
    pause = quiet.send(agent, "pause")
    settle()

    pass_time(agent, 41)
    sweep()

    assert quiet.command(pause["id"])["quiesced_by"] == "expiry"
    assert is_problem(beat(quiet, agent, 1, ack=True), 409, "fenced")


@pytest.mark.parametrize("applied", [True, False])
def test_once_its_deadline_has_passed_a_stop_is_told_as_an_immediate_one_though_no_sweep_comes_by(
    quiet: Project, agent: str, applied: bool
) -> None:
    leased(quiet, agent)
    pause = quiet.send(agent, "pause", mode="drain", deadline=5)
    if applied:
        settle()
    assert told(quiet, agent, 1)["mode"] == "drain"

    if applied:
        overdue(agent)
    else:
        sql("UPDATE commands SET created_at = now() - interval '6 seconds' WHERE id = :id", id=pause["id"])

    assert told(quiet, agent, 1)["mode"] == "immediate"


def test_a_deadline_fences_whoever_has_not_stopped(quiet: Project, agent: str) -> None:
    leased(quiet, agent)
    pause = quiet.send(agent, "pause", mode="drain", deadline=5)
    settle()
    assert sweep() == 0
    overdue(agent)

    assert sweep() == 1

    assert quiet.command(pause["id"])["quiesced_by"] == "expiry"
    assert is_problem(beat(quiet, agent, 1), 409, "fenced")


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({}, ["holder"]),
        ({"holder": " "}, ["holder"]),
        ({"holder": "x", "ttl": 4}, ["ttl"]),
        ({"holder": "x", "ttl": 301}, ["ttl"]),
        ({"holder": "x", "ttl": None}, ["ttl"]),
        ({"holder": "x", "epoch": 1}, ["epoch"]),
    ],
)
def test_what_is_wrong_with_a_lease_is_said(quiet: Project, agent: str, body: dict[str, Any], wrong: list[str]) -> None:
    answer = quiet.api.post(f"{quiet.agent(agent)}/lease", body)

    assert is_problem(answer, 422, "validation_error")
    assert fields(answer) == wrong


def test_the_token_is_good_for_its_own_agent_alone_and_for_no_more_than_its_process_does(
    quiet: Project, agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = quiet.born()
    own = Api(quiet.api.client, leased(quiet, agent)["token"])
    leased(quiet, other)
    place, entries = quiet.agent(agent), {"entries": [{"report_id": "r", "input_tokens": 3}]}

    assert own.post(f"{place}/beat", {"epoch": 1}).status_code == 200
    assert own.post(f"{place}/usage", entries).status_code == 202
    assert own.post(f"{quiet.agent(other)}/beat", {"epoch": 1}).status_code == 404
    for method, path in (("GET", place), ("POST", f"{place}/resume"), ("POST", f"{place}/lease"), ("GET", "me")):
        assert is_problem(own(method, path), 403, "insufficient_permissions")

    leased(quiet, agent)

    assert is_problem(own.post(f"{place}/beat", {"epoch": 2}), 409, "fenced")
    assert own.post(f"{place}/usage", entries).status_code == 202
    sql("UPDATE lease_tokens SET ended_at = now() - interval '61 minutes' WHERE ended_at IS NOT NULL")
    monkeypatch.setattr(gate, "ring", KeyRing())  # as a process that has not seen it lately
    assert is_problem(own.post(f"{place}/usage", entries), 401, "unauthenticated")
