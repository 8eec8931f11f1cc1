"""One bad command never stops the others: it is tried five times alone, and given up."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from psycopg.errors import UndefinedTable

from orchestrator import announcements, claims, ledger, suspects
from orchestrator import drain as drains
from orchestrator.db import Guard, begin, engine
from orchestrator.drain import MAILBOX, Batch, Drainer
from orchestrator.errors import Unavailable
from orchestrator.failpoints import Point
from orchestrator.suspects import Suspect
from tests.faults import Failpoints
from tests.redis_server import OwnRedis
from tests.stage import (
    Project,
    Worker,
    busy,
    eventually,
    held,
    hurried,
    is_problem,
    multiply,
    run,
    settle,
    sql,
    violations,
)
from workers import careful, shift
from workers.careful import Careful, _give_back
from workers.lookout import lookout
from workers.report import Report
from workers.shift import BUDGET_SECONDS, Shift

OTHERS = 599

ANY = 2**62
"""Any command of a mailbox may be the bad one."""

POISON = """
    INSERT INTO commands (id, project_id, agent_id, verb, payload, actor_id)
    SELECT gen_random_uuid(), project_id, agent_id, 'update', '{"status": "nonsense"}', actor_id
    FROM commands WHERE agent_id = :agent LIMIT 1 RETURNING id
"""
"""An order the door would never accept: what applies it raises."""


@pytest.fixture
def project(quiet: Project, own_redis: OwnRedis) -> Project:
    """A project that nobody drains but the workers a test starts."""
    del own_redis
    return quiet


def poison(agent_id: str) -> str:
    """A command in the agent's mailbox that cannot be applied; its id."""
    return str(sql(POISON, agent=agent_id)[0].id)


def state(command_id: str) -> str:
    """A command's state."""
    return str(sql("SELECT state FROM commands WHERE id = :id", id=command_id)[0].state)


def attempts(command_id: str) -> int:
    """How often a command was tried alone."""
    return int(sql("SELECT attempts FROM commands WHERE id = :id", id=command_id)[0].attempts)


def suspect(*agents: str) -> None:
    """Let these agents be suspects, because of what is in their mailboxes now."""
    with begin(Guard.DRAIN) as db:
        suspects.name(db, map(UUID, agents), MAILBOX)


def suspected() -> list[str]:
    """The suspects there are."""
    return [str(row.agent_id) for row in sql("SELECT agent_id FROM suspects")]


def carefully(agent: str) -> None:
    """Drain an agent as a suspect, without any that is."""
    Careful(Drainer(0), Report())._drained(Suspect(UUID(agent), ANY))


def work_until_done() -> None:
    """Shift after shift in this process, until nothing waits."""
    while queued():
        Shift(Drainer(0)).work()


def queued() -> int:
    """How many commands wait."""
    return int(sql("SELECT count(*) AS n FROM commands WHERE state = 'queued'")[0].n)


def test_a_bad_command_is_dead_after_five_attempts_and_all_others_are_applied(project: Project, tmp_path: Path) -> None:
    agent = project.born()
    first = project.send(agent, "pause")["id"]
    bad = poison(agent)
    last = project.send(agent, "resume")["id"]
    multiply(agent, OTHERS)

    with Worker.start(tmp_path / "worker.log", 1):
        eventually(lambda: queued() == 0, 40)

    rows = {str(row.id): row for row in sql("SELECT id, state, attempts, error, version FROM commands")}
    assert (rows[bad].state, rows[bad].attempts, rows[bad].error["code"]) == ("dead", 5, "internal")
    assert [row.state for id_, row in rows.items() if id_ != bad] == ["applied"] * (OTHERS + 3)
    assert rows[last].version == rows[first].version + 1, "what failed left no trace on its agent"
    assert violations() == {}


