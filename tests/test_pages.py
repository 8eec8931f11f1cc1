"""Lists: of agents by number and by cursor, with filters and totals; of everything else by cursor."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest

from orchestrator import cursors
from tests.stage import Api, Project, drain, settle, sql, statements

STATUSES = ["idle", "working", "waiting", "paused", "terminated"]
SOMEBODY = "00000000-0000-4000-8000-000000000000"


def crowd(project: Project, count: int, **body: Any) -> list[str]:
    """The ids of so many new agents, newest first, in a project that nobody drains: drained here."""
    ids = [project.spawn(wait=False, **body)["agent_id"] for _ in range(count)]
    settle()
    return ids[::-1]


def listed(project: Project, query: str = "") -> tuple[list[str], dict[str, Any]]:
    """The ids on a page of the project's agents, and where the page stands."""
    answer = project.api.get(f"{project.path}/agents?{query}")
    assert answer.status_code == 200, answer.json
    return [agent["id"] for agent in answer.json["data"]], answer.json["pagination"]


def names(project: Project, query: str) -> list[str]:
    """The names of the agents that a filter finds, in alphabetical order."""
    return sorted(agent["name"] for agent in project.api.get(f"{project.path}/agents?{query}").json["data"])


def walk(api: Api, path: str, limit: int, meanwhile: Callable[[], Any] = lambda: None) -> list[str]:
    """The ids of a whole list, read by cursor; `meanwhile` happens after each page."""
    found, cursor = [], ""
    while cursor is not None:
        page = api.get(f"{path}?limit={limit}" + (cursor and f"&cursor={cursor}")).json
        assert len(page["data"]) <= limit
        found += [row["id"] for row in page["data"]]
        cursor = page["pagination"]["next_cursor"]
        meanwhile()
    return found


def test_agents_are_listed_newest_first_each_as_it_is_shown_alone(quiet: Project) -> None:
    ids = crowd(quiet, 3)

    page = quiet.api.get(f"{quiet.path}/agents").json

    assert page["data"] == [quiet.api.get(quiet.agent(id_)).json for id_ in ids]


def test_agents_of_the_same_moment_are_ordered_by_id(quiet: Project) -> None:
    ids = crowd(quiet, 4)
    sql("UPDATE agents SET created_at = '2026-01-01Z' WHERE project_id = :id", id=quiet.id)

    assert listed(quiet)[0] == sorted(ids, reverse=True)
    assert walk(quiet.api, f"{quiet.path}/agents", 1) == sorted(ids, reverse=True)


@pytest.mark.parametrize(
    ("page", "limit", "shown", "total_pages", "has_next", "has_prev"),
    [
        (1, 1, [0], 5, True, False),
        (1, 2, [0, 1], 3, True, False),
        (2, 2, [2, 3], 3, True, True),
        (3, 2, [4], 3, False, True),
        (1, 5, [0, 1, 2, 3, 4], 1, False, False),
        (1, 100, [0, 1, 2, 3, 4], 1, False, False),
        (2, 5, [], 1, False, True),
        (100, 100, [], 1, False, True),
    ],
)
def test_a_page_says_where_it_stands(
    quiet: Project, page: int, limit: int, shown: list[int], total_pages: int, has_next: bool, has_prev: bool
) -> None:
    ids = crowd(quiet, 5)

    found, pagination = listed(quiet, f"page={page}&limit={limit}")

    assert found == [ids[n] for n in shown]
    assert (pagination.pop("next_cursor") is not None) == has_next
    assert pagination == {
        "total": 5,
        "total_is_at_least": False,
        "page": page,
        "page_size": len(shown),
        "total_pages": total_pages,
        "has_next": has_next,
        "has_prev": has_prev,
    }


