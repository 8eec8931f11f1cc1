"""Commands in bulk, by filter: one for each living agent that matches, all or none."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest

from orchestrator import db
from tests.stage import Project, fields, is_problem, peers, settle, sql, statements, violations
from tests.test_bulk import progress

MANY = 2_000


def by_filter(project: Project, **body: Any) -> Any:
    """What a command by filter is answered; a pause of all, where nothing else is said."""
    headers = body.pop("headers", {})
    return project.api.post(f"{project.path}/commands/by-filter", {"verb": "pause", "filter": {}} | body, **headers)


@pytest.fixture
def fleet(quiet: Project) -> dict[str, str]:
    """One agent in each status, named after it, another type's, and an unborn one; their ids by name."""
    other = Project(quiet.api, quiet.id, Project.make(quiet.api).type_id)
    ids = {name: quiet.born(name=name) for name in ("idle", "working", "waiting", "paused", "terminated")}
    ids["other"] = other.born(name="other")
    for name in ("working", "waiting"):
        quiet.send(ids[name], "update", status="working")
    quiet.send(ids["waiting"], "update", status="waiting")
    quiet.send(ids["paused"], "pause")
    quiet.send(ids["terminated"], "terminate")
    settle()
    ids["unborn"] = quiet.spawn(wait=False, name="unborn")["agent_id"]
    ids["type"] = other.type_id
    return ids


FILTERS: list[tuple[dict[str, str], set[str]]] = [
    ({}, {"idle", "working", "waiting", "paused", "other"}),
    ({"status": "working"}, {"working"}),
    ({"status": "terminated"}, set()),
    ({"q": "w"}, {"working", "waiting"}),
    ({"q": "w", "status": "waiting"}, {"waiting"}),
    ({"q": "%"}, set()),
    ({"type": "TYPE"}, {"other"}),
    ({"type": "none-such"}, set()),
]


@pytest.mark.parametrize(("which", "names"), FILTERS, ids=[str(row[0]) for row in FILTERS])
def test_each_living_agent_that_matches_gets_one_command(
    quiet: Project, fleet: dict[str, str], which: dict[str, str], names: set[str]
) -> None:
    which = {name: fleet["type"] if value == "TYPE" else value for name, value in which.items()}

    counted = by_filter(quiet, filter=which, dry_run=True)
    sent = by_filter(quiet, filter=which, reason="night", expect_count=len(names))

    assert (counted.status_code, counted.json) == (200, {"count": len(names)})
    assert (sent.status_code, sent.json["count"]) == (202, len(names))
    found = sql("SELECT agent_id, verb, reason, lane FROM commands WHERE batch_id = :b", b=sent.json["batch_id"])
    assert {str(row.agent_id) for row in found} == {fleet[name] for name in names}
    assert {(row.verb, row.reason, row.lane) for row in found} <= {("pause", "night", 1)}
    settle()
    assert progress(quiet, sent.json["batch_id"])["total"] == len(names)
    assert violations() == {}


def test_another_count_than_expected_sends_nothing(quiet: Project, fleet: dict[str, str]) -> None:
    answer = by_filter(quiet, expect_count=4, headers={"Idempotency_Key": "k"})

    assert is_problem(answer, 409, "conflict")
    assert "5 agents match, not 4" in answer.json["detail"]
    one = by_filter(quiet, filter={"q": min(fleet)}, expect_count=4)
    assert "1 agent matches, not 4" in one.json["detail"]
    assert sql("SELECT 1 FROM batches") == []
    assert sql("SELECT 1 FROM commands WHERE lane = 1") == []
    assert by_filter(quiet, expect_count=5, headers={"Idempotency_Key": "k"}).json["count"] == 5, "the key is free"


def test_terminate_demands_a_count_but_not_to_count(quiet: Project, fleet: dict[str, str]) -> None:
    answer = by_filter(quiet, verb="terminate")

    assert is_problem(answer, 422, "validation_error")
    assert fields(answer) == ["expect_count"]
    assert by_filter(quiet, verb="terminate", dry_run=True).json == {"count": 5}
    assert by_filter(quiet, verb="terminate", expect_count=5).status_code == 202
    settle()
    assert {row.status for row in sql("SELECT status FROM agents WHERE status IS NOT NULL")} == {"terminated", "idle"}


