"""Usage: each entry counted once, whatever its agent's status, and sums that equal the counters to the last digit."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest

from orchestrator import claims, ledger, usage
from orchestrator import drain as drains
from orchestrator.db import Guard, autocommit, begin
from orchestrator.ledger import FOLD_PER_AGENT, AgentEntry
from orchestrator.rollup_tables import TOGETHER
from tests.stage import (
    WAIT,
    Project,
    blocked,
    busy,
    drain,
    eventually,
    fields,
    is_problem,
    peers,
    settle,
    sql,
    violations,
)
from tests.surface import send
from tests.wire import Gunicorn
from web.waiters import waiters
from workers import tasks

NOW = datetime.now(UTC)

BY_THE_HOUR = ("model", "agent_type", "hour", "day")
"""Groups that are summed up in the roll-up."""

WHOLE = {
    "report_id": "whole",
    "occurred_at": (NOW - timedelta(minutes=1)).isoformat(),
    "provider": "acme",
    "model": "large",
    "input_tokens": 100,
    "output_tokens": 20,
    "cache_read_tokens": 70,
    "cache_write_tokens": 5,
    "cost": "0.0123456789",
    "tasks_completed": 1,
    "note": "all of it",
}


def report(project: Project, agent_id: str, *entries: dict[str, Any], **headers: str) -> Any:
    """The answer to a usage report of one agent."""
    return project.api.post(f"{project.agent(agent_id)}/usage", {"entries": list(entries)}, **headers)


def counted(project: Project, agent_id: str) -> tuple[int, str, int]:
    """An agent's tokens, cost and tasks."""
    shown = project.api.get(project.agent(agent_id)).json
    return shown["tokens_used"], shown["cost_incurred"], shown["tasks_completed"]


def groups(project: Project, query: str = "") -> dict[str | None, dict[str, Any]]:
    """The project's usage by group."""
    answer = project.api.get(f"{project.path}/usage?{query}")
    assert answer.status_code == 200, answer.json
    return {row.pop("group"): row for row in answer.json["data"]}


def days_ago(days: float) -> str:
    """A time in the past, in RFC 3339."""
    return (NOW - timedelta(days=days)).isoformat()


def test_an_entry_is_taken_at_once_and_counted_by_a_worker(project: Project) -> None:
    agent = project.spawn()["id"]

    answer = report(project, agent, WHOLE)

    assert (answer.status_code, answer.json) == (202, {"accepted": 1, "duplicates": 0, "conflicts": []})
    assert eventually(lambda: counted(project, agent) == (120, "0.0123456789", 1))


def test_usage_that_is_waited_for_is_counted_when_it_is_answered(project: Project) -> None:
    agent = project.spawn()["id"]

    answer = report(project, agent, WHOLE, **WAIT)

    assert (answer.status_code, answer.json) == (200, {"accepted": 1, "duplicates": 0, "conflicts": []})
    assert answer.headers["Preference-Applied"] == "wait=10"
    assert counted(project, agent) == (120, "0.0123456789", 1)


def test_one_report_can_tell_of_many_agents(project: Project) -> None:
    agents = [project.spawn()["id"] for _ in range(3)]
    entries = [{"agent_id": id_, "report_id": "1", "input_tokens": n} for n, id_ in enumerate(agents, start=1)]

    answer = project.api.post(f"{project.path}/usage", {"entries": entries}, **WAIT)

    assert (answer.status_code, answer.json) == (200, {"accepted": 3, "duplicates": 0, "conflicts": []})
    assert [counted(project, id_)[0] for id_ in agents] == [1, 2, 3]


def test_an_entry_that_says_nothing_counts_nothing(project: Project) -> None:
    agent = project.spawn()["id"]

    assert report(project, agent, {"report_id": "1"}, **WAIT).status_code == 200
    assert counted(project, agent) == (0, "0", 0)