def test_behind_a_cursor_pages_have_no_number(quiet: Project) -> None:
    crowd(quiet, 3)
    cursor = listed(quiet, "limit=2")[1]["next_cursor"]

    found, pagination = listed(quiet, f"limit=2&cursor={cursor}")

    assert (len(found), pagination["page"], pagination["total"]) == (1, None, 3)
    assert (pagination["has_prev"], pagination["has_next"]) == (True, False)


def test_a_page_has_twenty_agents_unless_another_limit_is_given(quiet: Project) -> None:
    ids = crowd(quiet, 21)

    found, pagination = listed(quiet)

    assert found == ids[:20]
    assert (pagination["page"], pagination["page_size"], pagination["total_pages"]) == (1, 20, 2)


@pytest.mark.parametrize("page", [1, 2])
def test_an_empty_list_has_no_pages(quiet: Project, page: int) -> None:
    found, pagination = listed(quiet, f"page={page}")

    assert found == []
    assert pagination == {
        "total": 0,
        "total_is_at_least": False,
        "page": page,
        "page_size": 0,
        "total_pages": 0,
        "has_next": False,
        "has_prev": page > 1,
        "next_cursor": None,
    }


@pytest.mark.parametrize("query", ["page=101&limit=100", "page=10001&limit=1", "page=501", f"page={10**40}"])
def test_pages_deeper_than_ten_thousand_rows_are_refused_in_favour_of_the_cursor(quiet: Project, query: str) -> None:
    answer = quiet.api.get(f"{quiet.path}/agents?{query}")

    error = answer.json["errors"][0]
    assert (answer.status_code, error["code"], error["field"]) == (422, "validation_error", "page")
    assert "cursor" in error["message"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page=0", "page"),
        ("page=-1", "page"),
        ("page=one", "page"),
        ("page=", "page"),
        ("page=1&page=2", "page"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=-1", "limit"),
        ("limit=1.5", "limit"),
        ("limit=", "limit"),
        ("status=asleep", "status"),
        ("status=IDLE", "status"),
        ("status=", "status"),
        ("status=idle&status=paused", "status"),
        ("type=", "type"),
        ("type=a&type=b", "type"),
        ("type=%00", "type"),
        ("q=", "q"),
        ("q=a&q=b", "q"),
        ("q=a%00", "q"),
        (f"q={'x' * 101}", "q"),
        ("cursor=", "cursor"),
        ("cursor=x", "cursor"),
        ("cursor=%F0%9F%A6%84", "cursor"),
        ("cursor=bnVsbA", "cursor"),
        ("cursor=x&page=1", "cursor"),
    ],
)
def test_a_wrong_value_is_refused_by_name(quiet: Project, query: str, field: str) -> None:
    answer = quiet.api.get(f"{quiet.path}/agents?{query}")

    assert answer.status_code == 422
    assert [(error["code"], error["field"]) for error in answer.json["errors"]] == [("validation_error", field)]


@pytest.mark.parametrize(
    "parts",
    [
        ["2026-01-01T00:00:00+00:00"],
        ["2026-01-01T00:00:00", SOMEBODY],
        ["2026-01-01T00:00:00+00:00", "1"],
        [SOMEBODY],
        ["7"],
        [],
    ],
    ids=str,
)
def test_another_lists_cursor_is_refused(quiet: Project, parts: list[str]) -> None:
    answer = quiet.api.get(f"{quiet.path}/agents?cursor={cursors.encode(*parts)}")

    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, "cursor")


@pytest.mark.parametrize("moment", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)], ids=str)
def test_a_cursor_at_the_end_of_time_is_harmless(quiet: Project, moment: datetime) -> None:
    ids = crowd(quiet, 1)

    found, _ = listed(quiet, f"cursor={cursors.encode(moment.isoformat(), uuid4())}")

    assert found == (ids if moment.year == 9999 else [])


def test_an_unknown_query_key_is_ignored(quiet: Project) -> None:
    ids = crowd(quiet, 1)

    assert listed(quiet, "colour=red&colour=")[0] == ids


