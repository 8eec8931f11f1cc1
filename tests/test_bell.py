"""The doorbell: one message for many commands, and what happens when it is lost, doubled, forged, or cannot be rung."""

import base64
import json
import multiprocessing
import time
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import event

from orchestrator.db import Guard, engine
from orchestrator.link import PATIENCE_SECONDS, REST_SECONDS
from tests.redis_server import OwnRedis
from tests.stage import Project, Worker, busy, eventually, multiply, sql, violations
from workers import bell, shift, tasks

QUEUE = "commands"

LETTER = """
    INSERT INTO commands (id, project_id, agent_id, verb, payload, actor_id, created_at)
    SELECT gen_random_uuid(), project_id, agent_id, 'update', '{}', actor_id, now() - interval '2 seconds'
    FROM commands WHERE agent_id = :agent ORDER BY seq LIMIT 1 RETURNING id
"""

ENTRY = """
    INSERT INTO usage_entries (agent_id, report_id, project_id, fingerprint, occurred_at, created_at, input_tokens,
        output_tokens, cache_read_tokens, cache_write_tokens, tasks_completed)
    SELECT id, 'one', project_id, '', now(), now() - interval '2 seconds', 3, 4, 0, 0, 0 FROM agents WHERE id = :agent
"""


@pytest.fixture
def agent(quiet: Project, own_redis: OwnRedis) -> str:
    """The id of an agent whose birth has rung, and been forgotten."""
    before = counted("rung", "coalesced", "failed")
    born = quiet.born()
    eventually(lambda: counted("rung", "coalesced", "failed") > before)
    own_redis.client.flushall()
    return born


def mail(agent_id: str) -> str:
    """A command that is in the mailbox, overdue, and has rung no bell; its id."""
    return str(sql(LETTER, agent=agent_id)[0].id)


def rung(redis: OwnRedis) -> int:
    """How many bells wait for a worker."""
    return int(redis.client.llen(QUEUE))


def counted(*outcomes: str) -> float:
    """How many bells of this process ended so."""
    return sum(float(bell.RINGS.labels(outcome)._value.get()) for outcome in outcomes)


def applied(command_id: str) -> bool:
    """Whether a command was."""
    return bool(sql("SELECT 1 FROM commands WHERE id = :id AND state = 'applied'", id=command_id))


def message(task: str, content_type: str = "application/json", body: bytes = b"[[], {}, {}]") -> bytes:
    """A message as Celery would put it, but for what is given."""
    id_ = str(uuid4())
    headers = {"task": task, "id": id_, "root_id": id_, "lang": "py", "retries": 0, "argsrepr": "()"}
    delivery = {"exchange": "", "routing_key": QUEUE}
    properties = {"delivery_tag": id_, "delivery_info": delivery, "body_encoding": "base64", "priority": 0}
    said = {"body": base64.b64encode(body).decode(), "content-type": content_type, "content-encoding": "utf-8"}
    return json.dumps(said | {"headers": headers, "properties": properties}).encode()


NONSENSE = {
    "an empty object": b"{}",
    "a body that is no base64": message("orchestrator.drain").replace(b'"body": "', b'"body": "%'),
    "a pickle": message("orchestrator.drain", "application/x-python-serialize", b"cos\nsystem\n(S'true'\ntR."),
    "an unknown task": message("orchestrator.nonsense"),
    "somebody else's task": message("celery.backend_cleanup"),
    "arguments nobody asked for": message("orchestrator.drain", body=b'[[1, 2], {"more": true}, {}]'),
}


def test_a_hundred_rings_are_one_message(own_redis: OwnRedis) -> None:
    before = counted("coalesced")

    for _ in range(100):
        bell.ring_now()

    assert rung(own_redis) == 1
    assert 0 < own_redis.client.pttl(bell.FLAG) <= bell.FLAG_MILLISECONDS
    assert counted("coalesced") - before == 99


def test_once_a_worker_has_answered_the_next_ring_is_a_message_again(own_redis: OwnRedis) -> None:
    bell.ring_now()

    bell.answer()
    bell.ring_now()

    assert rung(own_redis) == 2


def test_a_worker_clears_the_flag_before_it_looks(own_redis: OwnRedis, agent: str) -> None:
    command = mail(agent)
    own_redis.client.set(bell.FLAG, 1)
    seen: list[object] = []

    def look(*_: object) -> None:
        seen.append(own_redis.client.get(bell.FLAG))

    event.listen(engine(Guard.DRAIN), "checkout", look)
    tasks.drain()
    event.remove(engine(Guard.DRAIN), "checkout", look)

    assert applied(command)
    assert len(seen) >= 2, "the batch, and the claim that comes back empty"
    assert set(seen) == {None}


@pytest.mark.parametrize(("waiting", "bells"), [(shift.CLAIM - 1, 0), (shift.CLAIM, 1)])
def test_a_full_batch_rings_for_an_idle_worker(own_redis: OwnRedis, agent: str, waiting: int, bells: int) -> None:
    multiply(agent, waiting)

    tasks.drain()

    assert rung(own_redis) == bells