def test_the_same_entry_is_counted_once_and_the_first_content_wins(quiet: Project) -> None:
    agent, other = quiet.born(), quiet.born()
    report(quiet, agent, {"report_id": "a", "cost": "0.10"}, {"report_id": "b", "input_tokens": 1})
    settle()

    again = report(quiet, agent, {"report_id": "a", "cost": 0.1}, {"report_id": "b", "input_tokens": 2})
    elsewhere = report(quiet, other, {"report_id": "a", "input_tokens": 9})
    settle()

    assert again.json == {"accepted": 0, "duplicates": 2, "conflicts": [1]}
    assert elsewhere.json == {"accepted": 1, "duplicates": 0, "conflicts": []}
    assert (counted(quiet, agent), counted(quiet, other)) == ((1, "0.1", 0), (9, "0", 0))


def test_a_number_is_money_as_it_is_written_and_not_as_a_float_would_have_it(quiet: Project) -> None:
    agent = quiet.born()
    costs = [f"600000.000000000{n}" for n in range(10)]
    entries = ", ".join(f'{{"report_id": "{n}", "cost": {cost}}}' for n, cost in enumerate(costs))
    finer = '{"report_id": "finer", "cost": 0.10000000000000000001}'

    taken, refused = (
        send(quiet.api, "POST", f"/api/v1/{quiet.agent(agent)}/usage", f'{{"entries": [{some}]}}'.encode())
        for some in (entries, finer)
    )
    settle()

    assert taken.status_code == 202
    assert is_problem(refused, 422, "validation_error")
    assert fields(refused) == ["entries.0.cost"]
    assert counted(quiet, agent)[1] == "6000000.0000000045"


def test_duplicates_inside_one_report_are_found_too(quiet: Project) -> None:
    agent = quiet.born()
    first, same, other = {"report_id": "a", "input_tokens": 1}, {"report_id": "a"}, {"report_id": "b"}

    answer = report(quiet, agent, first, other, first, same | {"input_tokens": 2}, {"report_id": "A"})
    settle()

    assert answer.json == {"accepted": 3, "duplicates": 2, "conflicts": [3]}
    assert counted(quiet, agent)[0] == 1


def test_a_hundred_parallel_duplicates_through_two_processes_count_once(project: Project, home: Path) -> None:
    agents = [project.spawn()["id"] for _ in range(3)]
    entries = [{"agent_id": id_, "report_id": str(n), "cost": 0.1} for n in range(10) for id_ in agents]
    path = f"{project.path}/usage"

    def send(number: int) -> dict[str, Any]:
        body = {"entries": entries[number % 30 :] + entries[: number % 30]}
        while True:  # a busy server may ask to try again
            answer = web("POST", path, project.api.key, body) if number % 2 else project.api.post(path, body)
            if answer.status_code != 503:
                assert answer.status_code == 202, answer.text
                return answer.json() if number % 2 else answer.json

    with Gunicorn.start(home / "web-usage.log") as web, ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(send, range(100)))

    assert sum(answer["accepted"] for answer in answers) == 30
    assert sum(answer["duplicates"] for answer in answers) == 99 * 30
    assert not any(answer["conflicts"] for answer in answers)
    assert eventually(lambda: [counted(project, id_) for id_ in agents] == [(0, "1", 0)] * 3)
    assert groups(project, "group_by=agent").keys() == set(agents)


@pytest.mark.parametrize("count", [1, 300, 1000])
def test_a_report_may_have_up_to_a_thousand_entries(quiet: Project, count: int) -> None:
    agent = quiet.born()

    answer = report(quiet, agent, *({"report_id": str(n), "output_tokens": 2} for n in range(count)))
    settle()

    assert answer.json["accepted"] == count
    assert counted(quiet, agent)[0] == 2 * count


@pytest.mark.parametrize("count", [0, 1001])
def test_a_report_with_none_or_too_many_entries_is_refused(quiet: Project, count: int) -> None:
    answer = report(quiet, quiet.born(), *({"report_id": str(n)} for n in range(count)))

    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, "entries")
    assert sql("SELECT 1 FROM usage_entries") == []


