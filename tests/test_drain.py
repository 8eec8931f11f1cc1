"""claim → load → decide → record, batch by batch, in a database that nobody else drains."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection

from orchestrator import drain as drains
from orchestrator.ledger import Sums, fold
from orchestrator.record import WorldChanged
from tests.stage import Project, applied, drain, run, settle, sql, violations


def test_a_spawn_makes_an_idle_agent_with_one_event(quiet: Project) -> None:
    spawn = quiet.spawn(wait=False, name="scout", reason="a test")

    batch = drain()

    agent = quiet.api.get(quiet.agent(spawn["agent_id"])).json
    events = quiet.api.get(f"{quiet.agent(spawn['agent_id'])}/events").json["data"]
    assert applied(batch) == 1
    assert (agent["status"], agent["version"], agent["last_activity_at"]) == ("idle", 1, None)
    assert [(e["verb"], e["before"], e["after"], e["reason"]) for e in events] == [("spawn", None, "idle", "a test")]


def test_a_refusal_is_recorded_and_the_mailbox_goes_on(quiet: Project) -> None:
    agent = quiet.born()
    resume, pause = quiet.send(agent, "resume"), quiet.send(agent, "pause")

    drain()

    resume, pause = quiet.command(resume["id"]), quiet.command(pause["id"])
    assert (resume["state"], resume["error"]["code"], resume["version"]) == ("rejected", "invalid_transition", 1)
    assert (pause["state"], pause["error"], pause["version"]) == ("applied", None, 2)
    assert pause["task_id"] == "a-task"
    assert violations() == {}


def test_an_unborn_agent_is_shown_nowhere_and_takes_commands(quiet: Project) -> None:
    spawn = quiet.spawn(wait=False)
    pause = quiet.send(spawn["agent_id"], "pause")

    assert quiet.api.get(quiet.agent(spawn["agent_id"])).status_code == 404
    assert quiet.api.get(f"{quiet.path}/agents").json["pagination"]["total"] == 0
    drain()

    assert quiet.command(pause["id"])["state"] == "applied"
    assert quiet.api.get(quiet.agent(spawn["agent_id"])).json["status"] == "paused"


def test_one_busy_agent_does_not_fill_a_batch(quiet: Project) -> None:
    busy, other = quiet.born(), quiet.born()
    for verb in ["pause", "resume"] * 30:
        quiet.send(busy, verb)
    last = quiet.send(other, "pause")

    batch = drain()

    assert applied(batch) == 51
    assert quiet.command(last["id"])["state"] == "applied"


def test_usage_is_folded_into_agent_and_project(quiet: Project) -> None:
    agent = quiet.born()
    entries = [{"report_id": str(n), "input_tokens": 10, "output_tokens": 1, "cost": 0.1} for n in range(10)]
    quiet.api.post(f"{quiet.agent(agent)}/usage", {"entries": entries})

    batch = drain()

    shown = quiet.api.get(quiet.agent(agent)).json
    total = quiet.api.get(f"{quiet.path}/agents/metrics").json
    assert batch.folded == 1
    assert (shown["tokens_used"], shown["cost_incurred"], shown["version"]) == (110, "1", 1)
    assert (total["total_tokens_used"], total["total_cost_incurred"]) == (110, "1")
    assert violations() == {}


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE agents SET version = version + 1",
        "UPDATE commands SET state = 'cancelled', closed_at = now() WHERE state = 'queued'",
    ],
)
def test_what_is_not_as_the_batch_has_read_it_is_not_overwritten(
    quiet: Project, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    agent = quiet.born()
    pause = quiet.send(agent, "pause")

    def meddle(db: Connection, agent_ids: Sequence[UUID], slot: int) -> dict[UUID, Sums]:
        run(db, change)  # after the batch was read and decided; with locks kept, nobody can
        return fold(db, agent_ids, slot)

    with monkeypatch.context() as patch:
        patch.setattr(drains, "fold", meddle)
        with pytest.raises(WorldChanged):
            drain()

    assert quiet.command(pause["id"])["state"] == "queued", "all of it was rolled back"
    assert [(row.status, row.version) for row in sql("SELECT status, version FROM agents")] == [("idle", 1)]
    assert [row.version for row in sql("SELECT version FROM events")] == [1]
    assert applied(drain()) == 1
    assert violations() == {}


def test_usage_of_an_unborn_agent_is_counted_once_it_is_born(quiet: Project) -> None:
    spawn = quiet.spawn(wait=False)
    quiet.api.post(f"{quiet.agent(spawn['agent_id'])}/usage", {"entries": [{"report_id": "1", "output_tokens": 7}]})

    while not drain().empty:
        pass

    assert quiet.api.get(quiet.agent(spawn["agent_id"])).json["tokens_used"] == 7


def test_a_batch_takes_a_bounded_number_of_commands_from_all_mailboxes_together(
    quiet: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = [quiet.born() for _ in range(5)]
    for agent in agents:
        for verb in ("pause", "resume") * 3:
            quiet.send(agent, verb)
    monkeypatch.setattr(drains, "LETTERS", 10)

    batches = []
    while not (batch := drain()).empty:
        batches.append(applied(batch))

    assert batches == [10, 10, 10]
    assert [row.n for row in sql("SELECT version AS n FROM agents")] == [7] * 5, "each was possible in its order"
    assert violations() == {}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"on": 1}, {"on": True}),
        ({"on": False}, {"on": 0}),
        ({"deep": [{"on": 0}]}, {"deep": [{"on": False}]}),
        ({"size": 1}, {"size": 1.5}),
    ],
)
def test_a_change_of_type_alone_is_a_change(quiet: Project, before: dict[str, Any], after: dict[str, Any]) -> None:
    agent = quiet.born(short_term_memory=before)

    quiet.send(agent, "update", short_term_memory=after)
    quiet.send(agent, "update", short_term_memory=after)
    settle()

    shown = quiet.api.get(quiet.agent(agent)).json
    assert repr(shown["short_term_memory"]) == repr(after)  # to Python, True == 1
    assert shown["version"] == 2, "the second changed nothing"
    assert violations() == {}