def test_a_drain_whose_time_is_up_rings_for_who_goes_on(
    own_redis: OwnRedis, agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shift, "BUDGET_SECONDS", -1)
    mail(agent)

    tasks.drain()

    assert rung(own_redis) == 1


def test_a_bell_that_could_not_be_sent_does_not_silence_the_next(own_redis: OwnRedis) -> None:
    own_redis.client.set(QUEUE, "not a list: nothing can be pushed to it")
    before = counted("failed")

    bell.ring_now()

    assert counted("failed") - before == 1
    assert not own_redis.client.exists(bell.FLAG)
    own_redis.client.delete(QUEUE)
    time.sleep(REST_SECONDS)
    bell.ring_now()
    assert rung(own_redis) == 1


def test_a_bell_that_was_not_tried_counts_as_failed(own_redis: OwnRedis) -> None:
    own_redis.stop()
    before = counted("failed")

    for _ in range(3):
        bell.ring_now()

    assert counted("failed") - before == 3


@pytest.mark.parametrize("fate", ["frozen", "stopped"])
def test_ringing_takes_no_time_whatever_redis_does(own_redis: OwnRedis, fate: str) -> None:
    if fate == "stopped":
        own_redis.stop()
        _ring_in_no_time()
        own_redis.begin()
    else:
        with own_redis.frozen():
            _ring_in_no_time()

    eventually(lambda: bell.ring() or rung(own_redis))


def test_a_bell_that_redis_did_not_take_spares_the_next_ones_the_wait(own_redis: OwnRedis) -> None:
    took = []

    with own_redis.frozen():
        for _ in range(5):
            began = time.monotonic()
            bell.ring_now()
            took.append(time.monotonic() - began)

    first, *others = took
    assert first >= PATIENCE_SECONDS, "Redis was asked"
    assert sum(others) < len(others) * PATIENCE_SECONDS, f"each of them waited again: {others}"


def _ring_in_no_time() -> None:
    began = time.monotonic()
    for _ in range(1_000):
        bell.ring()
    assert time.monotonic() - began < busy(0.2)


def test_a_process_that_was_forked_rings_too(own_redis: OwnRedis) -> None:
    bell.ring()
    eventually(lambda: rung(own_redis) == 1)
    own_redis.client.delete(bell.FLAG)

    child = multiprocessing.get_context("fork").Process(target=_ring_and_stay, args=(own_redis,))
    child.start()

    eventually(lambda: rung(own_redis) == 2)
    child.kill()
    child.join()


def _ring_and_stay(redis: OwnRedis) -> None:
    bell.ring()
    time.sleep(60)


def test_a_sweep_that_finds_nothing_overdue_is_silent(own_redis: OwnRedis, agent: str, quiet: Project) -> None:
    mail(agent)
    sql("UPDATE commands SET created_at = now() WHERE state = 'queued'")

    assert tasks.sweep() == {"rang": False}
    assert rung(own_redis) == 0


def test_a_sweep_rings_for_what_is_overdue_whatever_the_flag_says(own_redis: OwnRedis, agent: str) -> None:
    mail(agent)
    own_redis.client.set(bell.FLAG, 1)

    assert tasks.sweep() == {"rang": True}
    sent = json.loads(own_redis.client.lindex(QUEUE, 0))
    assert sent["headers"]["task"] == "orchestrator.drain"
    assert sent["headers"]["expires"] is not None, "a queue nobody reads must not fill with sweeps"


def test_a_sweep_rings_for_usage_that_nobody_has_counted(own_redis: OwnRedis, agent: str) -> None:
    sql(ENTRY, agent=agent)

    assert tasks.sweep() == {"rang": True}
    assert rung(own_redis) == 1

    assert tasks.drain()["folded"] == 1
    assert [row.tokens_used for row in sql("SELECT tokens_used FROM agents")] == [7]
    assert tasks.sweep() == {"rang": False}, "what is counted waits no more"


def test_a_sweep_that_cannot_ring_says_so_and_goes_on(own_redis: OwnRedis, agent: str) -> None:
    mail(agent)
    own_redis.stop()

    assert tasks.sweep() == {"rang": False}


def test_a_lost_bell_costs_seconds_and_a_doubled_or_a_forged_one_nothing(
    own_redis: OwnRedis, agent: str, tmp_path: Path
) -> None:
    with Worker.start(tmp_path / "worker.log") as worker:
        first = mail(agent)
        eventually(lambda: applied(first), 30)  # it starts, and sweeps

        lost = mail(agent)
        eventually(lambda: applied(lost), 4)

        doubled = mail(agent)
        for _ in range(20):
            bell.publish()
        eventually(lambda: applied(doubled), 4)
        eventually(lambda: rung(own_redis) == 0)

        for what, nonsense in NONSENSE.items():
            command = mail(agent)
            own_redis.client.lpush(QUEUE, nonsense)
            bell.publish()
            eventually(lambda command=command: applied(command), 10)
            assert worker.process.poll() is None, what
    assert violations() == {}
