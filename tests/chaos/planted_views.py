"""Bugs of what is shown: agents, lists, the feed."""

import random
import time
from typing import Any

from tests.chaos.planting import Bug, rarely, rewritten, wrapped

_SEEN: dict[Any, tuple[float, Any]] = {}


def _remember_a_second(original: Any, db: Any, caller: Any, project: Any, agent: Any) -> Any:
    read_at, row = _SEEN.get(agent, (0.0, None))
    fresh = original(db, caller, project, agent)
    if time.monotonic() - read_at < 1:
        return row
    _SEEN[agent] = (time.monotonic(), fresh)
    return fresh


def _tear(original: Any, db: Any, caller: Any, project: Any, agent: Any) -> Any:
    from types import SimpleNamespace  # noqa: PLC0415

    first = original(db, caller, project, agent)
    time.sleep(0.03)
    second = original(db, caller, project, agent)
    return SimpleNamespace(**(second._asdict() | {"version": first.version}))


def _lose_rows(original: Any, *given: Any, **named: Any) -> Any:
    from dataclasses import replace  # noqa: PLC0415

    page = original(*given, **named)
    return replace(page, rows=page.rows[1:]) if page.rows and random.random() < 0.5 else page  # noqa: S311


def _by_offset(fleet: Any) -> None:
    """A cursor is the number of the next page: whoever is spawned meanwhile moves all others by one."""

    def next_cursor(page: Any) -> str | None:
        return fleet.cursors.encode((page.page or 1) + 1) if page.rows and page.more else None

    def page_after(db: Any, project_id: Any, wanted: Any, cursor: str, limit: int) -> Any:
        [number] = fleet.cursors.decode(cursor, fleet.cursors.natural)
        return fleet.page(db, project_id, wanted, number, limit)

    fleet.Page.next_cursor, fleet.page_after = property(next_cursor), page_after


def _break_down(original: Any, *given: Any) -> Any:
    if rarely():
        raise LookupError("planted")
    return original(*given)


BUGS: dict[str, Bug] = {
    "stale reads": Bug({"orchestrator.fleet": wrapped("agent", _remember_a_second)}, "falls"),
    "torn reads": Bug({"orchestrator.fleet": wrapped("agent", _tear)}, "reads"),
    "a page misses agents": Bug({"orchestrator.fleet": wrapped("page_after", _lose_rows)}, "lists"),
    "pages by offset": Bug({"orchestrator.fleet": _by_offset}, "lists"),
    "the feed does not wait": Bug(
        {
            "orchestrator.feed": rewritten(
                "_OF_ONE", ("feed_position(pg_snapshot_xmin(pg_current_snapshot()))", f"'{2**64 - 1}'")
            )
        },
        "feed",
        ("delay at written",),  # others commit meanwhile, and are read
    ),
    "strangers are let in": Bug(
        {"orchestrator.fleet": rewritten("ONE_AGENT", (":superuser OR", "true OR :superuser OR"))}, "tenancy"
    ),
    "a look fails": Bug({"orchestrator.fleet": wrapped("agent", _break_down)}, "broken"),
}
