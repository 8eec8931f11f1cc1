"""Tables on narrow and on wide terminals: what does not fit is left out by name, and what is there can be read."""

import json
import re
from typing import Any

import pytest
from rich.cells import cell_len

from orchestrator.cli import agents, commands, events, people, projects
from orchestrator.cli.layout import GAP, Wish, fit
from orchestrator.cli.render import READABLE, Columns, title
from tests.shell import Orch, answering

ID = "01998c1e-7f3a-7b2c-9d4e-0123456789ab"
AT = "2026-11-27T12:00:00.123456Z"
NAMES = [
    "scout",
    "x" * 255,
    "a name of many words, which no line can hold on a narrow screen",
    "火の鳥" * 20,
    "😀" * 40,
]
ANYTHING = {
    "id": ID,
    "agent_id": ID,
    "user_id": ID,
    "agent_type_slug": "writer",
    "current_task": "Summarise the report of the third quarter",
    "tasks_completed": 12,
    "tokens_used": 1234567890,
    "cost_incurred": "1234.567890",
    "slug": "customer-support-europe",
    "prefix": "orch_0123456",
    "is_active": True,
    "verb": "terminate",
    "status": "terminated",
    "state": "rejected",
    "before": "working",
    "after": "terminated",
    "reason": "It has cost more than anybody would pay",
    "changes": {"status": ["working", "terminated"]},
    "error": {"code": "invalid_transition", "message": "cannot resume an agent that is idle"},
    "version": 1234,
} | dict.fromkeys(("at", "created_at", "requested_at", "expires_at"), AT)
LISTS = [
    (["agent", "ls", "-p", ID], agents.COLUMNS),
    (["agent", "history", ID, "-p", ID], agents.HISTORY),
    (["command", "ls", "-p", ID], commands.COLUMNS),
    (["events", "-p", ID], events.COLUMNS),
    (["project", "ls"], projects.PROJECTS),
    (["type", "ls"], projects.KINDS),
    (["key", "ls"], people.KEYS),
]


def listed(line: list[str], width: int, items: list[dict[str, Any]]) -> list[str]:
    """The lines that a terminal of such a width shows of a list of these."""
    page = json.dumps({"data": items, "pagination": {"next_cursor": None}}).encode()
    with answering(200, {"Content-Type": "application/json"}, page) as url:
        code, shown = Orch({"ORCH_URL": url, "ORCH_API_KEY": "x", "COLUMNS": str(width)}).drawn(*line)
    assert code == 0, shown
    return re.sub(r"\x1b\[[\d;]*m", "", shown).splitlines()


def headings(lines: list[str]) -> list[str]:
    """The titles of a table, all of which stand in its first line."""
    return re.split(r"\s{2,}", lines[0].strip())


def left_out(lines: list[str]) -> list[str]:
    """What the caption names."""
    _, _, caption = " ".join(line.strip() for line in lines).partition("left out: ")
    return caption.partition(";")[0].split(", ") if caption else []


@pytest.mark.parametrize(("line", "columns"), LISTS, ids=lambda what: what[0] if isinstance(what, list) else "")
@pytest.mark.parametrize("width", [80, 100])
def test_what_does_not_fit_is_left_out_and_named(line: list[str], columns: Columns, width: int) -> None:
    lines = listed(line, width, [ANYTHING | {"name": name} for name in NAMES])

    assert max(map(cell_len, lines)) <= width
    assert sorted(headings(lines) + left_out(lines)) == sorted(map(title, columns))
    assert len(headings(lines)) >= 3
    assert any("-o json has all" in text for text in lines) is bool(left_out(lines))
    assert ID in "\n".join(lines) or "id" not in columns


@pytest.mark.parametrize(("line", "columns"), LISTS, ids=lambda what: what[0] if isinstance(what, list) else "")
def test_a_wide_terminal_and_a_file_show_all(line: list[str], columns: Columns) -> None:
    lines = listed(line, 220, [ANYTHING | {"name": "scout"}])

    assert headings(lines) == [title(name) for name in columns]
    assert left_out(lines) == []


@pytest.mark.parametrize("width", [80, 100, 300])
def test_names_have_room_to_be_read(width: int) -> None:
    lines = listed(["agent", "ls", "-p", ID], width, [ANYTHING | {"name": name} for name in NAMES])

    begins = [line[len(ID) + GAP :] for line in lines if line.startswith(ID)]
    least = [min(cell_len(name.partition(" ")[0]), READABLE - 1) for name in NAMES]  # a wide character takes two
    assert headings(lines)[:4] == ["id", "name", "status", "type"]
    assert len(begins) == len(NAMES)
    for begin, name, room in zip(begins, NAMES, least, strict=True):
        first = begin.partition("  ")[0]
        assert name.startswith(first)
        assert cell_len(first) >= room
        assert re.search(r"\sterminated\s+writer\b", begin)


def test_a_terminal_narrower_than_an_id_shows_the_ids() -> None:
    lines = listed(["agent", "ls", "-p", ID], 30, [ANYTHING | {"name": "scout"}])

    assert max(map(cell_len, lines)) <= 30
    assert headings(lines) == ["id"]
    assert ID in "".join(line.strip() for line in lines)


@pytest.mark.parametrize(
    ("wishes", "width", "widths"),
    [
        ([Wish(5, 5)], 80, {0: 5}),
        ([Wish(36, 36), Wish(16, 200)], 60, {0: 36, 1: 22}),
        ([Wish(10, 50), Wish(10, 12), Wish(10, 50)], 60, {0: 22, 1: 12, 2: 22}),
        ([Wish(10, 10), Wish(60, 60), Wish(5, 5)], 20, {0: 10, 2: 5}),
        ([Wish(36, 36), Wish(3, 3)], 20, {0: 20}),
    ],
)
def test_room_is_given_to_what_is_needed_most_and_the_rest_alike(
    wishes: list[Wish], width: int, widths: dict[int, int]
) -> None:
    assert fit(wishes, width) == widths
