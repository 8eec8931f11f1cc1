"""The nine endpoints: spawn, read, change, pause, resume and terminate, each from each status."""

from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any
from uuid import uuid4

import pytest

from orchestrator.lifecycle import Status
from tests.stage import WAIT, Api, Project, sql

STATUSES = [status.value for status in Status]
LIVING = STATUSES[:-1]

ALLOWED = {
    "idle": ["working", "paused", "terminated"],
    "working": ["idle", "waiting", "paused", "terminated"],
    "waiting": ["idle", "working", "paused", "terminated"],
    "paused": ["idle", "terminated"],
    "terminated": [],
}
"""The contract's table, by from-status: what can be reached, in the order of statuses."""

EVENTS = {
    ("idle", "working"): "work",
    ("waiting", "working"): "work",
    ("working", "waiting"): "wait",
    ("working", "idle"): "rest",
    ("waiting", "idle"): "rest",
    ("paused", "idle"): "resume",
}
"""What the event is called; a move to paused or terminated is called after its verb."""

FIELDS = {
    "current_task": "count sheep",
    "short_term_memory": {"sheep": [1, 2, {"black": None}], "ß": "☃"},
    "long_term_memory_ref": "s3://memory/1",
    "session_id": "session-1",
}


def events(project: Project, agent_id: str) -> list[dict[str, Any]]:
    """The agent's history, oldest first."""
    return project.api.get(f"{project.agent(agent_id)}/events?limit=100").json["data"]


def patch(project: Project, agent_id: str, **body: Any) -> Any:
    """A PATCH that is waited for."""
    return project.api.patch(project.agent(agent_id), body, **WAIT)


def test_a_spawned_agent_has_every_field_of_the_contract_and_no_other(project: Project) -> None:
    shown = project.spawn(name="scout")

    parent = project.api.get(project.path).json
    kind = project.api.get(f"agent-types/{project.type_id}").json
    made = {name: shown.pop(name) for name in ("id", "created_at", "updated_at")}
    assert made["created_at"] == project.api.get(project.agent(made["id"])).json["created_at"]
    assert shown == {
        "agent_type_id": project.type_id,
        "agent_type_name": kind["name"],
        "agent_type_slug": kind["slug"],
        "assigned_issues_count": 0,
        "cost_incurred": "0",
        "current_task": None,
        "holds": [],
        "last_activity_at": None,
        "long_term_memory_ref": None,
        "name": "scout",
        "project_id": project.id,
        "project_name": parent["name"],
        "project_slug": parent["slug"],
        "quiesced_at": None,
        "quiesced_by": None,
        "session_id": None,
        "short_term_memory": {},
        "status": "idle",
        "tasks_completed": 0,
        "terminated_at": None,
        "tokens_used": 0,
        "version": 1,
    }


def test_a_spawn_that_is_waited_for_says_where_the_agent_is(project: Project) -> None:
    wanted = {"agent_type_id": project.type_id, "name": "scout"}

    answer = project.api.post(f"{project.path}/agents", wanted, **WAIT)

    address = answer.headers["Location"]
    assert (answer.status_code, address) == (201, f"/api/v1/{project.agent(answer.json['id'])}")
    assert project.api.get(address).json == answer.json
    assert answer.headers["ETag"] == '"1"'


def test_what_is_given_at_birth_is_shown_and_is_the_events_change(project: Project) -> None:
    shown = project.spawn(**FIELDS, project_id=project.id, reason="a test", name="  scout\n")

    event = events(project, shown["id"])[0]
    assert {name: shown[name] for name in FIELDS} == FIELDS
    assert (shown["name"], event["reason"], event["verb"]) == ("scout", "a test", "spawn")
    assert event["changes"] == {**FIELDS, "name": "scout", "agent_type_id": project.type_id}


def test_nulls_at_birth_are_the_same_as_nothing(project: Project) -> None:
    shown = project.spawn(**dict.fromkeys(FIELDS), project_id=None, reason=None)

    assert {name: shown[name] for name in FIELDS} == {**dict.fromkeys(FIELDS), "short_term_memory": {}}


def test_names_need_not_be_unique(project: Project) -> None:
    first, second = project.spawn(name="twin"), project.spawn(name="twin")

    assert first["id"] != second["id"]


