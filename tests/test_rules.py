"""Every rule about a value: the last one that is accepted and the first one that is refused, by field."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from flask_openapi3 import OpenAPI

from tests.stage import drain, fields, is_problem, sql
from tests.surface import EXAMPLES, WITH_BODY, Scene, routes

MEMORY_BYTES = 16 * 1024


def memory(size: int, filling: str = "x") -> dict[str, str]:
    """An object of so many bytes as compact UTF-8."""
    return {"a": filling * ((size - len('{"a":""}')) // len(filling.encode()))}


def ago(**span: float) -> Callable[[], str]:
    """A time so long before the moment it is asked for."""

    def then() -> str:
        return (datetime.now(UTC) - timedelta(**span)).isoformat()

    return then


def now(value: Any) -> Any:
    """The value itself, or what it is at this moment."""
    return value() if callable(value) else value


def lengths(most: int, least: int = 0) -> tuple[list[Any], list[Any]]:
    """Texts at the edges of these lengths, in code points after trimming, and one step beyond."""
    good = [
        "x" * least,
        "x" * most,
        "🦄" * most,
        "é" * most,
        "e\u0301" * (most // 2),
        f" \n\t\u3000{'x' * most}\u00a0 ",
    ]
    bad = ["x" * (most + 1), "🦄" * (most + 1)]
    return good, bad + (["", "   ", "\u3000"] if least else [])


CONTROL = ["a\nb", "a\tb", "a\x1bb", "a\x7fb", "a\x85b", "a\u2028b", "\x1f"]
NAME = (lengths(100, 1)[0] + ["null", "a/b", "\u200b", "a\\u0000"], lengths(100, 1)[1] + CONTROL)
TASK, REFERENCE, SESSION, REASON = lengths(2000), lengths(500), lengths(255), lengths(500)
SWELLING = [{"a": [1e308] * 60}, {"a": {"b": [-1e-300] * 60}}]
"""Short as they are sent; the database writes each of these numbers with 300 digits."""

MEMORY = (
    [{}, memory(MEMORY_BYTES), memory(MEMORY_BYTES, "ß"), {"a": [1, 1.5, None, True, {"": ""}]}, {"é": 2**70}],
    [memory(MEMORY_BYTES + 1), memory(MEMORY_BYTES + 2, "ß"), [], "{}", 1, *SWELLING],
)
STATUS = (["working", "waiting", "idle", "paused", "terminated"], ["", "Idle", "idle ", "sleeping", None, 1])
TOKENS = ([0, 1, 10**12], [-1, 10**12 + 1, 1.5, "1", True])
COST = (
    [
        0,
        1,
        0.1,
        "0.1",
        "0.0000000001",
        1e-10,
        10**6,
        "1000000.0000000000",
        1e6,
        "1e6",
        "0.10000000000000",
        "1E-10",
        None,
    ],
    [
        -1,
        "-0.0000000001",
        "0.00000000001",
        1e-11,
        0.30000000000000004,
        "1000000.0000000001",
        10**6 + 1,
        "NaN",
        "inf",
        "",
    ],
)
DAY = (datetime.now(UTC) + timedelta(days=300)).date()
NO_TIMES = [
    f"{DAY:%G-W%V-%u}T10:00:00Z",
    f"{DAY:%Y%m%d}T100000Z",
    *(f"{DAY}{rest}" for rest in (
        "T10:00Z", "T10Z", "T10:00:00,5Z", "T10:00:00.Z", "T24:00:00Z", "T10:00:60Z", "T10:00:00+0100", "T10:00:00+01",
        "T10:00:00+01:00:00", "T10:00:00+24:00", "T10:00:00+01:60", " 10:00:00Z", "_10:00:00Z", "T10:00:00 Z",
        "T١0:00:00Z",
    )),
    "2027-02-29T10:00:00Z", "0000-01-01T10:00:00Z",
]  # fmt: skip
"""What is not as in RFC 3339, though much of it is as in ISO 8601."""
EXPIRES = (
    [ago(days=-1), f"{DAY}t10:00:00z", f"{DAY}T23:59:59.1234567890+23:59", None],
    ["tomorrow", 1, "2026-01-31T12:00:00", ago(minutes=1), *NO_TIMES],
)
OCCURRED = (
    [ago(days=35, minutes=-1), ago(minutes=-4), ago(days=1), lambda: f"{now(ago())[:19]}Z",
     lambda: f"{now(ago())[:19].lower()}.1234567890z", lambda: f"{now(ago())[:19]}-00:00", None],
    [ago(days=35, minutes=1), ago(days=-1), "2026-01-31", "2026-01-31T12:00:00", "yesterday", 1_700_000_000, "",
     lambda: f"{datetime.now(UTC):%G-W%V-%uT%H:%M:%SZ}"],
)  # fmt: skip
SLUG = (
    ["a", "a-b", "0", "x" * 100, "0190d3a0-0000-7000-8000-00000000abc"],
    ["", "A", "a_b", "-a", "a-", "a--b", "a b", "ä", "a\n", "x" * 101, "0190d3a0-0000-7000-8000-00000000abcd"],
)
BOOLEAN = ([True, False], [None, 0, 1, "true"])
EMAIL = (
    ["a@b.c", "a.b+c@d.e.f", f"{'x' * 248}@b.co"],
    ["", "a", "@b.c", "a@b", "a b@c.d", "a@b.", f"{'x' * 251}@b.c", "a\x01@b.c", "a@b\x7f.c", "a@b..c", "a@.b.c", None],
)
ISSUE_STATUS = (["open", "in_progress", "in_review", "blocked", "closed"], ["", "Open", "done", None])
ENTRY = {"report_id": (["x", "x" * 128, "🦄" * 128], ["", "x" * 129, None, 1]), "occurred_at": OCCURRED, "cost": COST,
         "tasks_completed": ([0, 10**6], [-1, 10**6 + 1, "1", 1.0]), "input_tokens": TOKENS, "output_tokens": TOKENS,
         "cache_read_tokens": TOKENS, "cache_write_tokens": TOKENS, "provider": (["x", None], [1]),
         "model": (["x", None], [1]), "note": (["x", None], [1])}  # fmt: skip

RULES: dict[str, dict[str, tuple[list[Any], list[Any]]]] = {
    "spawn_agent": {"name": (NAME[0], [*NAME[1], None]), "current_task": TASK, "short_term_memory": MEMORY,
                    "long_term_memory_ref": REFERENCE, "session_id": SESSION, "reason": REASON,
                    "unique_name": ([True, False], [0, "yes"]), "agent_type_id": ([], [None, "", "x", 1])},
    "update_agent": {"status": STATUS, "name": (NAME[0], [*NAME[1], None]), "current_task": TASK,
                     "short_term_memory": MEMORY, "long_term_memory_ref": REFERENCE, "session_id": SESSION,
                     "reason": REASON},
    "pause_agent": {"reason": REASON},
    "resume_agent": {"reason": REASON},
    "terminate_agent": {"reason": REASON},
    "create_user": {"email": EMAIL, "is_superuser": BOOLEAN},
    "change_user": {"is_active": ([True], BOOLEAN[1]), "is_superuser": ([False], BOOLEAN[1])},
    "create_key": {"name": NAME, "expires_at": EXPIRES},
    "create_project": {"name": NAME, "slug": SLUG, "owner_id": ([None], ["x", "", 1])},
    "change_project": {"name": NAME, "status": (["archived", "active"], ["", "gone", None]),
                       "owner_id": ([], ["x", None])},
    "create_agent_type": {"name": NAME, "slug": SLUG, "is_active": BOOLEAN},
    "change_agent_type": {"name": (NAME[0], [*NAME[1], None]), "is_active": ([True], BOOLEAN[1])},
    "create_issue": {"title": (["x", "x" * 300], ["", " ", "x" * 301, "a\nb", None]), "status": ISSUE_STATUS,
                     "body": (["", "x" * 20_000, "a\nb", None], ["x" * 20_001]), "assigned_agent_id": ([None], ["x"])},
    "change_issue": {"title": (["x", "x" * 300], ["", " ", "x" * 301, None]), "status": ISSUE_STATUS,
                     "assigned_agent_id": ([None], ["x", ""])},
}  # fmt: skip
"""By operation and field: what is accepted, and what is refused."""

CASES = [(operation, field) for operation, rules in RULES.items() for field in rules]


def ask(app: OpenAPI, scene: Scene, operation: str, **more: Any) -> Any:
    """The operation's example with other values."""
    method, rule = routes(app)[operation]
    example = EXAMPLES[operation].body
    assert example is not None
    return scene.admin(method, scene.address(rule), example(scene) | more)


