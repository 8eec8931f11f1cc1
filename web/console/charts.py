"""The numbers behind the charts, for the script that draws them and for whoever wants them as CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from flask import Response, jsonify, request
from sqlalchemy import Connection

from orchestrator import trends
from orchestrator.db import autocommit
from orchestrator.errors import NotFound
from orchestrator.lifecycle import Status
from orchestrator.rollups import PARTS
from orchestrator.trends import QUANTILES, Window
from web.console import place
from web.console.door import bp
from web.console.place import DAYS, RANGES, Place

LIVING = [status for status in Status if status is not Status.TERMINATED]


class Chart(NamedTuple):
    """The time it is about, the names of its lines, and one row for each time: seconds since 1970, and a number for
    each line."""

    window: Window
    names: Sequence[str]
    rows: Iterable[Sequence[Any]]


@bp.get("/charts/<name>")
def chart(name: str) -> Response:
    """One chart's numbers: `fleet`, `latency` or `cost`, as JSON; as CSV with `.csv` behind."""
    name, _, kind = name.partition(".")
    if name not in _CHARTS or kind not in ("", "csv"):
        raise NotFound(f"there is nothing at {request.path}")
    with autocommit() as db:
        made = _CHARTS[name](db, place.here(db))
    if kind:
        return _csv(name, made)
    ends = [made.window.since.timestamp(), made.window.until.timestamp()]
    return jsonify(names=made.names, columns=_columns(made), ends=ends, step=made.window.step)


def _fleet(db: Connection, at: Place) -> Chart:
    """Each number is that of a bin's end, or of now, where that is still to come."""
    _, window = place.window(RANGES, "1h")
    now, rows = window.until.timestamp(), trends.fleet(db, at.ids, window)
    ends = [min(row.start.timestamp() + window.step, now) for row in rows]
    numbers = [[getattr(row, status) for status in LIVING] for row in rows]
    return Chart(window, LIVING, [[end, *each] for end, each in zip(ends, numbers, strict=True)])


def _latency(db: Connection, at: Place) -> Chart:
    _, window = place.window(RANGES, "1h")
    names = [f"{part} p{100 * q:.0f}" for part in PARTS for q in QUANTILES]
    found = trends.latency(db, at.ids, window)
    rows = [[each.start.timestamp(), *(n for part in PARTS for n in each.quantiles[part])] for each in found]
    return Chart(window, names, rows)


def _cost(db: Connection, at: Place) -> Chart:
    _, window = place.window(DAYS, "7d")
    rows = trends.cost(db, at.ids, window)
    return Chart(window, ["USD", "tokens"], [[row.start.timestamp(), float(row.cost), int(row.tokens)] for row in rows])


_CHARTS = {"fleet": _fleet, "latency": _latency, "cost": _cost}


def _columns(made: Chart) -> list[list[Any]]:
    rows = list(made.rows)
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(len(made.names) + 1)]


def _csv(name: str, made: Chart) -> Response:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["time", *made.names])
    writer.writerows(made.rows)
    headers = {"Content-Disposition": f"attachment; filename={name}.csv"}
    return Response(text.getvalue(), content_type="text/csv; charset=utf-8", headers=headers)
