"""How the database goes about the hot statements: by an index, never through all agents, commands, events, entries."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event, text

from bench.world import Fleet, fleet, tidy
from orchestrator import audit, bulk, claims, feed, matching, pipeline, queries, timers, usage
from orchestrator import fleet as agents
from orchestrator.accept import accept
from orchestrator.db import Guard, autocommit, begin, engine
from orchestrator.drain import Drainer
from orchestrator.fleet import Filter
from orchestrator.keys import Caller
from orchestrator.ledger import AgentEntry, take
from orchestrator.lifecycle import Status
from orchestrator.orders import Pause
from tests.stage import sql

LARGE = {"agents", "commands", "events", "usage_entries"}
MANY = 20_000

HISTORY = """
    INSERT INTO commands (id, project_id, agent_id, verb, payload, actor_type, state, closed_at, version)
    SELECT gen_random_uuid(), project_id, id, 'update', '{}', 'system', 'applied', now(), 1 FROM agents
"""
LEDGER = """
    INSERT INTO usage_entries (agent_id, report_id, project_id, fingerprint, occurred_at, input_tokens, output_tokens,
        cache_read_tokens, cache_write_tokens, tasks_completed, folded)
    SELECT id, 'old', project_id, '', now() - row_number() OVER () * interval '2 minutes', 1, 1, 0, 0, 0, true
    FROM agents
"""
OTHERS = """
    UPDATE agents SET status = 'working' WHERE id IN (SELECT id FROM agents ORDER BY id LIMIT 20)
"""


@pytest.fixture(scope="module")
def large(apart: str) -> Fleet:
    """A fleet with a history, and a small one beside it; analysed, as a database in use is."""
    del apart
    made = fleet(f"large-{uuid4().hex[:8]}", MANY)
    fleet(f"small-{uuid4().hex[:8]}", 100)
    for statement in (HISTORY, LEDGER, OTHERS):
        sql(statement)
    tidy()
    return made


@pytest.fixture
def caller(large: Fleet) -> Caller:
    """The administrator."""
    (row,) = sql("SELECT id, email FROM users")
    return Caller(row.id, row.email, True, True, None, "test", "")


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch, guard: Guard) -> Iterator[list[tuple[str, Any]]]:
    """Every statement of this process inside the block, with its values, as the database gets it."""
    found: list[tuple[str, Any]] = []
    run = pipeline._run

    def note(_: Any, __: Any, statement: str, values: Any, *___: Any) -> None:
        found.append((statement, values))

    def note_all(db: Any, calls: Any, manner: Any) -> Any:
        found.extend((pipeline._sql(statement).decode(), values) for statement, values in calls)
        return run(db, calls, manner)

    event.listen(engine(guard), "before_cursor_execute", note)
    monkeypatch.setattr(pipeline, "_run", note_all)
    try:
        yield found
    finally:
        event.remove(engine(guard), "before_cursor_execute", note)
        monkeypatch.undo()


def plan(statement: str, values: Any, guard: Guard) -> list[dict[str, Any]]:
    """Every node of what the database would do for a statement."""
    with begin(guard) as db:
        cursor = db.connection.driver_connection.cursor()  # type: ignore[union-attr]
        (found,) = cursor.execute(f"EXPLAIN (FORMAT JSON) {statement}", values).fetchone()[0]
    return list(nodes(found["Plan"]))


def scanned(statement: str, values: Any, guard: Guard) -> set[str]:
    """The tables that the database would read from end to end for a statement."""
    return {node["Relation Name"] for node in plan(statement, values, guard) if node["Node Type"] == "Seq Scan"}


def nodes(top: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A node of a plan, and all below it."""
    yield top
    for part in top.get("Plans", ()):
        yield from nodes(part)


Work = Callable[[Any, Caller, Fleet, UUID], Any]

