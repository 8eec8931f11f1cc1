"""Holds: an agent is paused as long as somebody wants it to be, and no longer."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from orchestrator import timers
from orchestrator.db import Guard, begin
from tests.redis_server import OwnRedis
from tests.stage import Project, Worker, drain, eventually, is_problem, settle, sql, violations

OWNERS = ("manual", "budget", "ops:night")


@pytest.fixture
def agent(quiet: Project) -> str:
    """A working agent."""
    agent_id = quiet.born()
    quiet.send(agent_id, "update", status="working")
    settle()
    return agent_id


@pytest.fixture
def workers(own_redis: OwnRedis, tmp_path: Path) -> Iterator[None]:
    """Two workers, each with its own sweep."""
    del own_redis
    with ExitStack() as stack:
        for number in range(2):
            stack.enter_context(Worker.start(tmp_path / f"worker-{number}.log", concurrency=1))
        yield


def soon(seconds: float = 0.2) -> str:
    """A time that is about to come."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def shown(project: Project, agent_id: str) -> dict[str, Any]:
    """The agent as the API shows it."""
    return project.api.get(project.agent(agent_id)).json  # type: ignore[return-value]


def owners(project: Project, agent_id: str) -> list[str]:
    """Who has a hold on it."""
    return [hold["owner"] for hold in shown(project, agent_id)["holds"]]


def ending(project: Project, agent_id: str, verb: str, **body: Any) -> tuple[str, str | None]:
    """How a command ended: its state and the code of its error."""
    sent = project.send(agent_id, verb, **body)["id"]
    settle()
    command = project.command(sent)
    return command["state"], command["error"] and command["error"]["code"]


def past(project: Project, agent_id: str) -> list[tuple[Any, ...]]:
    """What happened to it since it began to work: verb, before, after, and whose holds there were afterwards."""
    events = project.api.get(f"{project.agent(agent_id)}/events?after_version=2").json["data"]  # type: ignore[index]
    return [
        (e["verb"], e["before"], e["after"], [hold["owner"] for hold in e["changes"].get("holds", [])]) for e in events
    ]


def test_a_pause_puts_a_hold_on_the_agent_that_says_who_why_and_until_when(quiet: Project, agent: str) -> None:
    me = quiet.api.get("me").json["user"]["id"]  # type: ignore[index]
    sent = quiet.send(agent, "pause", owner="budget", reason="too dear", until="2099-12-31T23:00:00+01:00")

    settle()

    (hold,) = shown(quiet, agent)["holds"]
    placed_at = datetime.fromisoformat(hold.pop("placed_at"))
    assert hold == {
        "id": sent["id"],
        "owner": "budget",
        "reason": "too dear",
        "until": "2099-12-31T22:00:00Z",
        "placed_by": {"type": "user", "id": me},
    }
    assert timedelta(0) <= datetime.now(UTC) - placed_at < timedelta(minutes=1)
    assert [found["holds"] for found in quiet.api.get(f"{quiet.path}/agents").json["data"]] == [  # type: ignore[index]
        shown(quiet, agent)["holds"]
    ]
    assert violations() == {}


def test_the_hold_of_a_pause_without_words_is_manual_and_without_end(quiet: Project, agent: str) -> None:
    quiet.send(agent, "pause")
    settle()

    (hold,) = shown(quiet, agent)["holds"]
    assert (hold["owner"], hold["reason"], hold["until"]) == ("manual", None, None)


@pytest.mark.parametrize("order", list(permutations(OWNERS)), ids="-".join)
def test_three_holds_lifted_in_any_order_wake_the_agent_at_the_last(
    quiet: Project, agent: str, order: tuple[str, ...]
) -> None:
    for owner in OWNERS:
        assert ending(quiet, agent, "pause", owner=owner) == ("applied", None)
    active = shown(quiet, agent)["last_activity_at"]

    seen = []
    for owner in order:
        assert ending(quiet, agent, "resume", owner=owner) == ("applied", None)
        now = shown(quiet, agent)
        seen.append((now["status"], [hold["owner"] for hold in now["holds"]], now["last_activity_at"] == active))

    left = [[owner for owner in OWNERS if owner not in order[: n + 1]] for n in range(3)]
    assert seen == [("paused", left[0], True), ("paused", left[1], True), ("idle", [], False)]
    assert past(quiet, agent) == [
        ("pause", "working", "paused", ["manual"]),
        ("pause", "paused", "paused", ["manual", "budget"]),
        ("pause", "paused", "paused", list(OWNERS)),
        ("resume", "paused", "paused", left[0]),
        ("resume", "paused", "paused", left[1]),
        ("resume", "paused", "idle", []),
    ]
    assert violations() == {}


