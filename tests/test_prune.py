"""What is thrown away after its time, and nothing else."""

from uuid import uuid4

import pytest

from orchestrator import upkeep
from orchestrator.db import Guard, begin
from orchestrator.upkeep import prune
from tests.stage import Project, drain, is_problem, settle, sql, violations
from tests.test_leases import beat, leased
from workers import tasks


def pruned() -> dict[str, int]:
    """What one pruning deletes."""
    with begin(Guard.TOOL) as db:
        return prune(db)


def aged(table: str, by: str, condition: str = "true") -> None:
    """Make rows older."""
    closed = ", closed_at = closed_at - CAST(:by AS interval)" if table == "commands" else ""
    sql(f"UPDATE {table} SET created_at = created_at - CAST(:by AS interval){closed} WHERE {condition}", by=by)


def test_closed_commands_are_kept_for_thirty_days_and_queued_ones_for_good(quiet: Project) -> None:
    agent_id = quiet.born()
    quiet.send(agent_id, "pause")
    drain()
    queued = quiet.send(agent_id, "resume")["id"]

    aged("commands", "29 days 23 hours")
    assert pruned()["commands"] == 0
    aged("commands", "2 hours")
    assert pruned()["commands"] == 2

    assert [str(row.id) for row in sql("SELECT id FROM commands")] == [queued]
    settle()
    assert quiet.api.get(quiet.agent(agent_id)).json["status"] == "idle"  # type: ignore[index]


def test_much_is_deleted_slice_by_slice(quiet: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    agent_id = quiet.born()
    for verb in ("pause", "resume") * 3:
        quiet.send(agent_id, verb)
    settle()
    aged("commands", "31 days")
    monkeypatch.setattr(upkeep, "SLICE", 2)
    monkeypatch.setattr(tasks, "SLICES", 2)

    assert [tasks.prune() for _ in range(3)] == [_nothing() | {"commands": n} for n in (4, 3, 0)]


def _nothing() -> dict[str, int]:
    kept = ("commands", "requests", "batches", "tokens", "sessions", "fleet_minutes", "latency_minutes")
    summed_up = (f"{table}_summed_up" for table in ("fleet_minutes", "latency_minutes", "usage_hours"))
    return dict.fromkeys((*kept, *summed_up), 0)


def test_batches_are_kept_as_long_as_what_they_tell_of_but_the_last_one(quiet: Project) -> None:
    agent_id = quiet.born()
    pause = {"commands": [{"verb": "pause", "agent_id": agent_id}]}
    batches = [quiet.api.post(f"{quiet.path}/commands", pause).json["batch_id"] for _ in range(3)]  # type: ignore[index]
    settle()
    aged("batches", "31 days")

    assert pruned()["batches"] == 1  # of the others, one has a refused command, and the last turn is the other's

    aged("commands", "31 days")
    assert pruned()["batches"] == 1
    assert [str(row.id) for row in sql("SELECT id FROM batches")] == batches[-1:]


def test_a_batch_whose_refused_commands_are_deleted_is_not_told_to_be_applied(quiet: Project) -> None:
    pauses = {"commands": [{"verb": "pause", "agent_id": quiet.born()}] * 2}
    batch = f"{quiet.path}/batches/{quiet.api.post(f'{quiet.path}/commands', pauses).json['batch_id']}"  # type: ignore[index]
    aged("batches", "31 days")
    assert quiet.api.get(batch).json["states"]["queued"] == 2, "what waits is told of, however old"  # type: ignore[index]
    settle()
    aged("commands", "31 days")
    pruned()

    assert sql("SELECT 1 FROM batches"), "the newest is kept"
    assert is_problem(quiet.api.get(batch), 404, "not_found")


def test_idempotency_keys_are_kept_for_two_days(quiet: Project) -> None:
    body = {"agent_type_id": quiet.type_id, "name": "scout"}
    key = str(uuid4())
    first = quiet.api.post(f"{quiet.path}/agents", body, Idempotency_Key=key).json

    aged("requests", "1 day 23 hours")
    assert pruned()["requests"] == 0
    assert quiet.api.post(f"{quiet.path}/agents", body, Idempotency_Key=key).json == first
    aged("requests", "2 hours")
    assert pruned()["requests"] == 1

    assert quiet.api.post(f"{quiet.path}/agents", body, Idempotency_Key=key).json != first


@pytest.mark.parametrize("ending", ["the lease is given back", "it is acknowledged", "it is terminated"])
def test_a_stop_that_is_waited_for_keeps_its_command(quiet: Project, ending: str) -> None:
    agent_id = quiet.born()
    epoch = leased(quiet, agent_id)["epoch"]
    pause = quiet.send(agent_id, "pause", mode="drain")
    settle()
    aged("commands", "31 days")
    assert pruned()["commands"] == 1, "its spawn"

    if ending == "it is acknowledged":
        beat(quiet, agent_id, epoch, ack=True)
    else:
        quiet.api.delete(f"{quiet.agent(agent_id)}/lease", {"epoch": epoch})
    if ending == "it is terminated":
        quiet.send(agent_id, "terminate")
    settle()

    assert sql("SELECT quiesced_at FROM commands WHERE id = :id", id=pause["id"])[0].quiesced_at is not None
    assert sql("SELECT stop FROM agents WHERE id = :id", id=agent_id)[0].stop is None
    assert {row.state for row in sql("SELECT state FROM commands")} == {"applied"}
    assert pruned()["commands"] == 1
    assert violations() == {}


def test_history_and_ledger_are_kept_and_the_books_still_balance(quiet: Project) -> None:
    agent_id = quiet.born()
    quiet.api.post(f"{quiet.agent(agent_id)}/usage", {"entries": [{"report_id": "1", "cost": "0.1"}]})
    quiet.send(agent_id, "terminate")
    settle()
    aged("commands", "31 days")

    assert pruned()["commands"] == 2

    history = quiet.api.get(f"{quiet.agent(agent_id)}/events").json["data"]  # type: ignore[index]
    assert [event["verb"] for event in history] == ["spawn", "terminate"]
    assert quiet.api.get(f"{quiet.agent(agent_id)}/metrics").json["total_cost_incurred"] == "0.1"  # type: ignore[index]
    assert violations() == {}
