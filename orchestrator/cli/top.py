"""`orch top`: the fleet at a glance, live."""

import sys
import time
from collections import deque
from collections.abc import Sequence, Set
from decimal import Decimal
from threading import Thread
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from orchestrator.cli import feed, outlet, render
from orchestrator.cli.agents import STATUSES
from orchestrator.cli.events import line
from orchestrator.cli.failures import Failure
from orchestrator.cli.session import Session, command, in_projects
from orchestrator.sdk.calls import RETRIED

COLUMNS = ("project", "agents", *STATUSES, "cost_incurred", "tokens_used", "tasks_completed")

LAST = 12
"""Events that are shown."""

REFRESH_SECONDS = 0.5

LOOK_SECONDS = 1.5
"""Between two requests for sums: the default limit allows sixty a minute."""

AT_ONCE = 20
"""Projects whose sums are asked for without that pause at the start: a third of what a minute allows."""

LIMITED, RESTORED = 429, 410
PASSING = frozenset({LIMITED, 503})
"""Statuses after which the same request may be answered: too many, or not able just now."""
LASTING = RETRIED | {None}
"""The same once the server has answered; None: there is no answer. It is started again, then."""

Row = dict[str, Any]


@click.command()
@in_projects
@click.option("--most", type=click.IntRange(1, 100), default=20, show_default=True, help="At most so many projects.")
@command
def top(session: Session, project: str | None, most: int) -> None:
    """Show projects with their agents by status and what they cost, and what happens, until Ctrl-C.

    A server that goes away is waited for. Where standard output is no terminal, or JSON is asked for: once.
    """
    path = session.project(project) if project else ""
    found = [session.client.get(path)] if path else list(session.client.pages("/projects", most + 1))
    live = Fleet(session, found[:most], are_all=len(found) <= most)
    if session.as_json or session.output == "id" or not outlet.is_terminal(sys.stdout):
        live.look_at_all()
        session.show_all(live.rows, COLUMNS)
        return
    Thread(target=live.listen, args=(f"{path}/events",), daemon=True).start()
    Thread(target=live.look_around, daemon=True).start()
    with Live(console=render.console(), auto_refresh=False, screen=True) as display:
        while live.failure is None:
            display.update(live.screen(), refresh=True)
            time.sleep(REFRESH_SECONDS)
    raise live.failure


class Fleet:
    """Projects with their sums, which are asked for in turn; those in which something happens are first. `are_all`:
    whether there are no others that the caller may see."""

    def __init__(self, session: Session, projects: Sequence[Row], are_all: bool = True) -> None:
        self._session, self._are_all = session, are_all
        self._rows = {project["id"]: {"id": project["id"], "project": project["slug"]} for project in projects}
        self._turns = deque(self._rows)
        self._last: deque[Row] = deque(maxlen=LAST)
        self._is_listening = self._is_away = False
        self._here: str | None = None
        self.failure: Failure | None = None
        """Why it is over."""

    @property
    def rows(self) -> list[Row]:
        """Those whose sums are known."""
        return [row for row in self._rows.values() if "agents" in row]

    def look_at_all(self) -> None:
        """Ask for the sums of each project."""
        for project_id in self._rows:
            self._look(project_id, PASSING)

    def look_around(self) -> None:
        """The same, over and over, at a pace that the limits allow."""
        try:
            while True:
                if self._turns:
                    self._turns.rotate(-1)
                    self._look(self._turns[-1], LASTING)
                if len(self.rows) >= min(AT_ONCE, len(self._rows)):
                    time.sleep(LOOK_SECONDS)
        except Failure as failure:
            self.failure = failure

    def listen(self, path: str) -> None:
        """Note what happens, and have those projects looked at next."""
        while self.failure is None:
            try:
                self._follow(path)
            except Failure as failure:
                if failure.status == RESTORED:
                    self._here = None
                elif failure.status not in LASTING:
                    self.failure = failure
                time.sleep(failure.retry_after or LOOK_SECONDS)

    def screen(self) -> Group:
        """All that is known, as people see it."""
        rows, events = self.rows, [*self._last]
        cost = sum((Decimal(row["cost_incurred"]) for row in rows), Decimal())
        table = render.table(rows, COLUMNS)
        some = "" if self._are_all else f" in the newest {len(self._rows)} projects, of more (--most)"
        some = some if len(rows) == len(self._rows) else f" in {len(rows)} of {len(self._rows)} projects so far"
        away = ", reconnecting" if self._is_away else ""
        sums = f"{sum(row['agents'] for row in rows)} agents, {cost} USD{some}, {time.strftime('%H:%M:%S')}{away}"
        table.caption = f"{sums}\n{table.caption}" if table.caption else sums
        waiting = "nothing has happened yet" if self._is_listening else "connecting"
        return Group(table, *(map(line, events) if events else [Text(waiting, style="dim")]))

    def _follow(self, path: str) -> None:
        """Note what happens from where it was left off, or from now on."""
        self._here = self._here or feed.here(self._session.client, path)
        self._is_listening = True
        for event in feed.follow(self._session.client, path, self._here):
            self._here = event["cursor"]
            self._last.append(event)
            self._move_up(event["project_id"])

    def _look(self, project_id: str, passing: Set[int | None]) -> None:
        """Ask for its sums, as soon as the server lets us: failures of these statuses are waited out."""
        while True:
            try:
                sums = self._session.client.get(f"/projects/{project_id}/agents/metrics")
                break
            except Failure as failure:
                if failure.status not in passing:
                    raise
                self._is_away = failure.status != LIMITED
                time.sleep(failure.retry_after or LOOK_SECONDS)
        self._is_away = False
        found = {"agents": sums["total_instances"]} | {status: sums["by_status"][status] for status in STATUSES}
        found |= {name: sums[f"total_{name}"] for name in ("tasks_completed", "tokens_used", "cost_incurred")}
        self._rows[project_id] = self._rows[project_id] | found

    def _move_up(self, project_id: str) -> None:
        if project_id in self._rows:
            self._turns.remove(project_id)
            self._turns.appendleft(project_id)
