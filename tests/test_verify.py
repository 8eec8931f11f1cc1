"""The invariants: a varied life violates none, and whoever falsifies the books is found by the one that guards them."""

from uuid import UUID, uuid4

import pytest

from orchestrator import inspection, verify
from orchestrator.db import Guard, begin
from orchestrator.verify import INVARIANTS
from tests.stage import Project, drain, settle, sql, violations

FALSIFIED = {
    "I1": """
        UPDATE commands SET state = 'queued', closed_at = NULL, created_at = now() - interval '61 seconds'
        WHERE verb = 'update' AND state = 'applied' AND id NOT IN (SELECT command_id FROM events)
    """,
    "I2": "UPDATE events SET command_id = gen_random_uuid() WHERE verb = 'pause'",
    "I3": "UPDATE agents SET version = version + 1 WHERE status = 'paused'",
    "I4": "UPDATE events SET before = 'waiting' WHERE verb = 'pause'",
    "I5": """
        UPDATE events SET before = 'paused', after = 'working' WHERE verb = 'work';
        UPDATE events SET before = 'working', after = 'paused' WHERE verb = 'pause'
    """,
    "I6": "UPDATE agents SET current_task = 'another' WHERE status = 'paused'",
    "I7": """
        INSERT INTO events (agent_id, version, project_id, command_id, verb, before, after, changes, actor_type, at)
        SELECT agent_id, version + 1, project_id, gen_random_uuid(), 'update', 'terminated', 'terminated', '{}',
            'system', now() FROM events WHERE after = 'terminated';
        UPDATE agents SET version = version + 1 WHERE status = 'terminated'
    """,
    "I8a": "UPDATE usage_entries SET cost = cost + 0.0000000001 WHERE cost > 0",
    "I8b": "UPDATE project_counters SET idle = idle + 1",
    "I9": """
        INSERT INTO projects (id, slug, name, owner_id)
        SELECT gen_random_uuid(), 'other', 'Other', owner_id FROM projects LIMIT 1;
        UPDATE commands SET project_id = (SELECT id FROM projects WHERE slug = 'other') WHERE verb = 'spawn'
    """,
    "I11": """UPDATE agents SET holds = holds || holds WHERE status = 'paused'""",
    "I12": """
        INSERT INTO leases (agent_id, project_id, epoch, id, holder, ttl, granted_at, beat_at)
        SELECT id, project_id, 7, gen_random_uuid(), 'nobody', 30, now(), now() FROM agents LIMIT 1
    """,
    "I13": """
        UPDATE agents SET quiesced_at = NULL, quiesced_by = NULL, stop =
            '{"commands": [], "mode": "drain", "deadline": null, "reason": null}' WHERE status = 'paused'
    """,
    "I14": "UPDATE events SET xid = feed_position(pg_current_xact_id()) WHERE verb = 'spawn'",
    "I15": "UPDATE usage_hours SET cache_read_tokens = cache_read_tokens + 1",
    "I10": "UPDATE requests SET command_id = gen_random_uuid()",
}
"""What a hand without the right to it might write, and which invariant must notice."""


@pytest.fixture
def lived(quiet: Project) -> Project:
    """A project in which everything has happened that can."""
    paused, terminated = quiet.born(current_task="count"), quiet.born()
    for agent_id in (paused, terminated):
        quiet.send(agent_id, "update", status="working", short_term_memory={"a": [1]})
        quiet.send(agent_id, "update", status="working")
        quiet.send(agent_id, "resume")
        drain()
    quiet.send(paused, "pause")
    quiet.api.post(f"{quiet.agent(paused)}/usage", {"entries": [{"report_id": "1", "cost": "0.1", "input_tokens": 7}]})
    quiet.api.delete(quiet.agent(terminated), Idempotency_Key=str(uuid4()))
    settle()
    return quiet


def test_a_varied_life_violates_nothing(lived: Project) -> None:
    assert violations() == {}
    states = sql("SELECT state, count(*) FROM commands GROUP BY state ORDER BY state")
    assert [tuple(row) for row in states] == [("applied", 8), ("rejected", 2)]


@pytest.mark.parametrize("invariant", FALSIFIED)
def test_a_falsified_book_is_found_by_the_invariant_that_guards_it(lived: Project, invariant: str) -> None:
    assert not any(inspection.inspect().values())
    for statement in FALSIFIED[invariant].split(";"):
        sql(statement)

    assert invariant in violations()
    # And once more by whoever looks only where something has changed.
    seen = invariant in verify.OF_ITS_AGENTS | verify.OF_A_PROJECT
    assert (inspection.inspect().get(invariant, 0) > 0) is seen
    once = found_so_far()
    inspection.inspect()
    assert found_so_far() == {name: 2 * count for name, count in once.items()}, "all that was found is added up"


def found_so_far() -> dict[str, int]:
    """What all inspections have found."""
    with begin(Guard.TOOL) as db:
        return {row.invariant: row.violations for row in inspection.totals(db) if row.violations}


def test_an_inspection_passes_over_what_takes_long(lived: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    sql("UPDATE agents SET version = version + 1 WHERE status = 'paused'; UPDATE project_counters SET idle = idle + 9")

    monkeypatch.setattr(inspection, "LONGEST", 1)
    monkeypatch.setattr(inspection, "AGENTS_AT_MOST", 1)

    assert not any(inspection.inspect().values())


def test_an_inspection_ends_in_time(lived: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        Project.make(lived.api)
    looked_at: list[UUID] = []
    monkeypatch.setattr(inspection, "_findings", lambda project_id: looked_at.append(project_id) or [])
    inspection.inspect()
    assert len(looked_at) == 4
    monkeypatch.setattr(inspection, "SECONDS", 0.0)

    inspection.inspect()

    assert len(looked_at) == 5


def test_every_invariant_was_falsified() -> None:
    assert set(FALSIFIED) == set(INVARIANTS)


def test_a_command_counts_as_lost_only_after_its_grace(quiet: Project) -> None:
    quiet.spawn(wait=False)

    assert violations() == {}
    sql("UPDATE commands SET created_at = now() - interval '59 seconds'")
    assert violations() == {}
    sql("UPDATE commands SET created_at = now() - interval '61 seconds'")
    assert violations() == {"I1": 1}


@pytest.mark.parametrize("table", ["commands", "events", "usage_entries"])
def test_an_orphan_is_found_wherever_it_is(lived: Project, table: str) -> None:
    sql(f"UPDATE {table} SET agent_id = gen_random_uuid() WHERE ctid = (SELECT min(ctid) FROM {table})")

    assert violations()["I9"] == 1