def test_a_command_that_kills_whoever_applies_it_is_dead_after_five_attempts_and_all_others_are_applied(
    project: Project, failpoints: Failpoints, tmp_path: Path
) -> None:
    agent = project.born()
    first = project.send(agent, "pause")["id"]
    bad = project.send(agent, "update", name="deadly")["id"]
    last = project.send(agent, "resume")["id"]
    multiply(agent, OTHERS)
    failpoints.arm(Point.DECIDED, do="kill", only=[bad])

    with Worker.start(tmp_path / "worker.log", 1, **failpoints.environment):
        eventually(lambda: queued() == 0, 60)

    rows = {str(row.id): row for row in sql("SELECT id, state, attempts, error, version FROM commands")}
    assert (rows[bad].state, rows[bad].error["code"]) == ("dead", "internal")
    assert [row.state for id_, row in rows.items() if id_ != bad] == ["applied"] * (OTHERS + 3)
    assert rows[last].version == rows[first].version + 1, "what killed left no trace on its agent"
    assert sql("SELECT 1 FROM announcements") == []
    assert violations() == {}


def test_a_batch_whose_process_died_is_looked_after_by_the_next_drain(quiet: Project) -> None:
    command = quiet.send(quiet.born(), "pause")["id"]
    with begin(Guard.DRAIN) as db:
        claim = claims.claim(db, 10)
        announcements.announce(claim.batch or 0, claim.agents)
        with begin(Guard.WATCH) as other:
            assert announcements.take_down(other, [claim.batch or 0]) == [], "it lives"
        assert announcements.look() == ([], False)
        run(db, "ROLLBACK")

    Shift(Drainer(0)).work()

    assert (state(command), attempts(command)) == ("applied", 1)
    assert sql("SELECT 1 FROM announcements") == suspected() == []


def test_a_batch_that_was_committed_is_not_taken_for_one_that_died(quiet: Project) -> None:
    quiet.send(quiet.born(), "pause")
    with begin(Guard.DRAIN) as db:
        claim = claims.claim(db, 10)
        announcements.announce(claim.batch or 0, claim.agents)
        Drainer(0).drain(db, claim)

    with begin(Guard.DRAIN) as db:  # who has seen that its lock is free, and not yet that it has withdrawn
        assert announcements.take_down(db, [claim.batch or 0]) == []


def test_who_waits_for_what_is_given_up_is_told_and_an_attempt_that_the_database_cut_short_does_not_count(
    project: Project, tmp_path: Path
) -> None:
    agent, other, once = project.born(), project.born(), uuid4().hex
    asked = (project.agent(agent), {"current_task": "one"})
    bad = project.api.patch(*asked, Idempotency_Key=once).json["id"]  # type: ignore[index]
    sql("""UPDATE commands SET payload = '{"status": "nonsense"}' WHERE id = :id""", id=bad)
    good = project.send(other, "pause")["id"]

    with Worker.start(tmp_path / "worker.log", 1):
        with begin(Guard.TOOL) as db:
            run(db, "LOCK TABLE project_counters IN EXCLUSIVE MODE")  # a drain can read it, and then must wait
            answer = project.api.patch(*asked, Idempotency_Key=once, Prefer="wait=30")
            eventually(lambda: attempts(good) == 1, 20)
            eventually(lambda: attempts(good) == 0)  # it has given up waiting
        eventually(lambda: state(good) == "applied", 20)

    assert is_problem(answer, 500, "internal")
    assert answer.json["command_id"] == bad  # type: ignore[index]
    assert project.command(bad)["state"] == "dead"
    assert project.api.get(project.agent(agent)).json["version"] == 1  # type: ignore[index]
    assert violations() == {}


def test_an_agent_that_another_drain_has_meanwhile_is_left_to_it(quiet: Project) -> None:
    agent = quiet.born()
    command = quiet.send(agent, "pause")["id"]

    suspect(agent)

    with held(agent):
        Shift(Drainer(0)).work()
        assert (state(command), attempts(command), suspected()) == ("queued", 0, [agent])
    time.sleep(suspects.REST_SECONDS)
    Shift(Drainer(0)).work()

    assert (state(command), attempts(command), suspected()) == ("applied", 1, [])


SLOW = """
    CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END $$;
    CREATE TRIGGER dawdle BEFORE UPDATE ON agents FOR EACH ROW {which} EXECUTE FUNCTION dawdle()
"""
"""A database on which each agent takes so many seconds to write."""