def test_a_cursor_neither_repeats_nor_skips_while_agents_are_spawned(quiet: Project) -> None:
    ids = crowd(quiet, 9)

    found = walk(quiet.api, f"{quiet.path}/agents", 2, meanwhile=lambda: crowd(quiet, 3))

    assert found == ids


def test_a_cursor_goes_on_from_a_numbered_page_and_keeps_the_filter(quiet: Project) -> None:
    plain, special = crowd(quiet, 2, name="plain"), crowd(quiet, 5, name="special")
    _, page = listed(quiet, "limit=2&q=special")

    found, after = listed(quiet, f"limit=2&q=special&cursor={page['next_cursor']}")
    rest, end = listed(quiet, f"limit=2&cursor={after['next_cursor']}")

    assert found == special[2:4]
    assert rest == [special[4], plain[0]]
    assert (after["has_next"], end["next_cursor"] is None) == (True, False)


def test_the_total_by_status_comes_from_the_counters(project: Project) -> None:
    made = {status: [project.in_status(status) for _ in range(2)] for status in STATUSES}

    for status, ids in made.items():
        found, pagination = listed(project, f"status={status}&limit=1")
        assert found == [ids[1]]
        assert (pagination["total"], pagination["total_pages"], pagination["has_next"]) == (2, 2, True)
    assert listed(project)[1]["total"] == 10


def test_terminated_agents_are_listed_and_unborn_ones_are_not(quiet: Project) -> None:
    ended = quiet.born()
    quiet.send(ended, "terminate")
    drain()
    quiet.spawn(wait=False, name="unborn")

    for query in ("", "status=terminated", "q=s", f"type={quiet.type_id}"):
        found, pagination = listed(quiet, query)
        assert (found, pagination["total"]) == ([ended], 1)
    assert listed(quiet, "q=unborn")[1]["total"] == 0


def test_agents_are_found_by_the_id_or_the_slug_of_their_type(quiet: Project) -> None:
    other = quiet.api.post("agent-types", {"name": "Other", "slug": "other"}).json
    theirs, mine = crowd(quiet, 2, agent_type_id=other["id"]), crowd(quiet, 1)

    assert listed(quiet, "type=other")[0] == theirs
    assert listed(quiet, f"type={other['id']}")[0] == theirs
    assert listed(quiet, f"type={other['id'].upper()}")[0] == theirs
    assert listed(quiet, f"type={quiet.type_id}")[0] == mine
    assert listed(quiet, f"type={uuid4()}")[0] == listed(quiet, "type=unknown")[0] == []


def test_a_type_whose_slug_is_another_types_id_does_no_harm(quiet: Project) -> None:
    disguised = quiet.api.post("agent-types", {"name": "Disguised"}).json
    sql("UPDATE agent_types SET slug = :slug WHERE id = :id", slug=quiet.type_id, id=disguised["id"])  # from before
    mine, theirs = crowd(quiet, 1), crowd(quiet, 1, agent_type_id=disguised["id"])

    assert listed(quiet, f"type={quiet.type_id}")[0] == mine
    assert listed(quiet, f"type={disguised['id']}")[0] == theirs


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("a", ["a%b", "a\\b", "a_b", "axb"]),
        ("a%", ["a%b"]),
        ("a_", ["a_b"]),
        ("a\\", ["a\\b"]),
        ("A", ["AXB"]),
        ("xb", []),
        ("%", []),
        ("ß ☃", ["ß ☃ 🦄"]),
    ],
)
def test_a_name_is_found_by_its_beginning_letter_by_letter(quiet: Project, q: str, found: list[str]) -> None:
    for name in ("axb", "a%b", "a_b", "a\\b", "AXB", "ß ☃ 🦄"):
        quiet.spawn(wait=False, name=name)
    drain()

    assert names(quiet, f"q={quote(q)}") == found
    assert listed(quiet, f"q={quote(q)}")[1]["total"] == len(found)