@pytest.mark.parametrize("owner", ["manual", "budget"])
def test_an_owner_has_one_hold_on_an_agent(quiet: Project, agent: str, owner: str) -> None:
    ending(quiet, agent, "pause", owner=owner, reason="first")
    version = shown(quiet, agent)["version"]

    assert ending(quiet, agent, "pause", owner=owner, reason="second") == ("rejected", "invalid_transition")

    assert [hold["reason"] for hold in shown(quiet, agent)["holds"]] == ["first"]
    assert shown(quiet, agent)["version"] == version


def test_who_has_no_hold_lifts_none_and_is_told_whose_there_are(quiet: Project, agent: str) -> None:
    for owner in ("budget", "ops"):
        ending(quiet, agent, "pause", owner=owner)
    sent = quiet.send(agent, "resume")["id"]

    settle()

    error = quiet.command(sent)["error"]
    assert error["code"] == "held"
    assert "'budget', 'ops'" in error["message"]
    assert owners(quiet, agent) == ["budget", "ops"]


def test_a_waited_for_resume_that_is_held_answers_409(project: Project) -> None:
    agent_id = project.in_status("idle")
    wait = {"Prefer": "wait=10"}
    project.api.post(f"{project.agent(agent_id)}/pause", {"owner": "budget"}, **wait)

    refused = project.api.post(f"{project.agent(agent_id)}/resume", **wait)
    added = project.api.post(f"{project.agent(agent_id)}/pause", **wait)
    lifted = project.api.post(f"{project.agent(agent_id)}/resume", **wait)

    assert is_problem(refused, 409, "held")
    assert refused.json["held_by"] == ["budget"]  # type: ignore[index]
    assert [hold["owner"] for hold in added.json["holds"]] == ["budget", "manual"]  # type: ignore[index]
    assert (lifted.status_code, lifted.json["status"]) == (200, "paused")  # type: ignore[index]
    assert [hold["owner"] for hold in lifted.json["holds"]] == ["budget"]  # type: ignore[index]


def test_an_agent_that_is_not_paused_cannot_be_resumed_by_any_owner(quiet: Project, agent: str) -> None:
    assert ending(quiet, agent, "resume", owner="budget") == ("rejected", "invalid_transition")


def test_a_patch_places_and_lifts_the_manual_hold(quiet: Project, agent: str) -> None:
    assert ending(quiet, agent, "update", status="paused", current_task="t", reason="lunch") == ("applied", None)
    (hold,) = shown(quiet, agent)["holds"]
    assert (hold["owner"], hold["reason"], shown(quiet, agent)["current_task"]) == ("manual", "lunch", "t")

    assert ending(quiet, agent, "update", status="paused") == ("applied", None), "it is paused already"
    ending(quiet, agent, "pause", owner="budget")
    assert ending(quiet, agent, "update", status="idle", name="digger") == ("applied", None)
    now = shown(quiet, agent)
    assert (now["status"], now["name"], owners(quiet, agent)) == ("paused", "digger", ["budget"])

    assert ending(quiet, agent, "update", status="idle", name="again") == ("rejected", "held")
    assert shown(quiet, agent)["name"] == "digger"
    assert violations() == {}


def test_a_terminated_agent_is_held_by_nobody(quiet: Project, agent: str) -> None:
    ending(quiet, agent, "pause", owner="budget", until=soon(3600))
    ending(quiet, agent, "terminate")

    assert (shown(quiet, agent)["status"], owners(quiet, agent)) == ("terminated", [])
    assert past(quiet, agent)[-1] == ("terminate", "paused", "terminated", [])
    assert sql("SELECT 1 FROM agents WHERE hold_until IS NOT NULL") == []
    assert violations() == {}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"until": "2001-01-01T00:00:00Z"}, "until"),
        ({"until": "tomorrow"}, "until"),
        ({"until": 7}, "until"),
        ({"owner": ""}, "owner"),
        ({"owner": "Budget"}, "owner"),
        ({"owner": "a" * 101}, "owner"),
        ({"owner": None}, "owner"),
    ],
    ids=str,
)
def test_a_hold_that_makes_no_sense_is_refused_at_the_door(
    quiet: Project, agent: str, body: dict[str, Any], field: str
) -> None:
    answer = quiet.api.post(f"{quiet.agent(agent)}/pause", body, Idempotency_Key="free")

    assert is_problem(answer, 422, "validation_error")
    assert answer.json["errors"][0]["field"] == field  # type: ignore[index]
    assert sql("SELECT 1 FROM commands WHERE verb = 'pause'") == []
    assert quiet.api.post(f"{quiet.agent(agent)}/pause", Idempotency_Key="free").status_code == 202


