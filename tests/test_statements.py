"""What things cost in the database, counted on the wire: the same for one as for five hundred."""

import pytest

from orchestrator.db import Guard
from tests.stage import Project, drain, multiply, settle, sql, statements, violations

pytestmark = pytest.mark.usefixtures("known")

ACCEPTED = "SELECT 1"
"""How the server names a statement that inserts a command and returns it; without a BEGIN it is also one commit."""

PAUSE_ALL = """
    INSERT INTO commands (id, project_id, agent_id, verb, payload, actor_id)
    SELECT gen_random_uuid(), project_id, agent_id, 'pause', '{}', actor_id FROM commands WHERE verb = 'spawn'
"""

REPORT_ALL = """
    INSERT INTO usage_entries (agent_id, report_id, project_id, fingerprint, occurred_at, input_tokens, output_tokens,
        cache_read_tokens, cache_write_tokens, cost, cost_source, tasks_completed)
    SELECT id, :report, project_id, '', now(), 7, 0, 0, 0, 0.1, 'reported', 1 FROM agents
"""


def test_a_pause_is_one_statement_and_one_commit(quiet: Project) -> None:
    agents = [quiet.born() for _ in range(4)]
    quiet.send(agents[0], "pause")

    with statements() as done:
        for agent in agents[1:]:
            quiet.send(agent, "pause")

    assert done == [ACCEPTED] * 3
    assert len(sql("SELECT 1 FROM commands WHERE verb = 'pause'")) == 4


@pytest.mark.parametrize("verb", ["update", "resume", "terminate"])
def test_so_is_any_command_for_one_agent(quiet: Project, verb: str) -> None:
    agent = quiet.born()
    quiet.send(agent, "pause")

    with statements() as done:
        quiet.send(agent, verb, **({"current_task": "t"} if verb == "update" else {}))

    assert done == [ACCEPTED]


def test_a_batch_takes_at_most_ten_statements_for_one_command_and_for_five_hundred(quiet: Project) -> None:
    agent = quiet.spawn(wait=False)["agent_id"]
    multiply(agent, 499)
    settle()
    costs = []
    for size, among in ((1, f"= '{agent}'"), (500, "IS NOT NULL")):
        sql(f"{PAUSE_ALL} AND agent_id {among}")
        sql(f"{REPORT_ALL} WHERE id {among}", report=str(size))
        with statements(Guard.DRAIN) as done:
            batch = drain()
        assert (len(batch.outcomes), batch.folded) == (size, size)
        costs.append([tag.split()[0] for tag in done])
        settle()

    one, many = costs
    assert one == many
    assert len([tag for tag in many if tag not in ("BEGIN", "COMMIT")]) <= 10
    assert many.count("COMMIT") == 1
    assert violations() == {}
