"""Pictures made here, as numbers for inline SVG: sparklines, an agent's strip of states, and the state diagram."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from orchestrator.holds import MANUAL
from orchestrator.lifecycle import Status, edges, sendable

WIDTH, HEIGHT = 100.0, 20.0
"""Of a sparkline, in its own units."""

PLACES = {
    Status.IDLE: (62, 84),
    Status.WORKING: (200, 22),
    Status.WAITING: (338, 84),
    Status.PAUSED: (112, 165),
    Status.TERMINATED: (288, 165),
}
"""Where each status is in the diagram: the middle of its box. Any two are linked, so all are corners of the whole, and
no line leads through a third."""

BOX, ASIDE = (108, 30), 5.0
"""How large the boxes are; how far a line lies from the middle where another one leads back."""


_MOVES = {(before, after) for _, before, after in edges()}


class Segment(NamedTuple):
    """A stretch of time in one status; where it begins and how long it is, as percentages of the strip."""

    status: str
    start: float
    width: float


class Edge(NamedTuple):
    """A move of the diagram, from the border of one box to another's, and whether it can be made now."""

    verb: str
    x1: float
    y1: float
    x2: float
    y2: float
    possible: bool


def sparkline(values: Sequence[float]) -> str:
    """The points of a polyline, the highest value at the top; nothing where there are no two of them."""
    if len(values) < 2:  # noqa: PLR2004  # one point is no line
        return ""
    top, step = max(*values, 1), WIDTH / (len(values) - 1)
    return " ".join(f"{n * step:.1f},{HEIGHT - 1 - (HEIGHT - 2) * value / top:.1f}" for n, value in enumerate(values))


def strip(events: Sequence[Any], since: datetime, until: datetime, now: str) -> list[Segment]:
    """An agent's time from then until then by status; `events`: its events, newest first, which have `at`, `before` and
    `after`; `now`: its status at the end."""
    segments: list[Segment] = []
    end, status, whole = until, now, (until - since).total_seconds()
    for event in events:
        if event.after == event.before:
            continue
        start = max(event.at, since)
        _add(segments, status, start, end, since, whole)
        end, status = start, event.before
        if event.at <= since:
            return segments[::-1]
    if status is not None:
        _add(segments, status, since, end, since, whole)
    return segments[::-1]


def shares(segments: Sequence[Segment]) -> list[tuple[str, float]]:
    """How much of the strip each status has, in percent, the largest first."""
    sums: dict[str, float] = {}
    for segment in segments:
        sums[segment.status] = sums.get(segment.status, 0.0) + segment.width
    return sorted(sums.items(), key=lambda item: -item[1])


def diagram(current: str) -> list[Edge]:
    """The moves between living statuses, as arrows."""
    return [_edge(verb, before, after, before == current) for verb, before, after in edges() if before is not None]


def possible(status: str, holds: Sequence[Any]) -> list[str]:
    """The verbs that a button can send to an agent in this status with these holds: those that lead anywhere, and a
    pause beside other owners' holds, for what is sent here is manual."""
    verbs = [str(verb) for verb in sendable(Status(status))]
    if status == Status.PAUSED and not is_mine(holds):
        verbs.insert(1, "pause")
    return verbs


def is_mine(holds: Sequence[Any]) -> bool:
    """Whether there is a manual hold among them: one that a button lifts without a question."""
    return any(hold["owner"] == MANUAL for hold in holds)


def _add(segments: list[Segment], status: str, start: datetime, end: datetime, since: datetime, whole: float) -> None:
    width = 100 * (end - start).total_seconds() / whole
    if width > 0:
        segments.append(Segment(status, 100 * (start - since).total_seconds() / whole, width))


def _edge(verb: str, before: Status, after: Status, is_possible: bool) -> Edge:
    """From border to border of two boxes; there and back lie side by side."""
    (x1, y1), (x2, y2) = PLACES[before], PLACES[after]
    dx, dy = x2 - x1, y2 - y1
    off = ASIDE / (dx * dx + dy * dy) ** 0.5 if (after, before) in _MOVES else 0.0
    aside = (-dy * off, dx * off)
    begin, end = _reach(aside, (dx, dy)), _reach(aside, (-dx, -dy))
    x1, y1, x2, y2 = (x1 + aside[0], y1 + aside[1], x2 + aside[0], y2 + aside[1])  # type: ignore[assignment]
    return Edge(str(verb), x1 + dx * begin, y1 + dy * begin, x2 - dx * end, y2 - dy * end, is_possible)


def _reach(inside: tuple[float, float], way: tuple[float, float]) -> float:
    """How much of a way it takes from a point in a box, as seen from its middle, to the border."""
    found = [(BOX[n] / 2 - inside[n] * (1 if way[n] > 0 else -1)) / abs(way[n]) for n in range(2) if way[n]]
    return min(found)
