"""Who drains which agent: locks that hold up nobody else, and give way in time."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, text

from orchestrator import claims
from orchestrator.claims import Marks
from orchestrator.db import Guard, begin
from orchestrator.drain import Batch, Drainer
from orchestrator.errors import Unavailable
from orchestrator.settings import settings
from tests.databases import let_go
from tests.redis_server import OwnRedis
from tests.stage import (
    Project,
    Worker,
    applied,
    blocked,
    busy,
    drain,
    eventually,
    multiply,
    peers,
    run,
    settle,
    sql,
    violations,
)
from tests.test_plans import nodes
from workers import low_water, shift, tasks

LETTERS = 600
OTHERS = 3_000
BACKLOG = 5_000

COPY_LETTERS = """
    INSERT INTO commands (id, project_id, agent_id, verb, payload, actor_id)
    SELECT gen_random_uuid(), project_id, agent_id, CASE n % 2 WHEN 0 THEN 'resume' ELSE 'pause' END, '{}', actor_id
    FROM commands CROSS JOIN generate_series(1, :letters) n WHERE verb = 'spawn' AND agent_id = :agent ORDER BY n
"""

ENTRY_OF_EACH = """
    INSERT INTO usage_entries (agent_id, report_id, project_id, fingerprint, occurred_at, input_tokens, output_tokens,
        cache_read_tokens, cache_write_tokens, tasks_completed)
    SELECT id, 'one', project_id, '', now(), 3, 4, 0, 0, 0 FROM agents
"""


@contextmanager
def held(agent_id: str, mode: str = "FOR NO KEY UPDATE") -> Iterator[Connection]:
    """Another transaction has the agent's row locked, as a drain does, for the length of the block."""
    with begin(Guard.TOOL) as db:
        run(db, f"SELECT 1 FROM agents WHERE id = :id {mode}", id=agent_id)
        yield db


def queued(agent_id: str | None = None) -> int:
    """How many commands wait: an agent's, or all."""
    mine = "AND agent_id = :agent" if agent_id else ""
    (row,) = sql(f"SELECT count(*) AS n FROM commands WHERE state = 'queued' {mine}", agent=agent_id)
    return int(row.n)


def test_a_locked_agent_with_a_long_mailbox_holds_up_nobody_else_in_two_workers(
    quiet: Project, own_redis: OwnRedis, home: Path
) -> None:
    del own_redis
    busy = quiet.born()
    sql(COPY_LETTERS, letters=LETTERS, agent=busy)
    with ExitStack() as stack:
        with held(busy):
            multiply(busy, OTHERS)
            for name in ("one", "two"):
                stack.enter_context(Worker.start(home / f"claims-{name}.log", concurrency=1))

            eventually(lambda: queued() == LETTERS, 30)

            assert queued(busy) == LETTERS
        eventually(lambda: queued() == 0, 30)
    assert len({row.task_id for row in sql("SELECT DISTINCT task_id FROM commands WHERE verb = 'spawn'")}) > 1
    assert violations() == {}