@pytest.mark.parametrize(("operation", "field"), CASES)
def test_what_keeps_the_rule_is_accepted(app: OpenAPI, scene: Scene, operation: str, field: str) -> None:
    for value in RULES[operation][field][0]:
        sql("UPDATE projects SET slug = id::text; UPDATE agent_types SET slug = id::text")  # none of them is taken
        unique = {"name": uuid4().hex} if field == "unique_name" else {}
        answer = ask(app, scene, operation, **unique, **{field: now(value)})

        assert answer.status_code == EXAMPLES[operation].status, (value, answer.data)


@pytest.mark.parametrize(("operation", "field"), CASES)
def test_one_step_beyond_is_a_422_that_names_the_field(app: OpenAPI, scene: Scene, operation: str, field: str) -> None:
    for value in RULES[operation][field][1]:
        answer = ask(app, scene, operation, **{field: now(value)})

        assert is_problem(answer, 422, "validation_error"), (value, answer.data)
        assert fields(answer) == [field], value


@pytest.mark.parametrize("operation", WITH_BODY)
def test_null_in_any_field_is_not_our_fault(app: OpenAPI, scene: Scene, operation: str) -> None:
    example = EXAMPLES[operation].body
    assert example is not None
    for field in {*example(scene), *RULES.get(operation, ())}:
        answer = ask(app, scene, operation, **{field: None})

        assert answer.status_code == EXAMPLES[operation].status or is_problem(answer, 422, "validation_error")