def test_more_entries_than_one_batch_folds_are_all_counted_in_the_end(quiet: Project) -> None:
    agent = quiet.born()
    for thousand in range(3):
        report(quiet, agent, *({"report_id": f"{thousand}-{n}", "cost": "0.001"} for n in range(1000)))

    drain()
    part = counted(quiet, agent)
    settle()

    assert part == (0, f"{FOLD_PER_AGENT // 1000}", 0)
    assert counted(quiet, agent) == (0, "3", 0)
    assert violations() == {}


def test_one_batch_folds_a_bounded_number_of_entries_of_all_agents_together(
    quiet: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "FOLD_AT_MOST", 5)
    agents = [quiet.born() for _ in range(3)]
    for agent in agents:
        report(quiet, agent, *({"report_id": str(n), "tasks_completed": 1} for n in range(4)))

    batches = []
    while not drain().empty:
        batches.append(sum(counted(quiet, agent)[2] for agent in agents))

    assert batches == [5, 10, 12]
    assert violations() == {}


def test_reports_of_the_same_entries_in_another_order_do_not_deadlock(quiet: Project) -> None:
    agent, project = quiet.born(), UUID(quiet.id)
    first, last = ({"report_id": name} for name in "ab")

    with ThreadPoolExecutor(1) as pool:
        with begin() as db:
            ledger.take(db, project, [AgentEntry(agent_id=UUID(agent), **first)])
            other = pool.submit(report, quiet, agent, last, first)
            eventually(blocked)
            ledger.take(db, project, [AgentEntry(agent_id=UUID(agent), **last)])
        answer = other.result(timeout=10)

    assert (answer.status_code, answer.json["accepted"], answer.json["duplicates"]) == (202, 0, 2)


@pytest.mark.parametrize("first", [0, 1])
def test_the_oldest_entry_is_claimed_first(quiet: Project, first: int) -> None:
    agents = [quiet.born(), quiet.born()]
    for agent in agents:
        report(quiet, agent, {"report_id": "1"})
    sql("UPDATE usage_entries SET created_at = created_at - interval '1 hour' WHERE agent_id = :id", id=agents[first])

    with begin(Guard.DRAIN) as db:
        assert claims.claim(db, limit=1).usage == [UUID(agents[first])]


@pytest.mark.parametrize("ending", ["cancelled", "dead"])
def test_usage_of_an_agent_that_is_never_born_is_counted_or_refused(quiet: Project, ending: str) -> None:
    spawn = quiet.spawn(wait=False)
    agent, command = spawn["agent_id"], spawn["id"]
    report(quiet, agent, {"report_id": "early", "cost": "0.5"})
    if ending == "cancelled":
        quiet.api.post(f"{quiet.path}/commands/{command}/cancel")
    else:
        with begin(Guard.DRAIN) as db:
            assert drains.bury(db, UUID(command), "a-task")

    settle()
    late = report(quiet, agent, {"report_id": "late", "cost": "0.5"})
    among = quiet.api.post(f"{quiet.path}/usage", {"entries": [{"agent_id": agent, "report_id": "late"}]})

    assert sql("SELECT report_id, folded FROM usage_entries") == [("early", True)]
    assert quiet.api.get(f"{quiet.path}/agents/metrics").json["total_cost_incurred"] == "0.5"
    assert late.status_code == 404
    assert (among.status_code, among.json["errors"][0]["field"]) == (422, "entries.0.agent_id")
    assert violations() == {}


MORE_ENTRIES = """
    INSERT INTO usage_entries (agent_id, report_id, project_id, fingerprint, occurred_at, input_tokens, output_tokens,
        cache_read_tokens, cache_write_tokens, tasks_completed, folded)
    SELECT id, :name || n, project_id, '', now(), 1, 0, 0, 0, 0, :folded
    FROM (SELECT * FROM agents ORDER BY id LIMIT :agents) a CROSS JOIN generate_series(1, :each) n
"""


