"""Where the money goes."""

from flask import render_template

from orchestrator import overview, trends
from orchestrator.db import autocommit
from web.console import place
from web.console.door import bp
from web.console.place import DAYS

SHOWN, TOP = 12, 10
"""Lines of a breakdown; agents of the list."""


@bp.get("/costs")
def costs() -> str:
    """By time, project, type and model; and who has spent most."""
    with autocommit() as db:
        at = place.here(db)
        name, window = place.window(DAYS, "7d")
        groups = ("model", "type") if at.chosen else ("project", "model", "type")
        parts = {group: trends.cost_by(db, at.ids, window, group, SHOWN) for group in groups}
        hours = trends.cost(db, at.ids, window)
        unpriced = trends.unpriced(db, at.ids, window, SHOWN)
        spenders = overview.spenders(db, at.ids, window.since, TOP)
        all_time = sum(project.cost_incurred for project in at.rows)
        is_known = bool(all_time) or not trends.has_unpriced(db, at.ids)
    whole = {"cost": trends.spent(hours), "tokens": sum(row.tokens for row in hours)}
    return render_template(
        "console/costs.html", at=at, range=name, ranges=DAYS, parts_=parts, whole=whole, spenders=spenders,
        unpriced=unpriced, all_time=all_time if is_known else None,
    )  # fmt: skip