def test_a_unique_name_is_refused_while_a_live_agent_has_it(project: Project) -> None:
    holder = project.spawn(name="one")

    refused = project.api.post(
        f"{project.path}/agents", {"agent_type_id": project.type_id, "name": " one ", "unique_name": True}
    )
    project.api.delete(project.agent(holder["id"]), **WAIT)
    heir = project.spawn(name="one", unique_name=True)

    assert (refused.status_code, refused.json["errors"][0]["code"]) == (409, "conflict")
    assert refused.json["agent_id"] == holder["id"]
    assert heir["id"] != holder["id"]


def test_an_unborn_agent_holds_its_unique_name_already(quiet: Project) -> None:
    first = quiet.spawn(wait=False, name="one", unique_name=True)

    second = quiet.api.post(
        f"{quiet.path}/agents", {"agent_type_id": quiet.type_id, "name": "one", "unique_name": True}
    )

    assert (second.status_code, second.json["agent_id"]) == (409, first["agent_id"])


def test_of_many_spawns_at_once_one_gets_a_unique_name(project: Project) -> None:
    wanted = {"agent_type_id": project.type_id, "name": "one", "unique_name": True}

    def spawn(_: int) -> int:
        own = Api(project.api.client.application.test_client(), project.api.key)
        return own.post(f"{project.path}/agents", wanted).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(spawn, range(8)))

    assert statuses == [202] + [409] * 7


@pytest.mark.parametrize(("retries", "headers"), [(20, {}), (50, WAIT)], ids=["not waiting", "waiting"])
def test_parallel_retries_with_one_key_make_one_agent(project: Project, retries: int, headers: dict[str, str]) -> None:
    wanted, key = {"agent_type_id": project.type_id, "name": "scout"}, uuid4().hex

    def spawn(_: int) -> str:
        own = Api(project.api.client.application.test_client(), project.api.key)
        answer = own.post(f"{project.path}/agents", wanted, Idempotency_Key=key, **headers)
        assert answer.status_code in (201, 202), answer.json
        return answer.json.get("agent_id") or answer.json["id"]

    with ThreadPoolExecutor(16) as pool:
        born = set(pool.map(spawn, range(retries)))

    assert len(born) == 1
    assert sql("SELECT count(*) FROM agents WHERE project_id = :id", id=project.id) == [(1,)]
    assert sql("SELECT count(*) FROM commands WHERE project_id = :id", id=project.id) == [(1,)]


def test_a_spawn_of_an_unknown_type_is_a_404_that_names_it(project: Project) -> None:
    unknown = str(uuid4())

    answer = project.api.post(f"{project.path}/agents", {"agent_type_id": unknown, "name": "scout"})

    error = answer.json["errors"][0]
    assert (answer.status_code, error["code"], error["field"]) == (404, "not_found", "agent_type_id")
    assert unknown in error["message"]


def test_a_spawn_of_an_inactive_type_is_a_422_that_names_it(project: Project) -> None:
    kind = project.api.patch(f"agent-types/{project.type_id}", {"is_active": False}).json

    answer = project.api.post(f"{project.path}/agents", {"agent_type_id": project.type_id, "name": "scout"})

    error = answer.json["errors"][0]
    assert (answer.status_code, error["code"], error["field"]) == (422, "validation_error", "agent_type_id")
    assert kind["name"] in error["message"]


def test_an_archived_project_refuses_spawns_and_nothing_else(project: Project) -> None:
    agent = project.spawn()["id"]
    project.api.patch(project.path, {"status": "archived"})

    spawn = project.api.post(f"{project.path}/agents", {"agent_type_id": project.type_id, "name": "scout"})
    pause = project.api.post(f"{project.agent(agent)}/pause", **WAIT)
    usage = project.api.post(f"{project.agent(agent)}/usage", {"entries": [{"report_id": "1"}]})
    project.api.patch(project.path, {"status": "active"})

    assert (spawn.status_code, spawn.json["errors"][0]["code"]) == (409, "conflict")
    assert (pause.status_code, pause.json["status"], usage.status_code) == (200, "paused", 202)
    assert project.spawn()["status"] == "idle"


def test_a_spawn_for_another_project_than_the_addresss_is_refused(project: Project) -> None:
    wanted = {"agent_type_id": project.type_id, "name": "scout", "project_id": str(uuid4())}

    answer = project.api.post(f"{project.path}/agents", wanted)

    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, "project_id")


