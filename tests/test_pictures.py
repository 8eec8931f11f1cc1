"""The pictures that the console draws by itself: their geometry."""

from typing import Any

import pytest

from orchestrator.lifecycle import Status, edges
from web.console.pictures import BOX, PLACES, Edge, diagram

MOVES = [(before, after) for _, before, after in edges() if before is not None]
ROOM = 2.0
"""Between a line and a box that it has nothing to do with."""


def is_at_the_border(x: float, y: float, status: Status) -> bool:
    """Whether a point lies on the border of a status's box."""
    away = [abs(place - middle) - side / 2 for place, middle, side in zip((x, y), PLACES[status], BOX, strict=True)]
    return max(away) == pytest.approx(0)


def crosses(edge: Edge, status: Status) -> bool:
    """Whether a line comes into a status's box, or close to it."""
    low, high = 0.0, 1.0
    ways = ((edge.x1, edge.x2), (edge.y1, edge.y2))
    for (begin, end), middle, side in zip(ways, PLACES[status], BOX, strict=True):
        length = end - begin or 1e-9
        times = sorted((middle + half - begin) / length for half in (-side / 2 - ROOM, side / 2 + ROOM))
        low, high = max(low, times[0]), min(high, times[1])
    return low < high


def test_each_move_leads_from_one_box_to_the_other_and_through_no_third() -> None:
    lines = dict(zip(MOVES, diagram(Status.IDLE), strict=True))

    for (before, after), edge in lines.items():
        assert is_at_the_border(edge.x1, edge.y1, before), (before, after)
        assert is_at_the_border(edge.x2, edge.y2, after), (before, after)
        others = [status for status in Status if status not in (before, after)]
        assert [str(status) for status in others if crosses(edge, status)] == [], (before, after)


def test_a_move_and_the_one_back_are_two_lines() -> None:
    lines: dict[Any, Edge] = dict(zip(MOVES, diagram(Status.IDLE), strict=True))

    for (before, after), edge in lines.items():
        back = lines.get((after, before))
        assert back is None or abs(edge.x1 - back.x2) + abs(edge.y1 - back.y2) > ROOM


def test_what_is_possible_now_is_marked() -> None:
    assert {edge.verb for edge in diagram(Status.PAUSED) if edge.possible} == {"resume", "terminate"}


def test_every_status_has_its_place_within_the_picture() -> None:
    for x, y in (PLACES[status] for status in Status):
        assert BOX[0] / 2 < x < 400 - BOX[0] / 2
        assert BOX[1] / 2 < y < 190 - BOX[1] / 2
