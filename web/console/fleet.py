"""The fleet at a glance: is it fine, and what needs somebody?"""

from datetime import UTC, datetime, timedelta
from typing import Any

from flask import g, render_template
from sqlalchemy import Connection

from orchestrator import audit, overview, queries, trends
from orchestrator.db import autocommit
from orchestrator.lifecycle import Status
from orchestrator.trends import Window
from web.console import lines, pictures, place
from web.console.door import bp
from web.console.place import RANGES, Place

TOLD = 12
"""Events of the ticker."""


@bp.get("/")
def fleet() -> str:
    """The first page."""
    with autocommit() as db:
        at = place.here(db)
        name, _ = place.window(RANGES, "1h")
        if not overview.has_agents(db, g.caller, at.chosen and at.chosen.id):
            return render_template("console/first.html", at=at, range=name, steps=lines.first_steps(db, at))
        return render_template("console/fleet.html", at=at, range=name, ranges=RANGES, **_glance(db, at))


def _glance(db: Connection, at: Place) -> dict[str, Any]:
    now = datetime.now(UTC)
    hour = Window(now - timedelta(hours=1), now, 60)
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    history = trends.fleet(db, at.ids, hour)
    took = trends.latency(db, at.ids, hour._replace(step=trends.ONE_BIN))
    return {
        "tiles": [_tile(status, at, history) for status in Status],
        "spent": trends.spent(trends.cost(db, at.ids, Window(today, now, 86_400))),
        "latency": took[0] if took else None,
        "attention": overview.attention(db, at.ids),
        "oldest": queries.queue(db).age,
        "events": audit.events(db, at.ids, None, TOLD)[0],
    }


def _tile(status: Status, at: Place, history: Any) -> dict[str, Any]:
    values = [getattr(row, status) for row in history]
    count = sum(getattr(project, status) for project in at.rows)
    return {"status": status, "count": count, "points": pictures.sparkline(values)}
