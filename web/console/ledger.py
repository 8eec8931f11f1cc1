"""The commands: whether orders are obeyed, and how fast; and the audit: who did what."""

import csv
import io
from typing import Any
from uuid import UUID

from flask import Response, make_response, render_template, request
from sqlalchemy import Connection

from orchestrator import overview
from orchestrator.db import autocommit
from orchestrator.errors import Invalid, Violation
from orchestrator.fields import is_uuid, parse_uuid
from orchestrator.lifecycle import COMMANDS
from orchestrator.rows import Rows
from orchestrator.states import State
from web.console import place, words
from web.console.door import bp
from web.console.place import RANGES, Place

ROWS = 50

EXPORTED = 5_000
"""Lines of an audit as CSV: the newest."""

FILTERS = ("state", "verb", "batch", "agent")

NOTHING: tuple[Rows, str | None] = ([], None)
"""A page of commands without any, and without a next one."""


@bp.get("/commands")
def commands() -> Response:
    """The ledger."""
    with autocommit() as db:
        at = place.here(db)
        filters = place.given(FILTERS, request.args)
        (rows, cursor), wrong = place.tried(lambda: _found(db, at, filters), NOTHING)
    html = render_template(
        "console/commands.html", at=at, rows=rows, cursor=cursor, filters=filters, ranges=RANGES, states=list(State),
        range=place.kept(RANGES, "1h"), verbs=COMMANDS, problem=wrong, **place.stillness(wrong),
    )  # fmt: skip
    return make_response(html, wrong.status if wrong else 200)


@bp.get("/audit")
def audit() -> str:
    """Every change of every agent, and whose it was."""
    with autocommit() as db:
        at = place.here(db)
        rows, cursor = overview.events(db, at.ids, request.args.get("cursor"), place.limit(ROWS))
    return render_template("console/audit.html", at=at, rows=rows, cursor=cursor)


@bp.get("/audit.csv")
def audit_csv() -> Response:
    """The same, to be kept elsewhere."""
    with autocommit() as db:
        rows, _ = overview.events(db, place.here(db).ids, None, EXPORTED)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["time", "project", "agent_id", "agent", "version", "verb", "before", "after", "actor", "reason"])
    writer.writerows(map(_line, rows))
    headers = {"Content-Disposition": "attachment; filename=audit.csv"}
    return Response(text.getvalue(), content_type="text/csv; charset=utf-8", headers=headers)


def _line(row: Any) -> list[Any]:
    what = [row.version, row.verb, row.before, row.after, _harmless(words.who(row)), _harmless(row.reason)]
    return [row.at.isoformat(), row.project_slug, row.agent_id, _harmless(row.agent_name), *what]


def _harmless(cell: str | None) -> str:
    """Spreadsheets run what begins like a formula."""
    cell = cell or ""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _found(db: Connection, at: Place, filters: dict[str, str]) -> tuple[Rows, str | None]:
    place.window(RANGES, "1h")  # what is wrong with the chart's is said, too
    wanted = _wanted(db, at, filters)
    return overview.commands(db, at.ids, wanted, request.args.get("cursor"), place.limit(ROWS))


def _wanted(db: Connection, at: Place, filters: dict[str, str]) -> dict[str, Any]:
    """Which commands these filters mean. Raises Invalid for what there is not."""
    for name, known in (("state", list(State)), ("verb", list(COMMANDS))):
        if filters.get(name, known[0]) not in map(str, known):
            raise Invalid(Violation(f"can be {', '.join(known)}", name))
    wanted: dict[str, Any] = {name: filters[name] for name in ("state", "verb") if name in filters}
    if "batch" in filters:
        wanted["batch_id"] = _batch(filters["batch"])
    if "agent" in filters:
        wanted["agent_id"] = _agent(db, at, filters["agent"])
    return wanted


def _batch(value: str) -> UUID:
    try:
        return parse_uuid(value)
    except ValueError:
        raise Invalid(Violation("must be a batch's id", "batch")) from None


def _agent(db: Connection, at: Place, value: str) -> UUID:
    """By its id; or by its name, where no other agent has it."""
    return UUID(value) if is_uuid(value) else overview.agent_named(db, at.ids, value)