def test_filters_are_combined(quiet: Project) -> None:
    other = quiet.api.post("agent-types", {"name": "Other", "slug": "other"}).json
    one, two = crowd(quiet, 2, name="alpha", agent_type_id=other["id"])
    crowd(quiet, 1, name="beta", agent_type_id=other["id"])
    crowd(quiet, 1, name="alpha")
    quiet.send(one, "pause")
    drain()

    assert listed(quiet, "type=other&q=al&status=paused")[0] == [one]
    assert listed(quiet, "type=other&q=al&status=idle")[0] == [two]
    assert listed(quiet, "type=other&q=al")[1]["total"] == 2


def test_another_projects_agents_are_neither_listed_nor_counted(project: Project) -> None:
    other = Project.make(project.api)
    other.spawn(name="alien")

    assert (listed(project)[0], listed(project, "q=alien")[1]["total"]) == ([], 0)


def test_a_filtered_total_beyond_ten_thousand_is_a_lower_bound(quiet: Project) -> None:
    sql(
        """INSERT INTO agents (id, project_id, agent_type_id, name, status, version)
           SELECT gen_random_uuid(), :project, :type, 'mass ' || n, 'idle', 1 FROM generate_series(1, 10001) AS n""",
        project=quiet.id,
        type=quiet.type_id,
    )

    many = listed(quiet, "q=mass&limit=100&page=100")[1]
    sql("DELETE FROM agents WHERE name = 'mass 1'")
    exact = listed(quiet, "q=mass&limit=100&page=100")[1]

    assert (many["total"], many["total_is_at_least"], many["total_pages"]) == (10_000, True, 100)
    assert (many["has_next"], many["next_cursor"] is None) == (True, False)
    assert (exact["total"], exact["total_is_at_least"], exact["has_next"]) == (10_000, False, False)


@pytest.mark.usefixtures("known")
def test_a_hundred_agents_cost_at_most_four_statements(quiet: Project) -> None:
    crowd(quiet, 100)

    for query in ("", "&status=idle", "&q=s", "&page=2"):
        with statements() as sent:
            listed(quiet, f"limit=100{query}")
        assert 1 < len(sent) <= 4, sent


MAKERS: dict[str, Callable[[Project], tuple[str, str]]] = {
    "users": lambda p: ("users", p.api.post("users", {"email": f"{uuid4().hex}@example.org"}).json["id"]),
    "keys": lambda p: ("keys", p.api.post("keys", {"name": "one more"}).json["id"]),
    "projects": lambda p: ("projects", p.api.post("projects", {"name": uuid4().hex}).json["id"]),
    "types": lambda p: ("agent-types", p.api.post("agent-types", {"name": uuid4().hex}).json["id"]),
    "issues": lambda p: (f"{p.path}/issues", p.api.post(f"{p.path}/issues", {"title": "One more"}).json["id"]),
    "commands": lambda p: (f"{p.path}/commands", p.spawn(wait=False)["id"]),
}
"""Every other list: makes one more of its things; its address and the thing's id."""


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_every_other_list_goes_on_by_cursor_newest_first(
    quiet: Project, make: Callable[[Project], tuple[str, str]]
) -> None:
    made = [make(quiet) for _ in range(5)]
    path, ids = made[0][0], [id_ for _, id_ in made[::-1]]
    whole = walk(quiet.api, path, 100)

    found = walk(quiet.api, path, 2, meanwhile=lambda: make(quiet))

    assert whole[:5] == ids
    assert found == whole


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=", "cursor=", "cursor=x", "cursor=a&cursor=b"])
def test_every_other_list_refuses_a_wrong_limit_and_cursor(
    project: Project, make: Callable[[Project], tuple[str, str]], query: str
) -> None:
    path, _ = make(project)

    answer = project.api.get(f"{path}?{query}")

    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, query.partition("=")[0])