@pytest.mark.parametrize("known", [1, 500])
@pytest.mark.parametrize(("agents", "each"), [(1, 30_000), (500, 20)])
def test_a_flood_is_counted_in_time_though_the_planner_knows_of_none_that_waits(
    quiet: Project, known: int, agents: int, each: int
) -> None:
    peers(quiet.born(), 499)
    sql(MORE_ENTRIES, name="old", folded=True, agents=known, each=1)
    sql("ANALYZE usage_entries")
    sql(MORE_ENTRIES, name="new", folded=False, agents=agents, each=each)
    among = [row.id for row in sql("SELECT id FROM agents ORDER BY id LIMIT :agents", agents=agents)]

    began = time.monotonic()
    with begin(Guard.DRAIN) as db:
        sums = ledger.fold(db, among, 0)

    assert time.monotonic() - began < busy(3), "each entry was looked for among all that wait"
    assert {some.tokens_used for some in sums.values()} == {min(each, FOLD_PER_AGENT)}
    assert len(sums) == agents


def test_an_hour_can_hold_more_tokens_than_a_long_number(quiet: Project) -> None:
    agent = quiet.born()
    assert report(quiet, agent, WHOLE).status_code == 202
    drain()
    sql("UPDATE usage_hours SET input_tokens = :most", most=2**63 - 1)

    assert report(quiet, agent, WHOLE | {"report_id": "the next"}).status_code == 202
    drain()

    assert counted(quiet, agent)[0] == 240
    assert [row.input_tokens for row in sql("SELECT input_tokens FROM usage_hours")] == [2**63 + 99]


def test_usage_before_birth_is_counted_after_it(project: Project) -> None:
    agent = project.spawn(wait=False)["agent_id"]

    answer = report(project, agent, WHOLE, **WAIT)

    assert answer.status_code == 200
    assert counted(project, agent)[0] == 120


@pytest.mark.parametrize("status", ["idle", "working", "waiting", "paused", "terminated"])
def test_usage_is_counted_in_any_status_and_changes_none(project: Project, status: str) -> None:
    agent = project.in_status(status)
    was = project.api.get(project.agent(agent)).json

    assert report(project, agent, WHOLE, **WAIT).status_code == 200

    sums = {"tokens_used": 120, "cost_incurred": "0.0123456789", "tasks_completed": 1}
    assert project.api.get(project.agent(agent)).json == was | sums
    assert len(project.api.get(f"{project.agent(agent)}/events").json["data"]) == was["version"]


WRONG: list[tuple[Any, str]] = [
    ({"report_id": None}, ".report_id"),
    ({"report_id": ""}, ".report_id"),
    ({"report_id": "x" * 129}, ".report_id"),
    ({"report_id": 1}, ".report_id"),
    ({"input_tokens": -1}, ".input_tokens"),
    ({"input_tokens": 10**12 + 1}, ".input_tokens"),
    ({"output_tokens": 1.5}, ".output_tokens"),
    ({"output_tokens": "5"}, ".output_tokens"),
    ({"cache_read_tokens": True}, ".cache_read_tokens"),
    ({"cache_write_tokens": 10**30}, ".cache_write_tokens"),
    ({"tasks_completed": 10**6 + 1}, ".tasks_completed"),
    ({"tasks_completed": -1}, ".tasks_completed"),
    ({"cost": -0.01}, ".cost"),
    ({"cost": 1_000_000.01}, ".cost"),
    ({"cost": "0.00000000001"}, ".cost"),
    ({"cost": 1e-11}, ".cost"),
    ({"cost": "1.000000000000000000000000000001"}, ".cost"),  # more digits than Python's decimals have by default
    ({"cost": "NaN"}, ".cost"),
    ({"cost": "Infinity"}, ".cost"),
    ({"cost": "1,5"}, ".cost"),
    ({"cost": ""}, ".cost"),
    ({"cost": True}, ".cost"),
    ({"cost": {}}, ".cost"),
    ({"occurred_at": days_ago(35.01)}, ".occurred_at"),
    ({"occurred_at": days_ago(-1)}, ".occurred_at"),  # a day: the tests take minutes
    ({"occurred_at": "2026-01-01T00:00:00"}, ".occurred_at"),
    ({"occurred_at": "yesterday"}, ".occurred_at"),
    ({"occurred_at": 1}, ".occurred_at"),
    ({"model": 7}, ".model"),
    ({"colour": "red"}, ".colour"),
    ({"agent_id": str(uuid4())}, ".agent_id"),
    ("an entry", ""),
    (None, ""),
]
"""What is wrong in an otherwise right entry, and the end of the field's name."""