@pytest.mark.parametrize(
    "name", ["🦄 scout", "a/b?c=d&e#f", "'; DROP TABLE agents; --", "%_\\", "\u200b", "null", "x" * 100]
)
def test_a_name_is_kept_as_it_is(project: Project, name: str) -> None:
    shown = project.spawn(name=name)

    ended = project.api.delete(project.agent(shown["id"]), **WAIT)

    assert shown["name"] == name
    assert ended.json == {"success": True, "message": f"Agent '{name}' has been terminated"}


@pytest.mark.parametrize(("before", "after"), [pair for pair in product(LIVING, STATUSES) if pair[0] != pair[1]])
def test_a_patch_moves_an_agent_exactly_where_the_table_says(project: Project, before: str, after: str) -> None:
    agent = project.in_status(before)
    was = project.api.get(project.agent(agent)).json

    answer = patch(project, agent, status=after)

    now = project.api.get(project.agent(agent)).json
    if after in ALLOWED[before]:
        last = events(project, agent)[-1]
        verb = {"paused": "pause", "terminated": "terminate"}.get(after) or EVENTS[before, after]
        assert (answer.status_code, answer.json, now["status"]) == (200, now, after)
        assert (now["version"], last["version"]) == (was["version"] + 1,) * 2
        assert (last["verb"], last["before"], last["after"], last["at"]) == (verb, before, after, now["updated_at"])
        assert now["last_activity_at"] == now["updated_at"] > was["updated_at"]
    else:
        assert_refused(answer, before)
        assert now == was


@pytest.mark.parametrize("status", LIVING)
def test_a_patch_to_the_same_status_succeeds_and_changes_nothing(project: Project, status: str) -> None:
    agent = project.in_status(status)
    was = project.api.get(project.agent(agent)).json

    answer = patch(project, agent, status=status, name=was["name"], reason="nothing")

    assert (answer.status_code, answer.json) == (200, was)
    assert len(events(project, agent)) == was["version"]


@pytest.mark.parametrize(
    "body", [{}, {"reason": "why"}, {"name": "x"}, *({"status": status} for status in STATUSES)], ids=str
)
def test_a_terminated_agent_accepts_no_patch_at_all(project: Project, body: dict[str, Any]) -> None:
    agent = project.in_status("terminated")
    was = project.api.get(project.agent(agent)).json

    answer = patch(project, agent, **body)

    assert_refused(answer, "terminated")
    assert project.api.get(project.agent(agent)).json == was


@pytest.mark.parametrize("body", [{}, {"reason": "only words"}], ids=["empty", "reason"])
def test_a_patch_that_names_no_field_succeeds_without_an_event(project: Project, body: dict[str, Any]) -> None:
    was = project.spawn()

    answer = patch(project, was["id"], **body)

    assert (answer.status_code, answer.json) == (200, was)
    assert len(events(project, was["id"])) == 1


@pytest.mark.parametrize(("before", "verb"), [*product(STATUSES, ["pause", "resume", "terminate"])])
def test_a_verb_moves_an_agent_or_is_refused_with_what_is_possible(project: Project, before: str, verb: str) -> None:
    agent = project.in_status(before, **FIELDS)
    was = project.api.get(project.agent(agent)).json
    possible = {"pause": ("idle", "working", "waiting"), "resume": ("paused",), "terminate": LIVING}[verb]
    after = {"pause": "paused", "resume": "idle", "terminate": "terminated"}[verb]
    method, path = ("DELETE", "") if verb == "terminate" else ("POST", f"/{verb}")

    answer = project.api(method, project.agent(agent) + path, **WAIT)

    now = project.api.get(project.agent(agent)).json
    if before in possible:
        last = events(project, agent)[-1]
        assert (answer.status_code, now["status"], now["version"]) == (200, after, was["version"] + 1)
        assert (last["verb"], last["before"], last["after"]) == (verb, before, after)
        assert now["last_activity_at"] == now["updated_at"] == last["at"]
    else:
        assert_refused(answer, before)
        assert now == was


def assert_refused(answer: Any, status: str) -> None:
    """The answer is the refusal of a move from `status`."""
    error = answer.json["errors"][0]
    assert (answer.status_code, error["code"], error["field"]) == (409, "invalid_transition", "status")
    assert (answer.json["current_status"], answer.json["allowed"]) == (status, ALLOWED[status])
    assert status in error["message"]
    assert answer.json["command_id"]


def test_a_refused_transition_names_both_states(project: Project) -> None:
    agent = project.in_status("paused")

    answer = patch(project, agent, status="waiting")

    message = answer.json["errors"][0]["message"]
    assert "paused" in message
    assert "waiting" in message


