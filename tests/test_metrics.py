"""Metrics: exact sums over a project's agents, and over one agent."""

from collections import Counter
from decimal import Decimal
from random import Random
from typing import Any
from uuid import uuid4

from tests.stage import WAIT, Project, drain, eventually, settle, violations

STATUSES = ["idle", "working", "waiting", "paused", "terminated"]

NOTHING = {
    "total_instances": 0,
    "active_instances": 0,
    "idle_instances": 0,
    "total_tasks_completed": 0,
    "total_tokens_used": 0,
    "total_cost_incurred": "0",
    "by_status": dict.fromkeys(STATUSES, 0),
}


def metrics(project: Project) -> dict[str, Any]:
    """The project's metrics."""
    return project.api.get(f"{project.path}/agents/metrics").json  # type: ignore[return-value]


def metrics_of(project: Project, agent_id: str) -> dict[str, Any]:
    """One agent's metrics."""
    return project.api.get(f"{project.agent(agent_id)}/metrics").json  # type: ignore[return-value]


def use(project: Project, agent_id: str, **amounts: Any) -> None:
    """One usage entry of an agent, not waited for."""
    entry = {"report_id": uuid4().hex} | amounts
    answer = project.api.post(f"{project.agent(agent_id)}/usage", {"entries": [entry]})
    assert answer.status_code == 202, answer.json


def summed(agents: list[dict[str, Any]]) -> dict[str, Any]:
    """What the metrics over these agents must be."""
    by_status = Counter(agent["status"] for agent in agents)
    cost = sum((Decimal(agent["cost_incurred"]) for agent in agents), Decimal(0))
    return {
        "total_instances": len(agents),
        "active_instances": by_status["working"],
        "idle_instances": by_status["idle"],
        "total_tasks_completed": sum(agent["tasks_completed"] for agent in agents),
        "total_tokens_used": sum(agent["tokens_used"] for agent in agents),
        "total_cost_incurred": f"{cost.normalize():f}",
        "by_status": {status: by_status[status] for status in STATUSES},
    }


def test_a_project_without_agents_has_metrics_of_nothing(project: Project) -> None:
    assert metrics(project) == NOTHING


def test_an_unborn_agent_is_not_counted(quiet: Project) -> None:
    quiet.spawn(wait=False)

    assert metrics(quiet) == NOTHING


def test_ten_times_a_tenth_is_one(project: Project) -> None:
    agent = project.spawn()["id"]
    for _ in range(10):
        use(project, agent, cost=0.1)

    assert eventually(lambda: metrics(project)["total_cost_incurred"] == "1")
    assert metrics_of(project, agent)["total_cost_incurred"] == "1"
    assert project.api.get(project.agent(agent)).json["cost_incurred"] == "1"


def test_the_smallest_and_the_largest_costs_are_summed_without_loss(quiet: Project) -> None:
    agent = quiet.born()
    for cost in ("0.0000000001", "999999.9999999999", 1_000_000, 1e-10, "1e-10", "0.50"):
        use(quiet, agent, cost=cost)
    settle()

    assert metrics(quiet)["total_cost_incurred"] == "2000000.5000000002"
    assert violations() == {}


def test_twelve_thousand_million_tokens_are_an_exact_number(quiet: Project) -> None:
    agent = quiet.born()
    use(quiet, agent, input_tokens=11_999_999_999, cache_read_tokens=5_000_000_000)
    use(quiet, agent, output_tokens=1, cache_write_tokens=3)
    settle()

    assert metrics(quiet)["total_tokens_used"] == 12_000_000_000
    assert metrics_of(quiet, agent)["total_tokens_used"] == 12_000_000_000


def test_a_sum_may_be_larger_than_any_entry_and_than_32_or_53_bits(quiet: Project) -> None:
    agent = quiet.born()
    most = {"input_tokens": 10**12, "output_tokens": 10**12, "tasks_completed": 10**6}
    for _ in range(5):
        entries = [{"report_id": uuid4().hex} | most for _ in range(1000)]
        quiet.api.post(f"{quiet.agent(agent)}/usage", {"entries": entries})
    use(quiet, agent, input_tokens=1, tasks_completed=1)
    settle()

    assert metrics(quiet)["total_tokens_used"] == 10**16 + 1
    assert metrics(quiet)["total_tasks_completed"] == 5 * 10**9 + 1


