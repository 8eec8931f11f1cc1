"""Where a page is: the projects it is about, and the time it looks back on."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from flask import g, request
from sqlalchemy import Connection

from orchestrator import feed, overview
from orchestrator.errors import Invalid, Problem, Violation
from orchestrator.rows import Rows
from orchestrator.trends import Window

RANGES = {"1h": (1, 60), "6h": (6, 300), "24h": (24, 900), "7d": (168, 7_200)}
"""Hours back, and seconds of a bin."""

DAYS = {"24h": (24, 3_600), "7d": (168, 3_600 * 6), "30d": (720, 86_400), "90d": (2_160, 86_400)}
"""The same for what is kept by the hour."""

Found = TypeVar("Found")

NOTHING: tuple[Rows, str | None] = ([], None)
"""A page of a list that has no rows, and no next one."""

OFFERED = 50
"""Projects to choose from at most: each page has them, and the others are named by their slugs."""


class Place(NamedTuple):
    """The newest projects that the caller may see, and the one that was chosen, if one was; the feed's place from
    before anything else was read: what comes after it may not be on the page; and how many projects there are."""

    projects: Any
    chosen: Any | None
    since: str
    total: int

    @property
    def ids(self) -> list[UUID]:
        """Of the projects that the page is about."""
        return [self.chosen.id] if self.chosen else [project.id for project in self.projects]

    @property
    def rows(self) -> Any:
        """Their rows."""
        return [self.chosen] if self.chosen else self.projects

    @property
    def is_cut(self) -> bool:
        """Whether the page is about all projects, and there are more than it looks at."""
        return self.chosen is None and self.total > len(self.projects)

    @property
    def offered(self) -> list[Any]:
        """The projects to choose from: the newest, and the chosen one however old it is."""
        newest = list(self.projects[:OFFERED])
        if self.chosen is None or self.chosen.id in [project.id for project in newest]:
            return newest
        return [self.chosen, *newest]

    @property
    def slug(self) -> str:
        """Of the chosen one; empty for all."""
        return self.chosen.slug if self.chosen else ""


NOWHERE = Place((), None, "", 0)
"""Where a page is that is about no project, and for which none is looked up."""


def here(db: Connection, name: str | None = None) -> Place:
    """The place that the address names: a project's slug or id in the path or as `project`, or all of them. Raises
    NotFound for one that the caller cannot see."""
    wanted = (name if name is not None else request.args.get("project", "")).strip()
    since = feed.now(db).cursor()
    chosen = overview.project(db, g.caller, wanted) if wanted else None
    projects = overview.projects(db, g.caller)
    is_all = len(projects) < overview.PROJECTS
    return Place(projects, chosen, since, len(projects) if is_all else overview.number(db, g.caller))


def window(ranges: dict[str, tuple[int, int]], default: str) -> tuple[str, Window]:
    """The range that the address names, and from when until when it is. Raises Invalid for any other."""
    name = request.args.get("range", default)
    if name not in ranges:
        raise Invalid(Violation(f"can be {', '.join(ranges)}", "range"))
    hours, step = ranges[name]
    now = datetime.now(UTC)
    return name, Window(now - timedelta(hours=hours), now, step)


def kept(ranges: dict[str, tuple[int, int]], default: str) -> str:
    """The range that the address names, where there is one; for a page that tells of something else that is wrong."""
    name = request.args.get("range", default)
    return name if name in ranges else default


def limit(default: int, most: int = 100) -> int:
    """How many rows: `limit` of the address."""
    given = request.args.get("limit", str(default))
    if given not in map(str, range(1, most + 1)):
        raise Invalid(Violation(f"can be 1 to {most}", "limit"))
    return int(given)


def tried(find: Callable[[], Found], nothing: Found) -> tuple[Found, Invalid | None]:
    """What a page looks for; or nothing, and what is wrong with what the address asks for: the page itself says so,
    with all that was typed."""
    try:
        return find(), None
    except Invalid as problem:
        return nothing, problem


def given(names: tuple[str, ...], values: Any) -> dict[str, str]:
    """Those of an address or a form that are not left empty."""
    return {name: values[name].strip() for name in names if values.get(name, "").strip()}


def demand_known(filters: dict[str, str], **known: Sequence[str]) -> None:
    """Raises Invalid where a filter is none of what it can be."""
    for name, values in known.items():
        if name in filters and filters[name] not in values:
            raise Invalid(Violation(f"can be {', '.join(values)}", name))


def stillness(wrong: Problem | None) -> dict[str, Any]:
    """What keeps a page from being fetched anew: one that is wrong stays so until its address is another."""
    return {"live": False} if wrong else {}