@pytest.mark.parametrize(("wrong", "field"), WRONG, ids=[f"{n}{field}" for n, (_, field) in enumerate(WRONG)])
def test_one_wrong_entry_refuses_the_whole_report_by_its_index(quiet: Project, wrong: Any, field: str) -> None:
    agent = quiet.born()
    entry = {"report_id": "wrong"} | wrong if isinstance(wrong, dict) else wrong

    answer = report(quiet, agent, {"report_id": "a"}, {"report_id": "b"}, {"report_id": "c"}, entry)

    assert answer.status_code == 422
    assert [error["field"] for error in answer.json["errors"]] == [f"entries.3{field}"]
    assert sql("SELECT 1 FROM usage_entries") == []


@pytest.mark.parametrize(
    "right",
    [
        {"report_id": "x" * 128},
        {"input_tokens": 0, "output_tokens": 10**12, "tasks_completed": 10**6, "cost": 0},
        {"cost": 1_000_000},
        {"cost": "0.0000000001"},
        {"cost": "1.00000000000000"},
        pytest.param({"occurred_at": days_ago(34.9)}, id="34.9 days ago"),
        pytest.param({"occurred_at": days_ago(-0.003)}, id="in 4 minutes"),
        {"cost": None, "model": None, "occurred_at": None},
    ],
    ids=str,
)
def test_what_just_fits_is_taken(quiet: Project, right: dict[str, Any]) -> None:
    answer = report(quiet, quiet.born(), {"report_id": "right"} | right)

    assert (answer.status_code, answer.json["accepted"]) == (202, 1)


def test_every_stranger_in_a_report_is_named_and_nothing_is_taken(quiet: Project) -> None:
    mine, theirs = quiet.born(), Project.make(quiet.api).born()
    ids = [mine, theirs, mine, str(uuid4())]

    entries = [{"agent_id": id_, "report_id": str(n)} for n, id_ in enumerate(ids)]
    answer = quiet.api.post(f"{quiet.path}/usage", {"entries": entries})
    alone = report(quiet, theirs, {"report_id": "1"})

    assert [error["field"] for error in answer.json["errors"]] == ["entries.1.agent_id", "entries.3.agent_id"]
    assert (answer.status_code, alone.status_code) == (422, 404)
    assert sql("SELECT 1 FROM usage_entries") == []


def test_usage_that_is_not_counted_in_time_is_answered_with_202(quiet: Project) -> None:
    answer = report(quiet, quiet.born(), WHOLE, Prefer="wait=0.05")

    assert (answer.status_code, answer.json["accepted"]) == (202, 1)


def test_a_waiting_report_is_answered_even_if_no_word_of_its_count_arrives(quiet: Project) -> None:
    agents = [quiet.born(), quiet.born()]
    entries = [{"agent_id": id_, "report_id": "1", "cost": 1} for id_ in agents]

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(quiet.api.post, f"{quiet.path}/usage", {"entries": entries}, Prefer="wait=30")
        eventually(lambda: waiters()._waiting)
        settle()  # in this process, which tells nobody
        answer = waiting.result(timeout=10)

    assert answer.status_code == 200


