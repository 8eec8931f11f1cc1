"""The commands: whether orders are obeyed, and how fast; and the audit: who did what."""

import csv
import io
from typing import Any
from uuid import UUID

from flask import Response, render_template, request

from orchestrator import overview
from orchestrator.db import autocommit
from orchestrator.errors import Invalid, Violation
from orchestrator.lifecycle import COMMANDS
from orchestrator.states import State
from web.console import place, words
from web.console.door import bp
from web.console.place import RANGES

ROWS = 50

EXPORTED = 5_000
"""Lines of an audit as CSV: the newest."""


@bp.get("/commands")
def commands() -> str:
    """The ledger."""
    with autocommit() as db:
        at = place.here(db)
        name, _ = place.window(RANGES, "1h")
        wanted, filters = _wanted()
        rows, cursor = overview.commands(db, at.ids, wanted, request.args.get("cursor"), place.limit(ROWS))
    return render_template(
        "console/commands.html", at=at, rows=rows, cursor=cursor, filters=filters, range=name, ranges=RANGES,
        states=State, verbs=COMMANDS,
    )  # fmt: skip


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


def _wanted() -> tuple[dict[str, Any], dict[str, str]]:
    """The filter that the address names. Raises Invalid for what there is not."""
    filters = {name: request.args[name] for name in ("state", "verb", "batch", "agent") if request.args.get(name)}
    for name, known in (("state", list(State)), ("verb", list(COMMANDS))):
        if filters.get(name, known[0]) not in map(str, known):
            raise Invalid(Violation(f"can be {', '.join(known)}", name))
    wanted: dict[str, Any] = {name: filters[name] for name in ("state", "verb") if name in filters}
    for name in ("batch", "agent"):
        if name in filters:
            wanted[f"{name}_id"] = _id(filters[name], name)
    return wanted, filters


def _id(value: str, name: str) -> UUID:
    try:
        return UUID(value)
    except ValueError:
        raise Invalid(Violation("must be an id", name)) from None
