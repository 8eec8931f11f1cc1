"""The commands: whether orders are obeyed, and how fast."""

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
from web.console import place
from web.console.door import bp
from web.console.place import NOTHING, RANGES, Place

ROWS = 50

FILTERS = ("state", "verb", "batch", "agent")


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


def _found(db: Connection, at: Place, filters: dict[str, str]) -> tuple[Rows, str | None]:
    place.window(RANGES, "1h")  # what is wrong with the chart's is said, too
    wanted = _wanted(db, at, filters)
    return overview.commands(db, at.ids, wanted, request.args.get("cursor"), place.limit(ROWS))


def _wanted(db: Connection, at: Place, filters: dict[str, str]) -> dict[str, Any]:
    """Which commands these filters mean. Raises Invalid for what there is not."""
    place.demand_known(filters, state=list(State), verb=list(COMMANDS))
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