def test_pause_and_resume_answer_the_agent_with_its_etag(project: Project) -> None:
    agent = project.spawn()["id"]

    paused = project.api.post(f"{project.agent(agent)}/pause", {"reason": "tea"}, **WAIT)
    resumed = project.api.post(f"{project.agent(agent)}/resume", {}, **WAIT)

    assert (paused.json["status"], paused.headers["ETag"]) == ("paused", '"2"')
    assert (resumed.json["status"], resumed.headers["ETag"]) == ("idle", '"3"')
    assert [event["reason"] for event in events(project, agent)] == [None, "tea", None]


@pytest.mark.parametrize("door", ["DELETE", "PATCH"])
def test_a_terminated_agent_loses_task_and_session_and_keeps_the_rest(project: Project, door: str) -> None:
    agent = project.spawn(**FIELDS)["id"]
    usage = {"entries": [{"report_id": "1", "input_tokens": 5, "cost": "0.5", "tasks_completed": 2}]}
    project.api.post(f"{project.agent(agent)}/usage", usage, **WAIT)
    issue = project.api.post(f"{project.path}/issues", {"title": "bug", "assigned_agent_id": agent}).json

    project.api(door, project.agent(agent), {"status": "terminated"} if door == "PATCH" else None, **WAIT)

    now = project.api.get(project.agent(agent)).json
    assert (now["current_task"], now["session_id"]) == (None, None)
    assert now["terminated_at"] == now["updated_at"] == now["last_activity_at"]
    assert (now["tokens_used"], now["cost_incurred"], now["tasks_completed"]) == (5, "0.5", 2)
    assert now["short_term_memory"] == FIELDS["short_term_memory"]
    assert now["long_term_memory_ref"] == FIELDS["long_term_memory_ref"]
    assert project.api.get(f"{project.path}/issues/{issue['id']}").json["assigned_agent_id"] == agent
    assert events(project, agent)[-1]["changes"] == {"current_task": None, "session_id": None}


def test_with_a_status_of_terminated_the_clearing_wins(project: Project) -> None:
    agent = project.spawn()["id"]

    answer = patch(project, agent, status="terminated", current_task="more", session_id="s", name="last")

    shown = {name: answer.json[name] for name in ("status", "current_task", "session_id", "name")}
    assert shown == {"status": "terminated", "current_task": None, "session_id": None, "name": "last"}


def test_termination_unassigns_nothing(project: Project) -> None:
    agent = project.spawn()["id"]
    project.api.post(f"{project.path}/issues", {"title": "bug", "assigned_agent_id": agent})
    project.api.post(f"{project.path}/issues", {"title": "done", "status": "closed", "assigned_agent_id": agent})

    project.api.delete(project.agent(agent), **WAIT)

    assert project.api.get(project.agent(agent)).json["assigned_issues_count"] == 2


@pytest.mark.parametrize("status", LIVING)
def test_fields_can_be_changed_in_any_living_status_without_touching_activity(project: Project, status: str) -> None:
    agent = project.in_status(status)
    was = project.api.get(project.agent(agent)).json

    answer = patch(project, agent, name=" renamed ", **FIELDS)

    event = events(project, agent)[-1]
    assert {name: answer.json[name] for name in FIELDS} == FIELDS
    assert (answer.json["name"], answer.json["status"]) == ("renamed", status)
    assert answer.json["last_activity_at"] == was["last_activity_at"]
    assert answer.json["updated_at"] > was["updated_at"]
    assert (event["verb"], event["before"], event["after"]) == ("update", status, status)
    assert event["changes"] == {"name": "renamed", **FIELDS}


def test_memory_is_replaced_and_never_merged(project: Project) -> None:
    agent = project.spawn(short_term_memory={"a": 1, "b": {"c": 2}})["id"]

    answer = patch(project, agent, short_term_memory={"b": {"d": 3}})

    assert answer.json["short_term_memory"] == {"b": {"d": 3}}


@pytest.mark.parametrize("field", FIELDS)
def test_null_clears_one_field_and_leaves_the_others(project: Project, field: str) -> None:
    agent = project.spawn(**FIELDS)["id"]

    answer = patch(project, agent, **{field: None})

    left = FIELDS | {field: {} if field == "short_term_memory" else None}
    assert {name: answer.json[name] for name in FIELDS} == left