def test_a_hold_is_lifted_once_when_its_time_is_over(quiet: Project, agent: str, workers: None) -> None:
    del workers
    others = [quiet.spawn(wait=False)["agent_id"] for _ in range(10)]
    eventually(lambda: not sql("SELECT 1 FROM agents WHERE status IS NULL"), 20)  # a worker is up
    until = soon(1.5)
    for each in (agent, *others):
        quiet.send(each, "pause", owner="night", until=until)
    eventually(lambda: all(owners(quiet, each) == ["night"] for each in (agent, *others)), 20)

    eventually(lambda: not any(owners(quiet, each) for each in (agent, *others)), 10)

    rows = sql(
        "SELECT *, closed_at - CAST(:until AS timestamptz) AS late FROM commands WHERE cause IS NOT NULL", until=until
    )
    assert Counter(str(row.agent_id) for row in rows) == Counter((agent, *others)), "once, whoever noticed"
    assert {row.state for row in rows} == {"applied"}
    assert max(row.late for row in rows) < timedelta(seconds=2)
    (event,) = sql("SELECT * FROM events WHERE agent_id = :id AND verb = 'resume'", id=agent)
    assert (event.actor_type, event.actor_id, event.reason) == ("system", None, "the time of the hold is over")
    assert violations() == {}


def due() -> int:
    """What a sweep sends for the holds whose time is over."""
    with begin(Guard.DRAIN) as db:
        return timers.send_due(db)


def expired(project: Project, agent_id: str, owner: str = "night") -> None:
    """Put a hold on the agent and let its time pass."""
    project.send(agent_id, "pause", owner=owner, until=soon())
    settle()
    eventually(lambda: sql("SELECT 1 FROM agents WHERE id = :id AND hold_until < now()", id=agent_id))


def test_only_the_hold_whose_time_is_over_is_lifted(quiet: Project, agent: str) -> None:
    quiet.send(agent, "pause")
    quiet.send(agent, "pause", owner="later", until=soon(3600))
    expired(quiet, agent)

    assert (due(), due()) == (1, 0)
    settle()

    assert owners(quiet, agent) == ["manual", "later"]
    assert due() == 0
    assert violations() == {}


def test_a_hold_that_was_lifted_meanwhile_is_not_lifted_again(quiet: Project, agent: str) -> None:
    expired(quiet, agent)
    quiet.send(agent, "resume", owner="night")
    quiet.send(agent, "pause", owner="night")
    assert due() == 1

    settle()

    (state,) = {row.state for row in sql("SELECT state FROM commands WHERE cause IS NOT NULL")}
    assert state == "rejected"
    assert owners(quiet, agent) == ["night"], "the new one is another"
    assert due() == 0


def test_many_at_once_are_lifted_slice_by_slice(quiet: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    agents = [quiet.born() for _ in range(5)]
    for agent_id in agents:
        quiet.send(agent_id, "pause", until=soon())
    settle()
    eventually(lambda: len(sql("SELECT 1 FROM agents WHERE hold_until < now()")) == len(agents))
    monkeypatch.setattr(timers, "AT_MOST", 2)

    assert [due() for _ in range(4)] == [2, 2, 1, 0]


def test_nobody_takes_a_command_of_the_system_back(quiet: Project, agent: str) -> None:
    expired(quiet, agent)
    due()
    (command,) = sql("SELECT id FROM commands WHERE actor_type = 'system'")

    answer = quiet.api.post(f"{quiet.path}/commands/{command.id}/cancel")

    assert is_problem(answer, 409, "conflict")
    drain()
    assert owners(quiet, agent) == []
