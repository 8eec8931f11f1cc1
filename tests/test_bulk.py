"""Commands in bulk, as a list: each is accepted or refused by itself, all that are accepted at once."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from tests.stage import WAIT, Api, Project, eventually, is_problem, settle, sql, violations
from tests.surface import send
from web.body import BULK_BYTES

NOBODY = str(uuid4())


def bulk(project: Project, *items: Any, **headers: str) -> Any:
    """What a list of these items is answered."""
    return project.api.post(f"{project.path}/commands", {"commands": list(items)}, **headers)


def progress(project: Project, batch_id: str) -> dict[str, Any]:
    """How far a batch has come."""
    return project.api.get(f"{project.path}/batches/{batch_id}").json  # type: ignore[return-value]


def states(project: Project) -> list[tuple[str, str]]:
    """Verb and state of every command, in the order of their places."""
    return [(row.verb, row.state) for row in sql("SELECT verb, state FROM commands WHERE lane = 1 ORDER BY seq")]


def test_a_list_is_accepted_in_order_and_what_is_wrong_is_refused_alone(quiet: Project) -> None:
    one, two = quiet.born(), quiet.born()

    answer = bulk(
        quiet,
        {"verb": "pause", "agent_id": one, "reason": "tea", "owner": "kettle"},
        {"verb": "pause", "agent_id": NOBODY},
        {"verb": "update", "agent_id": two.upper(), "current_task": "dig"},
        {"verb": "dance", "agent_id": two},
        {"verb": "terminate", "agent_id": two},
    )

    told = answer.json
    assert (answer.status_code, told["accepted"], told["refused"]) == (202, 3, 2)
    assert [item["index"] for item in told["items"]] == [0, 1, 2, 3, 4]
    assert [item["agent_id"] for item in told["items"]] == [one, NOBODY, two, two, two]
    assert [(item["error"] or {}).get("code") for item in told["items"]] == [
        None, "not_found", None, "validation_error", None,
    ]  # fmt: skip
    assert [item["command_id"] is None for item in told["items"]] == [False, True, False, True, False]
    settle()
    assert states(quiet) == [("pause", "applied"), ("update", "applied"), ("terminate", "applied")]
    assert quiet.api.get(quiet.agent(one)).json["holds"][0]["reason"] == "tea"  # type: ignore[index]
    assert progress(quiet, told["batch_id"]) == {
        "id": told["batch_id"],
        "total": 3,
        "states": {"queued": 0, "applied": 3, "rejected": 0, "cancelled": 0, "dead": 0},
        "done": True,
    }
    assert violations() == {}


WRONG: list[tuple[str, Any, str, str | None]] = [
    ("no object", 7, "validation_error", None),
    ("null", None, "validation_error", None),
    ("no verb", {"agent_id": NOBODY}, "validation_error", "verb"),
    ("a verb that is a list", {"verb": ["pause"], "agent_id": NOBODY}, "validation_error", "verb"),
    ("the system's verb", {"verb": "settle", "agent_id": NOBODY}, "validation_error", "verb"),
    ("an event's verb", {"verb": "work", "agent_id": NOBODY}, "validation_error", "verb"),
    ("no agent", {"verb": "pause"}, "validation_error", "agent_id"),
    ("no id", {"verb": "pause", "agent_id": "7"}, "validation_error", "agent_id"),
    ("an agent for a spawn", {"verb": "spawn", "agent_id": NOBODY}, "validation_error", "agent_type_id"),
    ("an unknown field", {"verb": "pause", "agent_id": NOBODY, "colour": 1}, "validation_error", "colour"),
    ("another verb's field", {"verb": "resume", "agent_id": NOBODY, "until": None}, "validation_error", "until"),
    ("a long reason", {"verb": "pause", "agent_id": NOBODY, "reason": "x" * 501}, "validation_error", "reason"),
    ("an unknown agent", {"verb": "pause", "agent_id": NOBODY}, "not_found", None),
    ("an unknown type", {"verb": "spawn", "name": "a", "agent_type_id": NOBODY}, "not_found", "agent_type_id"),
]


@pytest.mark.parametrize(("item", "code", "field"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_an_item_that_is_wrong_says_what_and_where(quiet: Project, item: Any, code: str, field: str | None) -> None:
    told = bulk(quiet, item).json

    assert (told["accepted"], told["refused"]) == (0, 1)
    assert told["items"][0]["error"]["code"] == code
    assert told["items"][0]["error"]["field"] == field
    assert told["items"][0]["error"]["message"]
    assert sql("SELECT 1 FROM commands") == []
    assert progress(quiet, told["batch_id"])["done"]


def test_another_projects_agent_is_as_unknown_as_any(quiet: Project) -> None:
    theirs = Project.make(quiet.api, quiet.api.user())
    stranger = theirs.born()

    told = bulk(quiet, {"verb": "pause", "agent_id": stranger}, {"verb": "pause", "agent_id": NOBODY}).json

    messages = [item["error"]["message"].replace(stranger, "X").replace(NOBODY, "X") for item in told["items"]]
    assert messages[0] == messages[1]
    batch = bulk(theirs, {"verb": "pause", "agent_id": stranger}).json["batch_id"]
    assert is_problem(quiet.api.get(f"{quiet.path}/batches/{batch}"), 404, "not_found")


def test_a_pause_until_a_time_that_has_passed_is_refused_alone(quiet: Project) -> None:
    agent = quiet.born()

    told = bulk(
        quiet,
        {"verb": "pause", "agent_id": agent, "until": "2020-01-01T00:00:00Z"},
        {"verb": "pause", "agent_id": agent, "until": "2099-01-01T00:00:00Z"},
    ).json

    assert told["items"][0]["error"] == {
        "code": "validation_error", "message": "until: must lie in the future", "field": "until",
    }  # fmt: skip
    assert told["items"][1]["error"] is None


def test_spawns_in_bulk_are_born_and_follow_their_rules(quiet: Project) -> None:
    kind = quiet.type_id
    off = quiet.api.post("agent-types", {"name": uuid4().hex, "is_active": False}).json["id"]  # type: ignore[index]

    told = bulk(
        quiet,
        {"verb": "spawn", "agent_type_id": kind, "name": " a ", "short_term_memory": {"k": [1]}, "session_id": "s"},
        {"verb": "spawn", "agent_type_id": kind, "name": "b", "unique_name": True},
        {"verb": "spawn", "agent_type_id": kind, "name": "b", "unique_name": True},
        {"verb": "spawn", "agent_type_id": off, "name": "c"},
        {"verb": "spawn", "agent_type_id": kind, "name": "d", "project_id": NOBODY},
    ).json
    settle()

    errors = [item["error"] and (item["error"]["code"], item["error"]["field"]) for item in told["items"]]
    wrong = "validation_error"
    assert errors == [None, None, ("conflict", "name"), (wrong, "agent_type_id"), (wrong, "project_id")]
    born = quiet.api.get(quiet.agent(told["items"][0]["agent_id"])).json
    assert (born["name"], born["short_term_memory"], born["session_id"]) == ("a", {"k": [1]}, "s")  # type: ignore[index]
    again = bulk(quiet, {"verb": "spawn", "agent_type_id": kind, "name": "b", "unique_name": True}).json
    assert again["items"][0]["error"]["code"] == "conflict"
    quiet.api.patch(quiet.path, {"status": "archived"})
    closed = bulk(quiet, {"verb": "spawn", "agent_type_id": kind, "name": "e"}).json
    assert closed["items"][0]["error"]["code"] == "conflict"
    assert violations() == {}


@pytest.mark.parametrize("count", [0, 1001])
def test_a_list_of_a_wrong_size_is_refused_whole(quiet: Project, count: int) -> None:
    agent = quiet.born()

    answer = bulk(quiet, *[{"verb": "pause", "agent_id": agent}] * count)

    assert is_problem(answer, 422, "validation_error")
    assert answer.json["errors"][0]["field"] == "commands"
    assert sql("SELECT 1 FROM batches") == []


def test_a_list_over_its_bytes_is_refused_whole(quiet: Project) -> None:
    answer = send(quiet.api, "POST", f"/api/v1/{quiet.path}/commands", b" " * (BULK_BYTES + 1))

    assert is_problem(answer, 413, "payload_too_large")
    assert sql("SELECT 1 FROM batches") == []


def test_the_same_key_makes_one_batch_and_the_same_answer(quiet: Project) -> None:
    agent = quiet.born()
    items = ({"verb": "pause", "agent_id": agent}, {"verb": "pause", "agent_id": NOBODY})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: bulk(quiet, *items, Idempotency_Key="k"), range(8)))

    assert {answer.status_code for answer in answers} == {202}
    assert len({str(answer.json) for answer in answers}) == 1
    assert sum(answer.headers.get("Idempotency-Replayed") == "true" for answer in answers) == 7
    assert len(sql("SELECT 1 FROM batches")) == 1
    assert len(states(quiet)) == 1
    other = bulk(quiet, items[0], Idempotency_Key="k")
    assert is_problem(other, 422, "idempotency_key_reused")


def test_an_immediate_stop_in_bulk_ends_the_lease_at_its_acceptance(quiet: Project) -> None:
    agent, other = quiet.born(), quiet.born()
    epochs = {
        each: quiet.api.post(f"{quiet.agent(each)}/lease", {"holder": "host"}).json["epoch"]  # type: ignore[index]
        for each in (agent, other)
    }

    bulk(quiet, {"verb": "pause", "agent_id": agent, "mode": "immediate"}, {"verb": "pause", "agent_id": other})

    beat = quiet.api.post(f"{quiet.agent(agent)}/beat", {"epoch": epochs[agent]})
    assert is_problem(beat, 409, "fenced")
    told = quiet.api.post(f"{quiet.agent(other)}/beat", {"epoch": epochs[other]}).json
    assert told["directive"] == "pause"  # type: ignore[index]
    settle()
    assert quiet.api.get(quiet.agent(agent)).json["quiesced_by"] == "no_lease"  # type: ignore[index]
    assert violations() == {}


def test_a_list_rings_and_is_applied_by_a_worker(project: Project) -> None:
    agents = [project.spawn()["id"] for _ in range(3)]

    batch = bulk(project, *({"verb": "pause", "agent_id": agent} for agent in agents), **WAIT).json["batch_id"]

    eventually(lambda: progress(project, batch)["done"])
    assert {project.api.get(project.agent(agent)).json["status"] for agent in agents} == {"paused"}  # type: ignore[index]


def test_what_was_not_applied_of_a_batch_can_be_listed(quiet: Project) -> None:
    agent = quiet.born()
    batch = bulk(quiet, *[{"verb": "pause", "agent_id": agent}] * 3).json["batch_id"]
    settle()

    listed = quiet.api.get(f"{quiet.path}/commands?batch_id={batch}&state=rejected").json

    assert [command["error"]["code"] for command in listed["data"]] == ["invalid_transition"] * 2  # type: ignore[index]
    assert progress(quiet, batch)["states"] == {"queued": 0, "applied": 1, "rejected": 2, "cancelled": 0, "dead": 0}


def test_a_command_of_a_batch_can_be_taken_back(quiet: Project) -> None:
    agent = quiet.born()
    told = bulk(quiet, *[{"verb": "pause", "agent_id": agent}] * 2).json

    quiet.api.post(f"{quiet.path}/commands/{told['items'][0]['command_id']}/cancel")

    assert progress(quiet, told["batch_id"])["states"]["cancelled"] == 1
    assert not progress(quiet, told["batch_id"])["done"]


def test_a_stranger_finds_no_project_whatever_he_sends(quiet: Project) -> None:
    stranger: Api = quiet.api.user()

    for body in ({"commands": []}, {"commands": [{"verb": "pause", "agent_id": NOBODY}]}):
        assert is_problem(stranger.post(f"{quiet.path}/commands", body), 404, "not_found")