def test_claims_do_not_step_again_over_all_that_an_old_snapshot_keeps(
    quiet: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    multiply(quiet.born(), BACKLOG)
    _end_other_connections()
    monkeypatch.setattr(shift, "BUDGET_SECONDS", 60)
    monkeypatch.setattr(low_water, "LONG_SECONDS", 60)  # how often there is a look for the mark is for the clock to say
    before = _index_entries_read()

    with begin(Guard.TOOL) as db:
        run(db, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        run(db, "SELECT 1 FROM commands LIMIT 1")  # a backup's, say: what it sees may not be cleared away
        done = tasks.drain()
        pages = pages_read_by_a_claim(Marks(urgent=10**9))

    assert done["applied"] == BACKLOG
    assert pages <= 8, "from a mark on, and not through all before it"
    assert _index_entries_read() - before < 4 * BACKLOG, "twice for the claims, once for the last look; else six times"


def pages_read_by_a_claim(start: Marks) -> int:
    """Of the index of what waits, in each lane at most."""
    claim = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {claims._CLAIM.text}"
    with begin(Guard.DRAIN) as db:
        ((plan,),) = run(db, claim, limit=500, batch=1, **start._asdict())
    return max(node["Shared Hit Blocks"] for node in nodes(plan[0]["Plan"]) if _is_of_the_queue(node))


def _is_of_the_queue(node: dict[str, Any]) -> bool:
    return node.get("Index Name") == "ix_commands_queue"


def _end_other_connections() -> None:
    """What a connection has read it may tell the statistics as late as ten seconds after, or when it ends."""
    let_go(settings().database_url)
    others = "datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    eventually(lambda: not sql(f"SELECT 1 FROM pg_stat_activity WHERE {others}"))


def _index_entries_read() -> int:
    """By this process's draining connection, in the index of what waits."""
    with begin(Guard.DRAIN) as db:
        run(db, "SELECT pg_stat_force_next_flush()")
    with begin(Guard.DRAIN) as db:
        (row,) = run(db, "SELECT pg_stat_get_tuples_returned('ix_commands_queue'::regclass) AS n")
    return int(row.n)


def test_the_limit_of_a_claim_counts_only_what_could_be_locked(quiet: Project) -> None:
    busy, *others = [quiet.born() for _ in range(6)]
    sql(COPY_LETTERS, letters=LETTERS, agent=busy)
    for other in others:
        quiet.send(other, "pause")

    with held(busy), begin(Guard.DRAIN) as db:
        claim = claims.claim(db, limit=5)

    assert {str(id_) for id_ in claim.agents} == set(others)
    assert claim.full


def test_an_agent_claimed_with_an_empty_mailbox_does_not_end_the_loop(quiet: Project) -> None:
    agent = quiet.born()
    quiet.send(agent, "pause")
    with begin(Guard.DRAIN) as db:
        claim = claims.claim(db, limit=5)
        run(db, "UPDATE commands SET state = 'cancelled', closed_at = now() WHERE state = 'queued'")
        batch = Drainer(0).drain(db, claim)

    assert (batch.empty, batch.outcomes) == (False, [])
    assert drain().empty


def test_batches_that_only_count_usage_do_not_end_a_drain(quiet: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    peers(quiet.born(), LETTERS)
    sql(ENTRY_OF_EACH)
    monkeypatch.setattr(shift, "BUDGET_SECONDS", 60)

    done = tasks.drain()

    assert done["folded"] == LETTERS + 1 > shift.CLAIM, "more than one claim takes"
    assert sql("SELECT 1 FROM agents WHERE tokens_used <> 7") == []
    assert violations() == {}


def test_a_mailbox_found_empty_after_the_lock_does_not_end_a_drain(
    quiet: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied, other = quiet.born(), quiet.born()
    quiet.send(emptied, "pause")
    sent = []

    def claim(*given: Any) -> claims.Claim:
        monkeypatch.undo()  # it happens once
        claimed = claims.claim(*given)
        run(given[0], "UPDATE commands SET state = 'cancelled', closed_at = now() WHERE state = 'queued'")
        sent.append(quiet.send(other, "pause")["id"])  # in nobody's claim yet
        return claimed

    monkeypatch.setattr(claims, "claim", claim)
    done = tasks.drain()

    assert (done["batches"], done["applied"]) == (2, 1)
    assert [quiet.command(id_)["state"] for id_ in sent] == ["applied"]
    assert queued() == 0


def test_a_mailbox_is_emptied_in_the_order_of_acceptance_fifty_at_a_time(quiet: Project) -> None:
    agent = quiet.born()
    sql(COPY_LETTERS, letters=120, agent=agent)

    sizes = [len(drain().outcomes) for _ in range(4)]

    assert sizes == [50, 50, 20, 0]
    versions = sql("SELECT version FROM commands WHERE verb <> 'spawn' ORDER BY seq")
    assert [row.version for row in versions] == list(range(2, 122))


def test_the_door_accepts_while_a_drain_has_the_agent(quiet: Project) -> None:
    agent = quiet.born()
    quiet.send(agent, "resume")

    with begin(Guard.DRAIN) as db:
        assert claims.claim(db, 5).agents == [UUID(agent)]
        began = time.monotonic()
        quiet.send(agent, "pause")
        assert quiet.api.post(f"{quiet.agent(agent)}/usage", {"entries": [{"report_id": "1"}]}).status_code == 202
        issue = quiet.api.post(f"{quiet.path}/issues", {"title": "Look", "assigned_agent_id": agent})
        assert issue.status_code == 201, "a foreign key's lock must not wait for the drain's"
        assert time.monotonic() - began < busy(1)

    settle()
    assert quiet.api.get(quiet.agent(agent)).json["status"] == "paused"  # type: ignore[index]


def test_cancel_waits_for_a_drain_that_has_read_the_command_and_is_told_that_it_was_applied(quiet: Project) -> None:
    agent = quiet.born()
    pause = quiet.send(agent, "pause")["id"]
    with ThreadPoolExecutor(1) as pool:
        with begin(Guard.DRAIN) as db:
            batch = Drainer(0).drain(db, claims.claim(db, 5))
            told = pool.submit(
                quiet.api.client.post, f"/api/v1/{quiet.path}/commands/{pause}/cancel", headers=key(quiet)
            )
            time.sleep(0.2)  # long enough for a cancel that does not wait
            assert not told.done()
        answer = told.result(timeout=5)

    assert [outcome.state for outcome in batch.outcomes] == ["applied"]
    assert answer.status_code == 409
    assert "is applied already" in answer.json["detail"]


def key(project: Project) -> dict[str, str]:
    """The header that says who calls."""
    return {"Authorization": f"Bearer {project.api.key}"}


def test_cancel_gives_up_on_an_agent_that_stays_locked(quiet: Project) -> None:
    agent = quiet.born()
    pause = quiet.send(agent, "pause")["id"]

    with held(agent):
        answer = quiet.api.post(f"{quiet.path}/commands/{pause}/cancel")

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert quiet.command(pause)["state"] == "queued"


def test_a_worker_that_stands_still_in_a_transaction_loses_its_agents_and_its_commit(quiet: Project) -> None:
    agent = quiet.born()
    pause = quiet.send(agent, "pause")["id"]
    began = time.monotonic()

    with pytest.raises(Unavailable):
        _stand_still()

    assert time.monotonic() - began < busy(10)
    assert quiet.command(pause)["task_id"] == "a-task"
    assert violations() == {}


def _stand_still() -> None:
    with begin(Guard.DRAIN) as db:
        Drainer(0, "frozen").drain(db, claims.claim(db, 5))
        eventually(lambda: applied(drain()) == 1)  # somebody else, while we say nothing
        db.execute(text("SELECT 1"))


def test_two_batches_of_one_slot_count_their_projects_in_one_order(quiet: Project) -> None:
    low, high = sorted((quiet, Project.make(quiet.api)), key=lambda project: project.id)
    mine = [low.born(), high.born()]
    theirs = [high.born(), low.born()]

    def batch() -> Batch:
        with begin(Guard.DRAIN) as db:
            return Drainer(0).drain(db, claims.claim(db, 10))

    with ThreadPoolExecutor(1) as pool:
        low.send(mine[0], "pause")
        with begin(Guard.DRAIN) as db:
            Drainer(0).drain(db, claims.claim_one(db, UUID(mine[0])))
            high.send(theirs[0], "pause")
            low.send(theirs[1], "pause")
            other = pool.submit(batch)
            eventually(blocked)
            high.send(mine[1], "pause")
            Drainer(0).drain(db, claims.claim_one(db, UUID(mine[1])))

        assert applied(other.result(timeout=10)) == 2
    assert violations() == {}


def test_a_door_does_not_wait_for_a_statement_without_end(quiet: Project) -> None:
    began = time.monotonic()

    with pytest.raises(Unavailable) as refused, begin() as db:
        run(db, "SELECT pg_sleep(30)")

    assert time.monotonic() - began < busy(6)
    assert refused.value.extra == {"retry_after": 1}
