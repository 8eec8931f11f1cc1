"""The audit: who did what to which agent, to be looked through and kept elsewhere."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from flask import Response, make_response, render_template, request
from sqlalchemy import Connection

from orchestrator import audit
from orchestrator.db import autocommit
from orchestrator.errors import Invalid, Violation
from orchestrator.feed import Wanted
from orchestrator.lifecycle import EVENTS, Status
from orchestrator.rows import Rows
from web.console import place, words
from web.console.door import bp
from web.console.place import NOTHING, Place

ROWS = 50

EXPORTED, PAGE, PAGES = 5_000, 500, 50
"""Lines of an audit as CSV, the newest; how many are asked for at once, and how often at most."""

LONGEST = 1_000
"""Characters of the changes of one event in it."""

FILTERS = ("agent", "verb", "status")

COLUMNS = ("time", "project", "agent_id", "agent", "version", "verb", "before", "after", "actor", "reason", "changes")


@bp.get("/audit", endpoint="audit")
def page() -> Response:
    """Every change of every agent, and whose it was; what is wrong with the address is said above it."""
    filters = place.given(FILTERS, request.args)
    with autocommit() as db:
        at = place.here(db)
        (rows, cursor), wrong = place.tried(lambda: _found(db, at, filters), NOTHING)
    html = render_template(
        "console/audit.html", at=at, rows=rows, cursor=cursor, filters=filters, verbs=EVENTS, exported=EXPORTED,
        problem=wrong, **place.stillness(wrong),
    )  # fmt: skip
    return make_response(html, wrong.status if wrong else 200)


@bp.get("/audit.csv")
def audit_csv() -> Response:
    """The same, to be kept elsewhere. Raises Invalid for a filter that cannot be."""
    wanted = _wanted(place.given(FILTERS, request.args))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    with autocommit() as db:
        writer.writerows(map(_line, _exported(db, place.here(db).ids, *wanted)))
    headers = {"Content-Disposition": "attachment; filename=audit.csv"}
    return Response(text.getvalue(), content_type="text/csv; charset=utf-8", headers=headers)


def _found(db: Connection, at: Place, filters: dict[str, str]) -> tuple[Rows, str | None]:
    return audit.events(db, at.ids, request.args.get("cursor"), place.limit(ROWS), *_wanted(filters))


def _exported(db: Connection, projects: list[UUID], wanted: Wanted, agent_id: UUID | None) -> Iterator[Any]:
    cursor, left = None, EXPORTED
    for _ in range(PAGES):
        rows, cursor = audit.events(db, projects, cursor, min(PAGE, left), wanted, agent_id)
        yield from rows
        left -= len(rows)
        if cursor is None or not left:
            return


def _line(row: Any) -> list[Any]:
    changes = words.cut(json.dumps(row.changes, ensure_ascii=False), LONGEST)  # an agent's memory may be among them
    what = [row.version, row.verb, row.before, row.after, _harmless(words.who(row)), _harmless(row.reason), changes]
    return [row.at.isoformat(), row.project_slug, row.agent_id, _harmless(row.agent_name), *what]


def _harmless(cell: str | None) -> str:
    """Spreadsheets run what begins like a formula."""
    cell = cell or ""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _wanted(filters: dict[str, str]) -> tuple[Wanted, UUID | None]:
    """What the address asks for. Raises Invalid for what there is not."""
    place.demand_known(filters, verb=EVENTS, status=list(Status))
    try:
        agent_id = UUID(filters["agent"]) if "agent" in filters else None
    except ValueError:
        raise Invalid(Violation("must be an agent's id", "agent")) from None
    return Wanted(filters.get("verb"), filters.get("status")), agent_id
