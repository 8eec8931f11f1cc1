"""Requests that wait: no word is missed, whatever comes between, and a look that fails is a look too early."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from orchestrator.errors import Unavailable
from orchestrator.link import CANCELLED_CHANNEL, CLOSED_CHANNEL
from tests.redis_server import OwnRedis
from tests.stage import Project, busy, eventually, sql
from tests.wire import Gunicorn
from web.waiters import Waiters, _ids

LONG = 20.0
AT_ONCE = 1.0


@pytest.fixture
def waiters() -> Waiters:
    """Of this test's own; nobody wakes them but the test."""
    return Waiters(most=10)


def timed(waiters: Waiters, id_: UUID, seconds: float, done: Callable[[], bool]) -> tuple[bool, float]:
    """What waiting comes to, and how long it takes."""
    began = time.monotonic()
    return waiters.wait(id_, seconds, done), time.monotonic() - began


def test_a_word_that_comes_while_one_looks_is_not_lost(waiters: Waiters) -> None:
    id_ = uuid4()
    closed: list[bool] = []

    def look() -> bool:
        seen = bool(closed)
        if not seen:
            closed.append(True)
            waiters._wake([str(id_)])
        return seen

    came, took = timed(waiters, id_, LONG, look)

    assert came
    assert took < AT_ONCE


def test_who_heard_no_word_looks_once_more_at_the_end(waiters: Waiters) -> None:
    looks = iter([False, True])

    assert waiters.wait(uuid4(), 0.1, lambda: next(looks))


def test_a_look_that_fails_is_not_the_end_of_waiting(waiters: Waiters) -> None:
    id_ = uuid4()
    looks: list[None] = []

    def look() -> bool:
        looks.append(None)
        waiters._wake([str(id_)])
        if len(looks) == 1:
            raise Unavailable
        return True

    assert waiters.wait(id_, LONG, look)


def test_a_database_that_stays_away_ends_no_wait_with_an_error(waiters: Waiters) -> None:
    def look() -> bool:
        raise Unavailable

    assert not waiters.wait(uuid4(), 0.1, look)


@pytest.mark.parametrize("garbage", [b"", b"null", b"17", b"{}", b"[17]", b"[null]", b"\xff", b"[" * 100_000, b"{"])
def test_garbage_on_the_channel_is_no_ids(garbage: bytes) -> None:
    assert _ids(garbage) == []


def test_a_word_after_garbage_is_heard(own_redis: OwnRedis, waiters: Waiters) -> None:
    waiters.start()
    eventually(lambda: own_redis.client.publish(CANCELLED_CHANNEL, b"[" * 100_000))
    id_ = uuid4()
    looks: list[None] = []

    def look() -> bool:
        looks.append(None)
        own_redis.client.publish(CANCELLED_CHANNEL, json.dumps([str(id_)]))
        return len(looks) > 1

    came, took = timed(waiters, id_, LONG, look)

    assert came
    assert took < AT_ONCE


def test_only_a_worker_shows_that_a_worker_lives(own_redis: OwnRedis, waiters: Waiters) -> None:
    waiters.start()

    eventually(lambda: own_redis.client.publish(CANCELLED_CHANNEL, "[]"))
    assert not waiters.heard.wait(0.5)
    own_redis.client.publish(CLOSED_CHANNEL, "[]")
    assert waiters.heard.wait(5)


def test_a_server_that_is_stopped_answers_those_who_wait_before_it_ends(quiet: Project, home: Path) -> None:
    agent = quiet.born()

    with Gunicorn.start(home / "stopped.log") as web, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(web, "POST", f"{quiet.agent(agent)}/pause", quiet.api.key, Prefer="wait=30")
        eventually(lambda: sql("SELECT 1 FROM commands WHERE verb = 'pause'"))
        web.process.terminate()
        answer = waiting.result(timeout=40)

    assert (answer.status_code, answer.json()["state"]) == (202, "queued")
    assert answer.elapsed.total_seconds() < busy(5)
