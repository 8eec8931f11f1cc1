"""Explanations: what is true by now, whether or not a worker has come to it, and all that comes by itself."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.stage import Project, settle
from tests.test_holds import soon
from tests.test_leases import leased, pass_time, shown, sweep, told

LOST = "host-1:7 has lost its lease and can write no more; no worker has noticed yet"
NOTICED = "the loss of its lease is noticed"


@pytest.fixture
def agent(quiet: Project) -> str:
    """An idle agent."""
    return quiet.born()


def explained(project: Project, agent_id: str) -> dict[str, Any]:
    """Why it is not working."""
    answer = project.api.get(f"{project.agent(agent_id)}/explain")
    assert answer.status_code == 200, answer.json
    return answer.json  # type: ignore[return-value]


def coming(found: dict[str, Any]) -> list[str]:
    """What comes by itself, in order."""
    assert found["next_change"] == (found["coming"] or [None])[0]
    return [change["what"] for change in found["coming"]]


@pytest.mark.parametrize("status", ["idle", "working", "waiting"])
def test_a_lease_that_is_lost_is_said_to_be_lost_before_anybody_notices(
    quiet: Project, agent: str, status: str
) -> None:
    leased(quiet, agent)
    for step in {"waiting": ["working", "waiting"], "idle": []}.get(status, [status]):
        told(quiet, agent, 1, status=step)
        settle()

    pass_time(agent, 41)
    found = explained(quiet, agent)

    assert found["why"] == [LOST]
    assert found["what_would_change_it"] == [
        "a worker that notices it; `orch doctor` says whether one lives",
        "a process that takes its lease",
    ]
    assert coming(found) == [NOTICED]
    assert found["next_change"]["at"] is None
    sweep()
    assert shown(quiet, agent)["status"] == "idle"
    assert explained(quiet, agent)["why"] == ["no process holds its lease; the last one, host-1:7, ended by expiry"]
    assert coming(explained(quiet, agent)) == []


@pytest.mark.parametrize("verb", ["pause", "terminate"])
def test_a_process_that_has_lost_its_lease_is_not_said_to_go_on(quiet: Project, agent: str, verb: str) -> None:
    leased(quiet, agent)
    quiet.send(agent, verb, deadline=900)
    settle()
    assert explained(quiet, agent)["why"][-1] == "host-1:7 has not stopped yet"

    pass_time(agent, 41)
    found = explained(quiet, agent)

    assert found["why"][-1] == LOST
    assert coming(found) == [NOTICED]
    assert "a process that takes its lease" not in found["what_would_change_it"]


def test_all_that_comes_by_itself_is_told_in_its_order_and_not_hidden_by_mail(quiet: Project, agent: str) -> None:
    leased(quiet, agent, ttl=300)
    quiet.send(agent, "pause", owner="night", until=soon(7200), deadline=900)
    quiet.send(agent, "pause", owner="tea", until=soon(60))
    settle()
    quiet.send(agent, "update", name="later")

    found = explained(quiet, agent)

    assert coming(found) == [
        "its mailbox is emptied: 1 command",
        "the hold of 'tea' is over",
        "its lease is lost, unless host-1:7 beats",
        "its process is fenced",
        "the hold of 'night' is over",
    ]
    times = [change["at"] and datetime.fromisoformat(change["at"]) for change in found["coming"]]
    assert times[0] is None
    assert times[1:] == sorted(times[1:])
    assert timedelta(minutes=1) < times[4] - times[1]