PAGES = {
    "of all": Filter(),
    "by status": Filter(status=Status.WORKING),
    "by a status that nobody has": Filter(status=Status.WAITING),
    "by type": Filter(type="its"),
    "by type and status": Filter(type="its", status=Status.WORKING),
    "by type and a status that nobody has": Filter(type="its", status=Status.WAITING),
    "by name": Filter(q="a-777"),
}
READS: dict[str, Work] = {
    "first page": lambda db, _, f, __: agents.page(db, f.project_id, Filter(), 1, 20),
    "a page by cursor": lambda db, _, f, __: agents.page_after(
        db, f.project_id, Filter(), agents.page(db, f.project_id, Filter(), 1, 20).next_cursor or "", 20
    ),
    "by status": lambda db, _, f, __: agents.page(db, f.project_id, Filter(status=Status.WORKING), 1, 20),
    "by type": lambda db, _, f, __: agents.page(db, f.project_id, Filter(type=f.type_slug), 1, 20),
    "by another type": lambda db, _, f, __: agents.page(db, f.project_id, Filter(type="none-such"), 1, 20),
    "by type and status": lambda db, _, f, __: agents.page(
        db, f.project_id, Filter(type=f.type_slug, status=Status.WORKING), 1, 20
    ),
    "by name": lambda db, _, f, __: agents.page(db, f.project_id, Filter(q="a-777"), 1, 20),
    "by a name that all begin with": lambda db, _, f, __: agents.page(db, f.project_id, Filter(q="a-"), 1, 20),
    "by such a name and status": lambda db, _, f, __: agents.page(
        db, f.project_id, Filter(q="a-", status=Status.IDLE), 1, 20
    ),
    "of a batch": lambda db, _, f, __: agents.page(db, f.project_id, Filter(batch=uuid4()), 1, 20),
    "sums": lambda db, _, f, __: agents.metrics(db, f.project_id),
    "one agent": lambda db, c, f, a: agents.agent(db, c, f.project_id, a),
    "an agent's events": lambda db, _, __, a: queries.agent_events(db, a, 0, 20),
    "the project's events": lambda db, _, f, __: feed.read(db, feed.Scope((f.project_id,)), None, 20),
    "the events of some projects": lambda db, _, f, __: feed.read(db, feed.Scope((f.project_id, uuid4())), None, 20),
    "everybody's events": lambda db, _, __, ___: feed.read(db, feed.Scope(), None, 20),
    "the audit": lambda db, _, f, __: audit.events(db, [f.project_id], None, 20),
    "the audit of a verb": lambda db, _, f, __: audit.events(db, [f.project_id], None, 20, feed.Wanted("terminate")),
    "the audit of an agent": lambda db, _, f, a: audit.events(db, [f.project_id], None, 20, agent_id=a),
    "commands": lambda db, _, f, __: queries.commands(db, f.project_id, {}, None, 20),
    "commands of a state that none is in": lambda db, _, f, __: queries.commands(
        db, f.project_id, {"state": "cancelled"}, None, 20
    ),
    "commands of a batch": lambda db, _, f, __: queries.commands(db, f.project_id, {"batch_id": uuid4()}, None, 20),
    "an agent's commands": lambda db, _, f, a: queries.commands(db, f.project_id, {"agent_id": a}, None, 20),
    "a batch's progress": lambda db, _, f, __: queries.batch(db, f.project_id, uuid4()),
    "whether anything waits too long": lambda db, _, __, ___: queries.overdue(db, claims.FRONT),
    "how the queue stands": lambda db, _, __, ___: queries.queue(db),
    "how many a filter by name matches": lambda db, _, f, __: matching.count(db, f.project_id, Filter(q="a-777")),
    "how many a batch was applied to": lambda db, _, f, __: matching.count(db, f.project_id, Filter(batch=uuid4())),
}
WRITES: dict[str, Work] = {
    "a command": lambda db, c, f, a: accept(db, c, f.project_id, a, Pause()),
    "a list": lambda db, c, f, a: bulk.accept_list(db, c, f.project_id, [{"verb": "pause", "agent_id": str(a)}] * 9),
    "usage": lambda db, _, f, a: take(db, f.project_id, [AgentEntry(agent_id=a, report_id=uuid4().hex)]),
}