def test_of_a_batch_are_those_that_it_was_applied_to(quiet: Project, fleet: dict[str, str]) -> None:
    paused = by_filter(quiet, reason="by mistake").json["batch_id"]
    queued = by_filter(quiet, verb="resume", filter={"batch": paused}, dry_run=True)
    settle()
    stranger = Project.make(quiet.api)

    assert queued.json == {"count": 0}, "as long as it is not applied"
    for project, which, count in (
        (quiet, {"batch": paused}, 4),
        (quiet, {"batch": paused.upper(), "q": "w"}, 2),
        (quiet, {"batch": str(uuid4())}, 0),
        (stranger, {"batch": paused}, 0),
    ):
        assert by_filter(project, verb="resume", filter=which, dry_run=True).json == {"count": count}, which
    undone = by_filter(quiet, verb="resume", filter={"batch": paused}, expect_count=4).json
    settle()

    resumed = sql("SELECT agent_id FROM commands WHERE batch_id = :b AND state = 'applied'", b=undone["batch_id"])
    assert {str(row.agent_id) for row in resumed} == {fleet[name] for name in ("idle", "working", "waiting", "other")}


def test_so_are_those_of_a_list(quiet: Project) -> None:
    agents = [quiet.born() for _ in range(3)]
    items = [{"verb": "pause", "agent_id": agent} for agent in agents[:2]]
    sent = quiet.api.post(f"{quiet.path}/commands", {"commands": items}).json
    settle()

    found = by_filter(quiet, verb="resume", filter={"batch": sent["batch_id"]}, dry_run=True)

    assert found.json == {"count": 2}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"verb": "spawn"}, "verb"),
    ({"verb": "update"}, "verb"),
    ({"verb": None}, "verb"),
    ({"filter": None}, "filter"),
    ({"filter": {"name": "x"}}, "filter.name"),
    ({"filter": {"status": "asleep"}}, "filter.status"),
    ({"filter": {"q": ""}}, "filter.q"),
    ({"filter": {"type": ""}}, "filter.type"),
    ({"filter": {"batch": "newest"}}, "filter.batch"),
    ({"filter": {"batch": None}}, "filter.batch"),
    ({"filter": {"status": None}}, "filter.status"),
    ({"filter": {"type": None}}, "filter.type"),
    ({"filter": {"q": None}}, "filter.q"),
    ({"expect_count": -1}, "expect_count"),
    ({"expect_count": "1"}, "expect_count"),
    ({"dry_run": 1}, "dry_run"),
    ({"reason": "x" * 501}, "reason"),
    ({"verb": "resume", "until": "2099-01-01T00:00:00Z"}, "until"),
    ({"until": "2020-01-01T00:00:00Z"}, "until"),
    ({"mode": "soon"}, "mode"),
    ({"agents": []}, "agents"),
]


@pytest.mark.parametrize(("body", "field"), WRONG, ids=[str(row[0]) for row in WRONG])
def test_what_is_wrong_is_named_and_nothing_is_sent(quiet: Project, body: dict[str, Any], field: str) -> None:
    quiet.born()

    answer = by_filter(quiet, **body)

    assert is_problem(answer, 422, "validation_error")
    assert fields(answer) == [field]
    assert sql("SELECT 1 FROM batches") == []


def test_what_the_verb_takes_is_taken_for_each(quiet: Project) -> None:
    agent = quiet.born()

    by_filter(quiet, owner="night-shift", until="2099-01-01T00:00:00Z", reason="cheap hours are over")
    settle()

    (hold,) = quiet.api.get(quiet.agent(agent)).json["holds"]  # type: ignore[index]
    assert (hold["owner"], hold["reason"], hold["until"][:4]) == ("night-shift", "cheap hours are over", "2099")