def test_agents_in_every_status_are_counted_the_terminated_ones_too(project: Project) -> None:
    for number, status in enumerate(STATUSES, start=1):
        for _ in range(number):
            use(project, project.in_status(status), tasks_completed=1, input_tokens=10, cost="0.25")

    found = eventually(lambda: (found := metrics(project))["total_tasks_completed"] == 15 and found)

    assert found == {
        "total_instances": 15,
        "active_instances": 2,
        "idle_instances": 1,
        "total_tasks_completed": 15,
        "total_tokens_used": 150,
        "total_cost_incurred": "3.75",
        "by_status": {"idle": 1, "working": 2, "waiting": 3, "paused": 4, "terminated": 5},
    }


def test_one_agents_metrics_are_its_own(project: Project) -> None:
    agent, other = project.in_status("working"), project.spawn()["id"]
    use(project, other, tasks_completed=7, cost="7")
    use(project, agent, tasks_completed=1, input_tokens=2, output_tokens=3, cost="0.4")

    found = eventually(lambda: (found := metrics_of(project, agent))["total_tasks_completed"] and found)

    assert found == {
        "total_instances": 1,
        "active_instances": 1,
        "idle_instances": 0,
        "total_tasks_completed": 1,
        "total_tokens_used": 5,
        "total_cost_incurred": "0.4",
        "by_status": dict.fromkeys(STATUSES, 0) | {"working": 1},
    }


def test_a_terminated_agents_metrics_can_still_be_read(project: Project) -> None:
    agent = project.in_status("terminated")

    found = metrics_of(project, agent)

    assert (found["total_instances"], found["by_status"]["terminated"]) == (1, 1)


def test_other_projects_are_not_in_the_sums(project: Project) -> None:
    other = Project.make(project.api)
    other.spawn()

    assert metrics(project) == NOTHING
    assert metrics(other)["total_instances"] == 1


def test_counters_follow_each_move_at_once(project: Project) -> None:
    agent = project.spawn()["id"]
    seen = [metrics(project)["by_status"]]

    for status in ("working", "waiting", "paused", "terminated"):
        project.api.patch(project.agent(agent), {"status": status}, **WAIT)
        seen.append(metrics(project)["by_status"])

    assert seen == [dict.fromkeys(STATUSES, 0) | {status: 1} for status in STATUSES]


def act(project: Project, agents: list[str], chance: Random) -> None:
    """One operation, whatever comes of it."""
    agent, what = chance.choice(agents), chance.randrange(10)
    if what == 0:
        agents.append(project.spawn(wait=False)["agent_id"])
    elif what == 1:
        drain(limit=chance.randint(1, 5))
    elif what <= 4:
        amounts = {"tasks_completed": chance.randrange(3), "output_tokens": chance.randrange(10**9)}
        use(project, agent, **amounts, cost=f"{chance.randrange(10**6)}.{chance.randrange(10**10):010}")
    elif what <= 7:
        project.send(agent, "update", status=chance.choice(STATUSES[:-1]))
    else:
        project.send(agent, chance.choice(["pause", "resume", "resume", "terminate"]))


def test_after_two_hundred_operations_the_metrics_are_the_sums_over_the_listed_agents(quiet: Project) -> None:
    seed = Random().randrange(10**6)  # noqa: S311  # chance for a test, told when it fails
    chance, agents = Random(seed), [quiet.born() for _ in range(4)]  # noqa: S311  # the same

    for _ in range(200):
        act(quiet, agents, chance)
    settle()

    listed = quiet.api.get(f"{quiet.path}/agents?limit=100").json["data"]
    assert len(listed) == len(agents), seed
    assert metrics(quiet) == summed(listed), seed
    assert [metrics_of(quiet, agent["id"]) for agent in listed] == [summed([agent]) for agent in listed], seed
    assert violations() == {}, seed