def test_the_same_key_and_report_are_answered_as_before(project: Project) -> None:
    agent, key = project.spawn()["id"], uuid4().hex

    first = report(project, agent, WHOLE, Idempotency_Key=key)
    again = report(project, agent, WHOLE, Idempotency_Key=key, **WAIT)
    other = report(project, agent, WHOLE | {"cost": 1}, Idempotency_Key=key)

    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json == again.json == {"accepted": 1, "duplicates": 0, "conflicts": []}
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (other.status_code, other.json["errors"][0]["code"]) == (422, "idempotency_key_reused")


def test_a_retried_report_is_answered_as_before_though_its_agent_will_never_be_born(quiet: Project) -> None:
    spawn, key = quiet.spawn(wait=False), uuid4().hex
    first = report(quiet, spawn["agent_id"], WHOLE, Idempotency_Key=key)
    quiet.api.post(f"{quiet.path}/commands/{spawn['id']}/cancel")

    again = report(quiet, spawn["agent_id"], WHOLE, Idempotency_Key=key)
    new = report(quiet, spawn["agent_id"], WHOLE, Idempotency_Key=uuid4().hex)

    assert (first.status_code, again.status_code, new.status_code) == (202, 202, 404)
    assert again.json == first.json
    assert again.headers["Idempotency-Replayed"] == "true"


def test_a_refused_report_leaves_its_key_free(quiet: Project) -> None:
    agent, key = quiet.born(), uuid4().hex

    refused = report(quiet, agent, {"report_id": "1", "occurred_at": days_ago(99)}, Idempotency_Key=key)
    taken = report(quiet, agent, {"report_id": "1"}, Idempotency_Key=key)

    assert (refused.status_code, taken.status_code) == (422, 202)


def test_sums_of_any_time_are_those_of_its_entries_and_stay_so_once_hours_are_summed_up(quiet: Project) -> None:
    rng = random.Random(1)  # noqa: S311  # the same each time
    other = quiet.api.post("agent-types", {"name": "Other"}).json["id"]
    agents = [quiet.born(), quiet.born(agent_type_id=other)]
    hour = NOW.replace(minute=0, second=0, microsecond=0) - timedelta(days=3)
    places = [hour, hour + timedelta(minutes=60), hour + timedelta(microseconds=1), hour - timedelta(microseconds=1)]
    places += [hour + timedelta(minutes=rng.uniform(-150, 150)) for _ in range(40)]
    entries = [
        {
            "report_id": str(number),
            "occurred_at": at.isoformat(),
            "model": rng.choice(["large", "small", None]),
            "cost": rng.choice([None, f"0.{rng.randrange(10**9):010}"]),
            **{f"{kind}_tokens": rng.randrange(100) for kind in ("input", "output", "cache_read", "cache_write")},
        }
        for number, at in enumerate(places)
    ]

    def compare() -> None:
        for since, until in ((None, None), *((rng.choice(places), rng.choice(places)) for _ in range(60))):
            with autocommit() as db:
                found = [usage.by(db, UUID(quiet.id), group, since, until) for group in ("agent", *BY_THE_HOUR)]
            by_agent, *others = ([sum(amounts) for amounts in list(zip(*rows, strict=True))[1:]] for rows in found)
            assert others == [by_agent] * len(others), (since, until)

    report(quiet, agents[0], *entries[::2])
    settle()
    compare()
    assert tasks.prune()["usage_hours_summed_up"] > 0
    report(quiet, agents[1], *entries[1::2])  # late
    settle()
    compare()
    assert violations() == {}
    assert tasks.prune()["usage_hours_summed_up"] > 0
    compare()
    assert violations() == {}
    assert {row.slot for row in sql("SELECT slot FROM usage_hours")} == {TOGETHER}
    assert tasks.prune()["usage_hours_summed_up"] == 0