def report(scene: Scene, *entries: dict[str, Any], of_project: bool = False) -> Any:
    """A usage report of these entries, each with an id of its own."""
    agent = scene.ids["agent_id"]
    whole = [{"report_id": uuid4().hex} | ({"agent_id": agent} if of_project else {}) | entry for entry in entries]
    path = scene.project.path if of_project else scene.project.agent(agent)
    return scene.owner.post(f"{path}/usage", {"entries": whole})


@pytest.mark.parametrize("of_project", [False, True], ids=["of agent", "of project"])
@pytest.mark.parametrize("field", ENTRY)
def test_a_usage_entry_keeps_its_rules(scene: Scene, field: str, of_project: bool) -> None:
    for value in ENTRY[field][0]:
        answer = report(scene, {field: now(value)}, of_project=of_project)

        assert answer.status_code == 202, (value, answer.data)


@pytest.mark.parametrize("of_project", [False, True], ids=["of agent", "of project"])
@pytest.mark.parametrize("field", ENTRY)
def test_a_usage_entry_that_breaks_a_rule_is_named_and_nothing_is_taken(
    scene: Scene, field: str, of_project: bool
) -> None:
    before = sql("SELECT count(*) FROM usage_entries")

    for value in ENTRY[field][1]:
        answer = report(scene, {}, {}, {field: now(value)}, {}, of_project=of_project)

        assert is_problem(answer, 422, "validation_error"), (value, answer.data)
        assert fields(answer) == [f"entries.2.{field}"], value
    assert sql("SELECT count(*) FROM usage_entries") == before


def test_a_report_has_1_to_1000_entries(scene: Scene) -> None:
    none, most, more = report(scene), report(scene, *[{}] * 1000), report(scene, *[{}] * 1001)

    assert (most.status_code, most.json["accepted"]) == (202, 1000)
    for answer in (none, more):
        assert is_problem(answer, 422, "validation_error")
        assert fields(answer) == ["entries"]


def test_every_wrong_entry_of_a_report_is_named(scene: Scene) -> None:
    answer = report(scene, {"cost": -1}, {}, {"input_tokens": "x", "output_tokens": -1, "colour": "red"})

    named = ["entries.0.cost", "entries.2.colour", "entries.2.input_tokens", "entries.2.output_tokens"]
    assert is_problem(answer, 422, "validation_error")
    assert sorted(fields(answer)) == named  # type: ignore[type-var]


def test_every_time_outside_the_window_is_named(scene: Scene) -> None:
    answer = report(scene, {"occurred_at": now(ago(days=36))}, {}, {"occurred_at": now(ago(hours=-1))})

    assert is_problem(answer, 422, "validation_error")
    assert fields(answer) == ["entries.0.occurred_at", "entries.2.occurred_at"]


def test_an_entry_for_another_projects_agent_is_named(scene: Scene) -> None:
    other = Scene.set(scene.admin).ids["agent_id"]

    answer = report(scene, {}, {"agent_id": other}, {"agent_id": str(uuid4())}, of_project=True)

    assert is_problem(answer, 422, "validation_error")
    assert fields(answer) == ["entries.1.agent_id", "entries.2.agent_id"]


@pytest.mark.parametrize("operation", ["spawn_agent", "update_agent"])
def test_all_that_is_wrong_is_listed_one_entry_each(app: OpenAPI, scene: Scene, operation: str) -> None:
    wrong = {"name": "", "current_task": "x" * 2001, "session_id": 7, "reason": [], "short_term_memory": "x", "hue": 1}

    answer = ask(app, scene, operation, **wrong)

    assert is_problem(answer, 422, "validation_error")
    assert sorted(fields(answer)) == sorted(wrong)  # type: ignore[type-var]
    assert all(entry["message"] in answer.json["detail"] for entry in answer.json["errors"])