@pytest.mark.parametrize("what", [*READS, *WRITES])
def test_the_door_reads_by_an_index(large: Fleet, caller: Caller, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    agent = large.agents(1)[0]
    with recorded(monkeypatch, Guard.DOOR) as found, begin() if what in WRITES else autocommit() as db:
        (READS | WRITES)[what](db, caller, large, agent)

    assert found
    for statement, values in found:
        assert scanned(statement, values, Guard.DOOR) & LARGE == set(), statement


@pytest.mark.parametrize("wanted", PAGES.values(), ids=PAGES)
def test_a_page_is_found_in_indexes_alone(large: Fleet, monkeypatch: pytest.MonkeyPatch, wanted: Filter) -> None:
    wanted = replace(wanted, type=wanted.type and large.type_slug)

    with recorded(monkeypatch, Guard.DOOR) as found, autocommit() as db:
        agents.page(db, large.project_id, wanted, 1, 20)
        agents.page(db, large.project_id, wanted, 400, 20)

    searches = [node for call in found for node in plan(*call, Guard.DOOR) if "ix_agents" in node.get("Index Name", "")]
    assert len(searches) >= 2
    assert {node["Node Type"] for node in searches if node["Plan Rows"] > 1} <= {"Index Only Scan"}
    assert (
        max(node["Plan Rows"] for call in found for node in plan(*call, Guard.DOOR) if node["Node Type"] == "Sort")
        < 500
    )


def test_what_is_of_an_old_batch_is_found_without_a_look_at_what_is_newer(
    large: Fleet, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    with begin() as db:
        items = [{"verb": "pause", "agent_id": str(id_)} for id_ in large.agents(5)]
        batch = UUID(bulk.accept_list(db, caller, large.project_id, items).batch_id)
        db.execute(text("UPDATE commands SET state = 'applied', closed_at = now() WHERE batch_id = :b"), {"b": batch})
        db.execute(text(HISTORY))
        with recorded(monkeypatch, Guard.DOOR) as found:
            listed, _ = queries.commands(db, large.project_id, {"batch_id": batch}, None, 20)
            number = matching.count(db, large.project_id, Filter(batch=batch))
        looked_at = [seen(db, *call, table="commands") for call in found]
        db.rollback()

    assert (len(listed), number) == (5, 5)
    assert len(looked_at) == 2
    assert max(looked_at) < 20


def seen(db: Any, statement: str, values: Any, table: str) -> float:
    """How many rows of a table the database looks at for a statement."""
    cursor = db.connection.driver_connection.cursor()
    (told,) = cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values).fetchone()[0]
    scans = [node for node in nodes(told["Plan"]) if node.get("Relation Name") == table]
    assert scans
    return sum((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] for node in scans)


@pytest.mark.parametrize("group", ["model", "agent_type", "hour", "day"])
def test_usage_is_summed_from_few_entries_of_the_ledger(
    large: Fleet, monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    half = datetime.now(UTC).replace(minute=30)
    with recorded(monkeypatch, Guard.DOOR) as found, autocommit() as db:
        for since, until in ((None, None), (half - timedelta(days=20), half - timedelta(days=2)), (half, None)):
            usage.by(db, large.project_id, group, since, until)

    reads = [node for call in found for node in plan(*call, Guard.DOOR) if node.get("Relation Name") == "usage_entries"]
    assert len(reads) == 6
    assert {node["Node Type"] for node in reads} <= {"Index Scan", "Bitmap Heap Scan"}
    assert max(node["Plan Rows"] for node in reads) < 200


def test_so_does_a_batch_of_the_drain(large: Fleet, caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = large.agents(100)
    with begin() as db:
        items = [{"verb": "pause", "agent_id": str(id_)} for id_ in ids]
        sent = bulk.accept_list(db, caller, large.project_id, items)
        take(db, large.project_id, [AgentEntry(agent_id=id_, report_id="new", input_tokens=1) for id_ in ids])

    with recorded(monkeypatch, Guard.DRAIN) as found, begin(Guard.DRAIN) as db:
        batch = Drainer(0).drain(db, claims.claim(db, 500))
    with recorded(monkeypatch, Guard.DOOR) as counting, autocommit() as db:
        number = matching.count(db, large.project_id, Filter(batch=UUID(sent.batch_id)))

    assert len(batch.outcomes) >= 100
    assert len(found) >= 8
    for statement, values in found:
        assert scanned(statement, values, Guard.DRAIN) & LARGE == set(), statement
    assert number > len(ids) // 2, "but for those that were paused already"
    for statement, values in counting:
        assert scanned(statement, values, Guard.DOOR) & LARGE == set(), statement


def test_so_does_the_sweep(large: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    with recorded(monkeypatch, Guard.DRAIN) as found, begin(Guard.DRAIN) as db:
        timers.send_due(db)

    assert len(found) >= 4
    for statement, values in found:
        assert scanned(statement, values, Guard.DRAIN) & LARGE == set(), statement