def slow_down(seconds: float, which: str = "") -> None:
    """From now on; only for those agents, where a condition says which."""
    with begin(Guard.TOOL) as db:
        db.connection.driver_connection.execute(SLOW.format(seconds=seconds, which=which))  # type: ignore[union-attr]


@pytest.fixture
def hasty(quiet: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project in a database that ends a drain's transaction after a second."""
    for module in (shift, careful):
        monkeypatch.setattr(module, "DRAIN_SECONDS", 1)
    with hurried(1_000):
        yield quiet


def test_a_batch_that_takes_too_long_is_done_command_by_command(hasty: Project) -> None:
    agent = hasty.born()
    multiply(agent, 29)
    sql("""INSERT INTO commands (id, project_id, agent_id, verb, payload, actor_id)
        SELECT gen_random_uuid(), project_id, agent_id, 'pause', '{}', actor_id FROM commands""")
    slow_down(0.05)

    first = Shift(Drainer(0))
    first.work()

    assert first.done["applied"] > 0
    sql("DROP FUNCTION dawdle CASCADE")
    work_until_done()
    assert [row.state for row in sql("SELECT DISTINCT state FROM commands")] == ["applied"]
    assert sql("SELECT 1 FROM commands WHERE attempts > 1") == []
    assert violations() == {}


def test_working_carefully_has_its_time_as_well(hasty: Project) -> None:
    agent = hasty.born()
    multiply(agent, 99)
    slow_down(0.05)
    began = time.monotonic()

    Shift(Drainer(0)).work()

    assert time.monotonic() - began < busy(1 + BUDGET_SECONDS + 1)
    assert queued() > 0


@pytest.mark.parametrize("one", [True, False])
def test_the_task_s_time_limit_is_no_fault_of_the_command(
    quiet: Project, caplog: pytest.LogCaptureFixture, one: bool
) -> None:
    agent = quiet.born()
    command = quiet.send(agent, "pause")["id"]
    slow_down(5)

    def end(*_: object) -> None:
        raise SoftTimeLimitExceeded  # as Celery's own handler does: from a signal, wherever we are

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    with pytest.raises((SoftTimeLimitExceeded, Unavailable)):
        carefully(agent) if one else Shift(Drainer(0)).work()

    assert (state(command), attempts(command)) == ("queued", 0)
    assert "Exception during reset" not in caplog.text, "nobody talks to an interrupted connection again"


@pytest.mark.parametrize("one", [True, False])
def test_nor_is_it_where_no_database_is_involved(quiet: Project, monkeypatch: pytest.MonkeyPatch, one: bool) -> None:
    agent = quiet.born()
    command = quiet.send(agent, "pause")["id"]

    def end(*_: object) -> None:
        monkeypatch.undo()  # it comes once
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(drains, "decide", end)
    with pytest.raises(SoftTimeLimitExceeded):
        carefully(agent) if one else Shift(Drainer(0)).work()

    assert (state(command), attempts(command)) == ("queued", 0)


def test_a_command_that_is_too_slow_without_the_database_counts_as_failed(
    hasty: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = hasty.born()
    command = hasty.send(agent, "pause")["id"]

    def spin(*_: object) -> None:
        time.sleep(1.1)  # longer than a transaction may last here; the database is not asked meanwhile
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(drains, "decide", spin)
    for number in range(1, 6):
        carefully(agent)
        assert attempts(command) == number, "by then the database has ended the transaction"

    assert state(command) == "dead"


def test_an_attempt_is_at_the_command_it_was_counted_for(quiet: Project) -> None:
    agent = quiet.born()
    first, second = (quiet.send(agent, verb)["id"] for verb in ("pause", "resume"))
    with begin(Guard.DRAIN) as db:
        assert drains.count_attempt(db, UUID(agent), ANY) == (UUID(first), 1)

    quiet.api.post(f"{quiet.path}/commands/{first}/cancel")
    with begin(Guard.DRAIN) as db:
        batch = Drainer(0).drain(db, claims.claim_one(db, UUID(agent)), only=UUID(first))

    assert batch.outcomes == []
    assert (state(second), attempts(second)) == ("queued", 0)


def test_a_command_that_was_closed_meanwhile_is_not_given_up(quiet: Project) -> None:
    agent = quiet.born()
    command = quiet.send(agent, "pause")["id"]
    settle()

    report = Report()
    Careful(Drainer(0), report)._give_up(UUID(command))

    assert (state(command), report.done["dead"]) == ("applied", 0)


def test_an_attempt_that_cannot_be_given_back_stays_counted(quiet: Project) -> None:
    agent = quiet.born()
    command = quiet.send(agent, "pause")["id"]
    with begin(Guard.DRAIN) as db:
        drains.count_attempt(db, UUID(agent), ANY)

    with begin(Guard.TOOL) as db:
        run(db, "SELECT 1 FROM commands WHERE id = :id FOR UPDATE", id=command)
        _give_back(UUID(command))

    assert (state(command), attempts(command)) == ("queued", 1)


def test_others_do_not_wait_for_suspects_and_what_these_get_meanwhile_is_not_suspected(quiet: Project) -> None:
    agent, other = quiet.born(), quiet.born()
    multiply(agent, 199)
    settle()
    among = [str(row.id) for row in sql("SELECT id FROM agents WHERE id <> :id", id=other)]
    mail = """INSERT INTO commands (id, project_id, agent_id, verb, payload, actor_id)
        SELECT gen_random_uuid(), project_id, agent_id, 'update', '{"current_task": "x"}', actor_id
        FROM commands WHERE verb = 'spawn' AND agent_id <> :other"""
    sql(mail, other=other)
    suspect(*among)
    sql(mail, other=other)
    urgent = quiet.send(other, "pause")["id"]

    first = Shift(Drainer(0))
    first.work()

    assert state(urgent) == "applied"
    assert 0 < first.done["applied"] < len(among), "half a second's work"
    assert first.seconds < BUDGET_SECONDS
    work_until_done()
    assert suspected() == []
    assert {row.attempts for row in sql("SELECT attempts FROM commands WHERE verb = 'update'")} == {0, 1}
    assert violations() == {}


def test_an_agent_of_several_batches_that_died_is_tried_by_one_process_at_a_time(
    project: Project, tmp_path: Path
) -> None:
    agent = project.born()
    multiply(agent, 19)
    settle()
    among = [row.id for row in sql("SELECT id FROM agents")]
    for _ in range(20):
        sql("""INSERT INTO commands (id, project_id, agent_id, verb, payload, actor_id)
            SELECT gen_random_uuid(), project_id, agent_id, 'update', '{"current_task": "x"}', actor_id
            FROM commands WHERE verb = 'spawn'""")
    for _ in range(8):
        announcements.announce(announcements.number(), among)

    with Worker.start(tmp_path / "worker.log", 8):
        eventually(lambda: queued() == 0, 60)

    tried = sql("SELECT DISTINCT attempts, state FROM commands WHERE verb = 'update' ORDER BY 1")
    assert {tuple(row) for row in tried} <= {(0, "applied"), (1, "applied")}
    assert violations() == {}


def test_an_agent_whose_commands_always_take_too_long_stops_nobody_else(hasty: Project) -> None:
    slow, other = hasty.born(), hasty.born()
    slow_down(3, f"WHEN (NEW.id = '{slow}')")
    bad, good = hasty.send(slow, "pause")["id"], hasty.send(other, "pause")["id"]

    for _ in range(2):  # which begin with either
        Shift(Drainer(0)).work()
    assert (state(good), state(bad)) == ("applied", "queued")
    work_until_done()

    assert (state(bad), attempts(bad)) == ("dead", 5)


def test_an_agent_of_which_somebody_holds_a_row_stops_nobody_else(quiet: Project) -> None:
    locked, other = quiet.born(), quiet.born()
    bad, good = quiet.send(locked, "pause")["id"], quiet.send(other, "pause")["id"]

    with begin(Guard.TOOL) as db:
        run(db, "SELECT 1 FROM commands WHERE id = :id FOR UPDATE", id=bad)
        with pytest.raises(Unavailable):
            Shift(Drainer(0)).work()
        for _ in range(2):  # which begin with either
            Shift(Drainer(0)).work()
        assert (state(good), state(bad), suspected()) == ("applied", "queued", [locked])
    time.sleep(suspects.REST_SECONDS)
    Shift(Drainer(0)).work()

    assert (state(bad), attempts(bad)) == ("applied", 1)


def test_usage_that_cannot_be_counted_stops_neither_its_agent_nor_the_others(
    quiet: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd, other = quiet.born(), quiet.born()
    for agent in (odd, other):
        quiet.api.post(f"{quiet.agent(agent)}/usage", {"entries": [{"report_id": "1", "output_tokens": 7}]})
    pause, fold = quiet.send(odd, "pause")["id"], ledger.fold

    def refuse(db: Any, agents: Any, slot: int) -> Any:
        assert UUID(odd) not in agents, "cannot be counted"
        return fold(db, agents, slot)

    monkeypatch.setattr(drains, "fold", refuse)
    for _ in range(2):
        Shift(Drainer(0)).work()

    assert (state(pause), suspected()) == ("applied", [odd])
    later = quiet.send(odd, "resume")["id"]
    for _ in range(2):
        time.sleep(suspects.REST_SECONDS)
        Shift(Drainer(0)).work()
    assert (state(later), suspected()) == ("applied", [odd]), "what it gets meanwhile is not left lying"
    tokens = dict(sql("SELECT id::text, tokens_used FROM agents"))  # type: ignore[arg-type]
    assert tokens == {odd: 0, other: 7}
    monkeypatch.undo()
    time.sleep(suspects.REST_SECONDS)
    Shift(Drainer(0)).work()
    assert (suspected(), violations()) == ([], {})


@contextmanager
def another_revision() -> Iterator[None]:
    """The database lacks something that every drain writes to."""
    sql("ALTER TABLE project_counters RENAME TO counters_of_later")
    try:
        yield
    finally:
        sql("ALTER TABLE counters_of_later RENAME TO project_counters")


def test_a_worker_of_another_revision_suspects_nobody(quiet: Project) -> None:
    command = quiet.send(quiet.born(), "pause")["id"]

    with another_revision():
        for _ in range(2):
            with pytest.raises(UndefinedTable):
                Shift(Drainer(0)).work()
        assert (state(command), suspected(), sql("SELECT 1 FROM announcements")) == ("queued", [], [])
    Shift(Drainer(0)).work()

    assert (state(command), attempts(command)) == ("applied", 0)


def test_nor_does_it_count_an_attempt_at_a_suspect(quiet: Project) -> None:
    agents = [quiet.born() for _ in range(2)]
    commands = [quiet.send(agent, "pause")["id"] for agent in agents]
    suspect(*agents)

    with another_revision():
        for _ in range(7):
            Shift(Drainer(0)).work()
            sql("UPDATE suspects SET due_at = now()")
        assert [(state(id_), attempts(id_)) for id_ in commands] == [("queued", 0)] * 2
    work_until_done()

    assert [(state(id_), attempts(id_)) for id_ in commands] == [("applied", 1)] * 2
    assert (suspected(), violations()) == ([], {})


def test_whatever_goes_wrong_with_one_suspect_the_others_come_first(
    quiet: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd, other = quiet.born(), quiet.born()
    stuck, good = quiet.send(odd, "pause")["id"], quiet.send(other, "pause")["id"]
    suspect(odd)
    suspect(other)
    count = drains.count_attempt

    def fail(db: Any, agent_id: UUID, last_seq: int) -> Any:
        assert agent_id != UUID(odd), "something nobody has thought of"
        return count(db, agent_id, last_seq)

    monkeypatch.setattr(drains, "count_attempt", fail)
    Shift(Drainer(0)).work()

    assert (state(stuck), state(good), suspected()) == ("queued", "applied", [odd])


def test_a_batch_that_died_waits_where_another_process_tries_one_of_its_agents(quiet: Project) -> None:
    tried, other = quiet.born(), quiet.born()
    suspect(tried)
    announcements.announce(announcements.number(), [UUID(tried)])
    command = quiet.send(other, "pause")["id"]
    began = time.monotonic()

    with begin(Guard.WATCH) as db:
        assert suspects.watch(db, UUID(tried))
        for _ in range(3):
            Shift(Drainer(0)).work()
        assert state(command) == "applied"
        assert len(sql("SELECT 1 FROM announcements")) == 1
    assert time.monotonic() - began < busy(2.5), "others do not wait for it"
    eventually(lambda: Shift(Drainer(0)).work() or (suspected(), sql("SELECT 1 FROM announcements")) == ([], []), 20)


def test_a_suspect_that_kills_whoever_takes_it_lets_others_come_first(quiet: Project) -> None:
    deadly, other = quiet.born(), quiet.born()
    suspect(deadly)
    suspect(other)

    with begin(Guard.DRAIN) as db:  # and whoever took it is no more
        first = suspects.take(db)
    with begin(Guard.DRAIN) as db:
        second = suspects.take(db)
    with begin(Guard.DRAIN) as db:
        third = suspects.take(db)

    assert {str(taken.agent_id) for taken in (first, second) if taken} == {deadly, other}
    assert third is None, "both rest"


def test_who_lost_the_watch_over_a_suspect_has_put_it_off(quiet: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    odd, other = quiet.born(), quiet.born()
    good = quiet.send(other, "pause")["id"]
    suspect(odd)
    suspect(other)
    clear = suspects.clear

    def lose(db: Any, agent_id: UUID) -> None:
        if agent_id == UUID(odd):
            sql("""SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'orch-watch'""")
        clear(db, agent_id)

    monkeypatch.setattr(suspects, "clear", lose)
    Shift(Drainer(0)).work()

    assert (state(good), suspected()) == ("applied", [odd])


def test_a_worker_of_another_revision_drains_no_suspects(quiet: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = quiet.born()
    bad = poison(agent)
    suspect(agent)
    monkeypatch.setattr(careful.revisions, "head", lambda: "9999")

    for _ in range(7):
        Shift(Drainer(0)).work()
        sql("UPDATE suspects SET due_at = now()")

    assert (state(bad), attempts(bad), suspected()) == ("queued", 0, [agent])


def test_who_watches_over_a_suspect_and_stands_still_loses_it() -> None:
    with begin(Guard.WATCH) as db:
        (limit,) = run(db, "SELECT current_setting('idle_in_transaction_session_timeout') AS idle")

    assert limit.idle == "15s"


def test_after_all_connections_were_cut_drains_go_on_and_say_nothing_of_it(
    quiet: Project, caplog: pytest.LogCaptureFixture
) -> None:
    agent = quiet.born()
    quiet.send(agent, "pause")
    suspect(agent)
    Shift(Drainer(0)).work()
    quiet.send(agent, "resume")
    cut = sql("""SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name IN ('orch-drain', 'orch-watch')""")

    failed = 0
    lookout()._due = time.monotonic() + 60  # so that the first to fail is a batch, and the next a look
    while queued():
        try:
            Shift(Drainer(0)).work()
        except Unavailable:
            failed += 1
            lookout()._due = 0.0

    assert failed <= len(cut), "for each of its connections one, at most"
    assert "Exception during reset" not in caplog.text
    engine(Guard.WATCH).dispose()  # nobody has met those that were cut: the next test would


def test_an_attempt_that_looked_at_nothing_does_not_count(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = project.born()
    sent = project.send(agent, "pause")["id"]
    original, seen = Drainer.drain, []

    def once_too_early(self: Drainer, db: Any, claim: claims.Claim, only: UUID | None = None) -> Batch:
        """As where another transaction has written the agent since this one began."""
        if str(only) == sent and len(seen) < 9:
            seen.append(attempts(sent))
            return Batch(claim)
        return original(self, db, claim, only)

    monkeypatch.setattr(Drainer, "drain", once_too_early)
    suspect(agent)

    Shift(Drainer(0)).work()

    assert seen == [1] * 9
    assert (state(sent), attempts(sent)) == ("applied", 1)