@pytest.mark.parametrize(
    ("operation", "required"),
    [("spawn_agent", ["agent_type_id", "name"]), ("create_user", ["email"]), ("create_key", ["name"]),
     ("create_project", ["name"]), ("create_agent_type", ["name"]), ("create_issue", ["title"]),
     ("report_agent_usage", ["entries"]), ("report_project_usage", ["entries"])],
)  # fmt: skip
def test_what_is_missing_is_named(app: OpenAPI, scene: Scene, operation: str, required: list[str]) -> None:
    method, rule = routes(app)[operation]

    answer = scene.admin(method, scene.address(rule), {})

    assert is_problem(answer, 422, "validation_error"), answer.data
    assert fields(answer) == required


TRIMMED = {"name": "scout", "current_task": "a  b", "long_term_memory_ref": "ref", "session_id": "s"}


def test_texts_are_stored_trimmed(scene: Scene) -> None:
    padded = {name: f" \n\t{value}\u3000 " for name, value in TRIMMED.items()}
    born = scene.project.born(**padded)
    changed = scene.project.born()
    scene.project.send(changed, "update", **padded)
    drain()

    for agent in (born, changed):
        shown = scene.owner.get(scene.project.agent(agent)).json or {}
        assert {name: shown[name] for name in TRIMMED} == TRIMMED


@pytest.mark.parametrize(
    ("path", "field", "body"),
    [("keys", "name", {}), ("projects", "name", {}), ("agent-types", "name", {}), ("users", "email", {})],
)
def test_names_around_agents_are_stored_trimmed(scene: Scene, path: str, field: str, body: dict[str, Any]) -> None:
    value = f"{uuid4().hex}@example.org"

    answer = scene.admin.post(path, body | {field: f"\t {value} \n"})

    assert (answer.status_code, (answer.json or {})[field]) == (201, value)


def test_an_email_address_is_unique_in_any_case(scene: Scene) -> None:
    address = f"{uuid4().hex}@Example.org"

    first, second = scene.admin.post("users", {"email": address}), scene.admin.post("users", {"email": address.upper()})

    assert (first.status_code, (first.json or {})["email"]) == (201, address.lower())
    assert is_problem(second, 409, "conflict")


@pytest.mark.parametrize(
    "address", ["İ@example.org", "ΑΣ@example.org", "ß@example.org", "𐵐@example.org", "Ა@example.org"]
)
def test_an_email_address_of_any_script_is_no_fault_of_ours(scene: Scene, address: str) -> None:
    answer = scene.admin.post("users", {"email": address})

    assert answer.status_code == 201 or is_problem(answer, 422, "validation_error"), answer.data


def test_memory_is_given_back_as_it_was(scene: Scene) -> None:
    given = {"big": 2**70, "tiny": 1e-300, "large": 1e15, "text": '\\u0000 \\ " \u2028 🦄', "": [[], {}, None, -0.5]}

    agent = scene.project.born(short_term_memory=given)

    assert (scene.owner.get(scene.project.agent(agent)).json or {})["short_term_memory"] == given


def test_numbers_count_as_the_database_writes_them(scene: Scene) -> None:
    numbers = {"n": [1e308, -1e-300, 1e22, 1.5]}
    written = 309 + 303 + 23 + 3 + len('"n":[,,,],')
    most = memory(MEMORY_BYTES - written) | numbers
    beyond = memory(MEMORY_BYTES - written + 1) | numbers

    agent = scene.project.born(short_term_memory=most)
    answer = scene.project.api.patch(scene.project.agent(agent), {"short_term_memory": beyond})

    assert is_problem(answer, 422, "validation_error")
    length = "SELECT octet_length(replace(short_term_memory::text, ' ', '')) FROM agents WHERE id = :id"
    assert sql(length, id=agent) == [(MEMORY_BYTES,)]


@pytest.mark.parametrize("path", ["projects", "agent-types"])
def test_a_slug_is_made_from_the_name_and_a_taken_one_is_a_conflict(scene: Scene, path: str) -> None:
    name = f"  Ärger & Co. {uuid4().hex} "

    made, again = scene.admin.post(path, {"name": name}), scene.admin.post(path, {"name": name})
    nameless = scene.admin.post(path, {"name": "漢字"})

    assert (made.json or {})["slug"] == f"rger-co-{name.rsplit(maxsplit=1)[-1].strip()}"
    assert is_problem(again, 409, "conflict")
    assert fields(again) == ["slug"]
    assert nameless.status_code == 201


def test_sizes_are_told_in_bytes(scene: Scene) -> None:
    answer = scene.project.api.patch(scene.project.agent(scene.ids["agent_id"]), {"short_term_memory": memory(20_000)})

    size = len(json.dumps(memory(20_000), separators=(",", ":")))
    assert str(size) in (answer.json or {})["detail"]
    assert str(MEMORY_BYTES) in (answer.json or {})["detail"]
