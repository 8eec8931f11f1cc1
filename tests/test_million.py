"""The judge of the campaigns, and `GET /verify`, at a size that nobody waits for in every run: a million operations or
events take less than a minute. Fewer, as here by default, take much less.

ORCH_TEST_MILLION=1 makes it a million; that takes some minutes, and some gigabytes.
"""

import os
import time

from tests.chaos.checks import check
from tests.chaos.simulation import Setting, Simulation
from tests.stage import Project, busy, sql

MILLION = 1_000_000
NUMBER = MILLION if os.environ.get("ORCH_TEST_MILLION") else 20_000
SECONDS = 60 if NUMBER == MILLION else 10
"""A processor's, or of a machine that has nothing else to do."""

PER_SECOND, FIRST_SECONDS = 300, 5
"""So many operations the simulation's clients ask for in one of its seconds, and a few more; but for the first ones."""

PER_AGENT = 100

LIVES = """
    WITH born AS (
        INSERT INTO agents (id, project_id, agent_type_id, name, status, version, tasks_completed)
        SELECT gen_random_uuid(), :project, :type, 'one of many', 'idle', :each, :each
        FROM generate_series(1, :agents) RETURNING id
    ), done AS (
        INSERT INTO commands (id, project_id, agent_id, verb, payload, state, closed_at, version, actor_id)
        SELECT gen_random_uuid(), :project, id, CASE n WHEN 1 THEN 'spawn' ELSE 'update' END, '{}', 'applied', now(), n,
            gen_random_uuid()
        FROM born CROSS JOIN generate_series(1, :each) n RETURNING id, agent_id, version
    ), used AS (
        INSERT INTO usage_entries (agent_id, report_id, project_id, fingerprint, occurred_at, input_tokens,
            output_tokens, cache_read_tokens, cache_write_tokens, tasks_completed, folded)
        SELECT id, n, :project, '', now(), 0, 0, 0, 0, 1, true FROM born CROSS JOIN generate_series(1, :each) n
    ), hour AS (
        INSERT INTO usage_hours (project_id, hour, model, agent_type_id, slot, entries, tasks_completed)
        VALUES (:project, date_trunc('hour', now(), 'UTC'), '', :type, 1, CAST(:agents AS bigint) * :each,
            CAST(:agents AS bigint) * :each)
    ), counted AS (
        INSERT INTO project_counters (project_id, slot, idle, tasks_completed)
        VALUES (:project, 1, :agents, CAST(:agents AS bigint) * :each)
    )
    INSERT INTO events (agent_id, version, project_id, command_id, verb, before, after, changes, actor_type, at)
    SELECT agent_id, version, :project, id,
        CASE WHEN version = 1 THEN 'spawn' ELSE 'update' END, CASE WHEN version > 1 THEN 'idle' END, 'idle',
        jsonb_build_object('name', 'one of many', 'current_task', NULL), 'user', now()
    FROM done
"""


def test_a_million_operations_are_judged_within_a_minute() -> None:
    told = Simulation(Setting(1, NUMBER / PER_SECOND + FIRST_SECONDS, agents=500, faults=10)).run()
    began = time.process_time()

    found = check(told)

    seconds = time.process_time() - began
    assert found == []
    assert len(told.calls) >= NUMBER
    assert seconds < SECONDS


def test_a_million_events_are_verified_within_a_minute(quiet: Project) -> None:
    size = {"agents": NUMBER // PER_AGENT, "each": PER_AGENT}
    sql(LIVES, project=quiet.id, type=quiet.type_id, **size)
    began = time.monotonic()

    verdict = quiet.api.get("verify")

    seconds = time.monotonic() - began
    assert [one for one in verdict.json["invariants"] if one["violations"]] == []
    assert sql("SELECT count(*) AS n FROM events")[0].n >= NUMBER
    assert seconds < busy(SECONDS)