@pytest.fixture
def spent(quiet: Project) -> Project:
    """A project whose two agents of two types used two models, and none, at two times of two days."""
    other = quiet.api.post("agent-types", {"name": "Other", "slug": "other"}).json["id"]
    for agent in (quiet.born(), quiet.born(agent_type_id=other)):
        for number, model in enumerate(["large", "small", None, "large"]):
            at = (NOW - timedelta(days=2)).replace(hour=number % 2, minute=30, second=0, microsecond=0)
            tokens = {"input_tokens": 1, "output_tokens": 2, "cache_read_tokens": 3, "cache_write_tokens": 4}
            entry = {"report_id": str(number), "model": model, "occurred_at": at.isoformat(), **tokens}
            report(quiet, agent, entry | {"cost": f"0.00000000{number}1", "tasks_completed": number})
    settle()
    return quiet


def test_usage_is_summed_by_model_with_every_kind_of_token(spent: Project) -> None:
    found = groups(spent)

    assert found == groups(spent, "group_by=model")
    assert found.keys() == {"large", "small", None}
    assert found["large"] == {
        "entries": 4,
        "input_tokens": 4,
        "output_tokens": 8,
        "cache_read_tokens": 12,
        "cache_write_tokens": 16,
        "tokens_used": 12,
        "cost_incurred": "0.0000000064",
        "tasks_completed": 6,
    }


def test_usage_is_summed_by_agent_type_hour_and_day(spent: Project) -> None:
    day = (NOW - timedelta(days=2)).date().isoformat()
    listed = spent.api.get(f"{spent.path}/agents").json["data"]

    assert groups(spent, "group_by=agent").keys() == {agent["id"] for agent in listed}
    assert groups(spent, "group_by=agent_type").keys() == {agent["agent_type_slug"] for agent in listed}
    assert list(groups(spent, "group_by=hour")) == [f"{day}T00:00:00Z", f"{day}T01:00:00Z"]
    assert list(groups(spent, "group_by=day")) == [day]


@pytest.mark.parametrize("group_by", ["model", "agent", "agent_type", "hour", "day"])
def test_the_sums_of_all_groups_equal_the_counters_to_the_last_digit(spent: Project, group_by: str) -> None:
    found = groups(spent, f"group_by={group_by}").values()

    counters = spent.api.get(f"{spent.path}/agents/metrics").json
    assert sum(Decimal(row["cost_incurred"]) for row in found) == Decimal(counters["total_cost_incurred"])
    assert sum(row["tokens_used"] for row in found) == counters["total_tokens_used"] == 24
    assert sum(row["tasks_completed"] for row in found) == counters["total_tasks_completed"] == 12


def test_uncounted_usage_is_not_in_the_sums_yet(quiet: Project) -> None:
    report(quiet, quiet.born(), WHOLE)

    assert groups(quiet) == {}


def test_a_period_includes_its_beginning_and_not_its_end(spent: Project) -> None:
    midnight = (NOW - timedelta(days=2)).replace(hour=0, minute=0, second=0, microsecond=0)
    half, hour = midnight + timedelta(minutes=30), midnight + timedelta(minutes=90)

    def entries(since: datetime | None, until: datetime | None) -> int:
        given = [f"{name}={quote(at.isoformat())}" for name, at in (("since", since), ("until", until)) if at]
        return sum(row["entries"] for row in groups(spent, "&".join(given)).values())

    assert (entries(half, None), entries(None, hour), entries(half, hour)) == (8, 4, 4)
    assert (entries(half + timedelta(microseconds=1), None), entries(None, half), entries(hour, half)) == (4, 0, 0)
    assert entries(None, hour + timedelta(microseconds=1)) == 8


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("group_by=mood", "group_by"),
        ("group_by=", "group_by"),
        ("since=yesterday", "since"),
        ("since=2026-01-01T00:00:00", "since"),
        ("until=", "until"),
        ("until=2026-01-01T00:00:00Z&until=2026-01-02T00:00:00Z", "until"),
    ],
)
def test_a_wrong_question_about_usage_is_refused_by_name(project: Project, query: str, field: str) -> None:
    answer = project.api.get(f"{project.path}/usage?{query}")

    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, field)