@pytest.mark.parametrize("field", ["status", "name"])
def test_null_is_refused_where_there_must_be_a_value(project: Project, field: str) -> None:
    agent = project.spawn()["id"]

    answer = patch(project, agent, **{field: None})

    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, field)


def test_status_and_fields_change_together(project: Project) -> None:
    agent = project.spawn()["id"]

    answer = patch(project, agent, status="working", current_task="sheep", reason="go")

    event = events(project, agent)[-1]
    assert (answer.json["status"], answer.json["current_task"], answer.json["version"]) == ("working", "sheep", 2)
    assert (event["verb"], event["changes"], event["reason"]) == ("work", {"current_task": "sheep"}, "go")


def test_fields_do_not_change_when_the_status_is_refused(project: Project) -> None:
    agent = project.in_status("paused")
    was = project.api.get(project.agent(agent)).json

    answer = patch(project, agent, status="working", current_task="sheep", name="other")

    assert_refused(answer, "paused")
    assert project.api.get(project.agent(agent)).json == was


def test_an_event_tells_who_did_it_by_which_command(project: Project) -> None:
    agent = project.spawn()["id"]
    me = project.api.get("me").json["user"]["id"]

    command = project.send(agent, "update", name="other", reason="  because ")
    project.command(command["id"], **WAIT)

    event = events(project, agent)[-1]
    assert (event["command_id"], event["agent_id"]) == (command["id"], agent)
    assert (event["actor"], event["reason"]) == ({"type": "user", "id": me}, "because")


@pytest.mark.parametrize("body", [None, {"reason": "in the body"}], ids=["header", "body"])
def test_the_reason_of_a_termination_comes_in_body_or_header(project: Project, body: Any) -> None:
    agent = project.spawn()["id"]

    project.api.delete(project.agent(agent), body, X_Reason="in the header", **WAIT)

    assert events(project, agent)[-1]["reason"] == ("in the body" if body else "in the header")


def test_a_verb_is_accepted_whatever_the_agents_state(project: Project) -> None:
    agent = project.in_status("terminated")

    answer = project.api.post(f"{project.agent(agent)}/resume")

    closed = project.command(answer.json["id"], **WAIT)
    assert answer.status_code == 202
    assert (closed["state"], closed["error"]["code"], closed["error"]["field"]) == (
        "rejected",
        "invalid_transition",
        "status",
    )


def test_commands_are_applied_in_the_order_in_which_they_were_answered(project: Project) -> None:
    agent = project.spawn(wait=False)["agent_id"]

    for verb in ["pause", "resume"] * 5:
        last = project.send(agent, verb)

    closed = project.command(last["id"], **WAIT)
    assert (closed["state"], closed["version"]) == ("applied", 11)
    assert [e["verb"] for e in events(project, agent)] == ["spawn", *["pause", "resume"] * 5]


def test_if_match_is_compared_when_the_command_is_applied(project: Project) -> None:
    agent = project.spawn()["id"]

    fits = project.api.patch(project.agent(agent), {"name": "b"}, If_Match='"1"', **WAIT)
    late = project.api.patch(project.agent(agent), {"name": "c"}, If_Match='"1"', **WAIT)
    unwatched = project.api.post(f"{project.agent(agent)}/pause", If_Match='"1"')

    assert (fits.status_code, fits.headers["ETag"]) == (200, '"2"')
    assert (late.status_code, late.json["errors"][0]["code"]) == (412, "precondition_failed")
    assert unwatched.status_code == 202
    assert project.command(unwatched.json["id"], **WAIT)["error"]["code"] == "precondition_failed"
    assert project.api.get(project.agent(agent)).json["name"] == "b"


def test_usage_does_not_change_the_etag(project: Project) -> None:
    agent = project.spawn()["id"]

    project.api.post(f"{project.agent(agent)}/usage", {"entries": [{"report_id": "1", "input_tokens": 1}]}, **WAIT)

    answer = project.api.get(project.agent(agent))
    assert (answer.headers["ETag"], answer.json["tokens_used"]) == ('"1"', 1)


def test_times_are_utc_in_rfc_3339(project: Project) -> None:
    agent = project.in_status("terminated")

    shown = project.api.get(project.agent(agent)).json

    for name in ("created_at", "updated_at", "last_activity_at", "terminated_at"):
        assert shown[name][10] == "T"
        assert shown[name].endswith("Z")
