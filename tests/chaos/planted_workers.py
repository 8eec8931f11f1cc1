"""Bugs of the workers: how commands are claimed, decided and written, and what becomes due by itself."""

import re
from typing import Any

from tests.chaos.planting import RARELY, Bug, all_of, rarely, rewritten, wrapped


def _never(original: Any) -> bool:
    del original
    return False


def _believe(original: Any, db: Any, *calls: Any) -> Any:
    """Whatever was written, take it for what was to be written."""
    from types import SimpleNamespace  # noqa: PLC0415

    original(db, *calls)
    return [SimpleNamespace(rowcount=len(values["rows"].obj)) for _, values in calls]


_NO_LOCK = {
    "orchestrator.claims": rewritten("_CLAIM", ("FOR NO KEY UPDATE OF a SKIP LOCKED", "")),
    "orchestrator.record": all_of(
        rewritten("_WRITE_AGENTS", (" AND a.version = n.read", "")),
        rewritten("_WRITE_EVENTS", ("reason text)", "reason text) ON CONFLICT DO NOTHING")),
        rewritten("_CLOSE_COMMANDS", ("c.closed_at IS NULL OR n.state IS NULL", "true")),
        wrapped("together", _believe),
    ),
}
"""The claim alone does not keep two from one agent: so does what they had read, and what is unique."""


def _count_in_python(record: Any) -> None:
    """Read all processes' common counters, add to them, and write them back."""
    from sqlalchemy import text  # noqa: PLC0415

    read = text("SELECT * FROM project_counters WHERE project_id = ANY(:ids) AND slot = 0")
    names = {"tasks": "tasks_completed", "tokens": "tokens_used", "cost": "cost_incurred"}
    write, rows, before = record.write, record._counter_rows, dict[Any, Any]()

    def written(db: Any, changes: Any, _: int, task_id: Any) -> None:
        ids = list({agent.project_id for agent in changes.after.values()})
        before.update({row.project_id: row for row in db.execute(read, {"ids": ids})})
        write(db, changes, 0, task_id)

    def added(row: dict[str, Any]) -> dict[str, Any]:
        was = before.get(row["project_id"])
        return row | {
            name: value + getattr(was, names.get(name, name), 0) for name, value in row.items() if name != "project_id"
        }

    record._COUNT = text(re.sub(r"k\.\w+ \+ ", "", str(record._COUNT)))
    record.write, record._counter_rows = written, lambda changes: [added(row) for row in rows(changes)]


def _count_too_much(original: Any, db: Any, agents: Any, *slot: Any) -> Any:
    from dataclasses import replace  # noqa: PLC0415

    sums = original(db, agents, *slot)
    return {id_: replace(sum_, tokens_used=sum_.tokens_used + 1) if rarely() else sum_ for id_, sum_ in sums.items()}


def _let_move(status: str) -> Any:
    def move(original: Any, now: Any, verb: Any) -> Any:
        if now == status and verb == "resume":
            return type(now)("idle")
        return original(now, verb)

    return move


def _ignore_if_match(original: Any, agent: Any, command: Any, now: Any) -> Any:
    return original(agent, command._replace(precondition=None), now)


def _skip_a_version(original: Any, agent: Any, event: Any, at: Any) -> Any:
    after = original(agent, event, at)
    return after._replace(version=after.version + 1) if rarely() else after


def _lose_events(original: Any, changes: Any) -> Any:
    return [row for row in original(changes) if not rarely()]


def _let_rest(original: Any, db: Any) -> int:
    """The system sends the word that a process is gone, where there never was one."""
    from uuid import uuid4  # noqa: PLC0415

    from sqlalchemy import text  # noqa: PLC0415

    from orchestrator import errands  # noqa: PLC0415
    from orchestrator.lifecycle import Verb  # noqa: PLC0415

    working = text("""
        SELECT id, project_id FROM agents a WHERE status = 'working'
            AND NOT EXISTS (SELECT FROM leases l WHERE l.agent_id = a.id) LIMIT 1
    """)
    word = (Verb.SETTLE, f"lease:{uuid4()}:1", "lease_lost", {"by": "expiry"})
    return int(original(db)) + errands.send(db, [errands.Errand(*row, *word) for row in db.execute(working)])


def _live_for_ever(lease_tables: Any) -> None:
    lease_tables.LIVE = "(l.ended_at IS NULL)"


BUGS: dict[str, Bug] = {
    "no sweep": Bug({"workers.tasks": wrapped("ring_for_overdue", _never)}, "lost"),
    "no lock": Bug(_NO_LOCK, "versions"),
    "counted in Python": Bug({"orchestrator.record": _count_in_python}, "books"),
    "counters drift": Bug({"orchestrator.drain": wrapped("fold", _count_too_much)}, "books"),
    "usage counted twice": Bug(
        {"orchestrator.ledger": rewritten("_FOLD", ("SET folded = true", f"SET folded = random() > {RARELY}"))}, "books"
    ),
    "terminal does not absorb": Bug({"orchestrator.decide": wrapped("move", _let_move("terminated"))}, "replay"),
    "resume of a working one": Bug({"orchestrator.decide": wrapped("move", _let_move("working"))}, "replay"),
    "if-match ignored": Bug({"orchestrator.decide": wrapped("_decide_one", _ignore_if_match)}, "if_match"),
    "newest first": Bug(
        {"orchestrator.drain": rewritten("_MAILBOXES", ("ORDER BY c.seq", "ORDER BY c.seq DESC"))}, "order"
    ),
    "a version skipped": Bug({"orchestrator.decide": wrapped("_after", _skip_a_version)}, "versions"),
    "events get lost": Bug({"orchestrator.record": wrapped("_event_rows", _lose_events)}, "replay"),
    "the system lets others rest": Bug({"orchestrator.timers": wrapped("send_due", _let_rest)}, "unasked"),
    "silence ends no lease": Bug({"orchestrator.lease_tables": _live_for_ever}, "still"),
}