def test_a_pause_by_filter_without_end_may_say_so(quiet: Project) -> None:
    agent = quiet.born()

    assert by_filter(quiet, until=None, reason=None).status_code == 202

    settle()
    (hold,) = quiet.api.get(quiet.agent(agent)).json["holds"]  # type: ignore[index]
    assert hold["until"] is None


def test_an_immediate_stop_by_filter_ends_all_leases_at_its_acceptance(quiet: Project) -> None:
    agents = [quiet.born() for _ in range(3)]
    for agent in agents[:2]:
        quiet.api.post(f"{quiet.agent(agent)}/lease", {"holder": "host"})

    by_filter(quiet, mode="immediate")

    for agent in agents[:2]:
        assert is_problem(quiet.api.post(f"{quiet.agent(agent)}/beat", {"epoch": 1}), 409, "fenced")
    settle()
    assert {row.quiesced_by for row in sql("SELECT quiesced_by FROM agents")} == {"no_lease"}
    assert violations() == {}


def test_the_same_key_makes_one_batch(quiet: Project) -> None:
    quiet.born()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: by_filter(quiet, headers={"Idempotency_Key": "k"}), range(8)))

    assert {answer.status_code for answer in answers} == {202}
    assert len({str(answer.json) for answer in answers}) == 1
    assert len(sql("SELECT 1 FROM commands WHERE lane = 1")) == 1
    assert is_problem(by_filter(quiet, verb="resume", headers={"Idempotency_Key": "k"}), 422, "idempotency_key_reused")


def test_a_repeated_request_may_have_counted_anew(quiet: Project) -> None:
    quiet.born()
    repeat = {"verb": "terminate", "headers": {"Idempotency_Key": "k"}}
    first = by_filter(quiet, expect_count=1, **repeat)
    settle()

    again = by_filter(quiet, expect_count=by_filter(quiet, dry_run=True).json["count"], **repeat)

    assert (again.status_code, again.json) == (202, first.json)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(sql("SELECT 1 FROM commands WHERE lane = 1")) == 1


@pytest.mark.usefixtures("known")
def test_however_many_match_they_are_accepted_in_one_statement(quiet: Project) -> None:
    peers(quiet.born(), MANY - 1)

    with statements() as done:
        answer = by_filter(quiet)

    assert answer.json["count"] == MANY
    assert [tag for tag in done if tag.startswith("SELECT")] == ["SELECT 1"] * 3, "the project, the turn, and all"
    ids = [row.id for row in sql("SELECT id FROM commands WHERE lane = 1")]
    assert {(id_.version, id_.variant) for id_ in ids} == {(7, uuid4().variant)}
    settle()
    assert progress(quiet, answer.json["batch_id"])["states"]["applied"] == MANY
    assert violations() == {}


@pytest.fixture
def slow() -> Iterator[None]:
    """A database that takes a second to accept commands, and doors that wait for less than that."""
    sql("CREATE FUNCTION doze() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1); RETURN NULL; END $$")
    sql("CREATE TRIGGER doze AFTER INSERT ON commands FOR EACH STATEMENT EXECUTE FUNCTION doze()")
    yield
    sql("DROP TRIGGER doze ON commands")
    sql("DROP FUNCTION doze")


def test_those_that_are_many_may_take_longer_than_anything_else(
    quiet: Project, fleet: dict[str, str], slow: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    del slow
    monkeypatch.setattr(db, "ANSWER_SECONDS", 0.5)

    many = by_filter(quiet, verb="pause", filter={})
    one = quiet.api.post(f"{quiet.agent(fleet['idle'])}/pause", {})

    assert many.status_code == 202
    assert is_problem(one, 503, "unavailable"), "one connection serves both"


def test_an_unknown_batch_is_a_404(quiet: Project) -> None:
    assert is_problem(quiet.api.get(f"{quiet.path}/batches/{UUID(int=7)}"), 404, "not_found")
    assert is_problem(quiet.api.get(f"{quiet.path}/batches/7"), 404, "not_found")
