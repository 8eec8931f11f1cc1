"""Whoever can write to Redis can ring, and nothing else: what is no message, or not one of ours, does nothing."""

import base64
import json
import pickle
import time
import zlib
from collections.abc import Iterator
from io import BytesIO
from itertools import product
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest
from kombu import Consumer, Exchange, Producer, Queue
from kombu.asynchronous.semaphore import LaxBoundedSemaphore

from orchestrator.pulse import QUEUES
from tests.redis_server import OwnRedis
from tests.stage import Project, Worker, busy, eventually, sql, violations
from workers.app import app as celery
from workers.consumer import placed
from workers.distrust import LISTENING_SECONDS

TABLES = ("agents", "events", "usage_entries", "project_counters", "users", "api_keys", "requests")

BOMB = 50_000_000
"""Bytes that compressed are few."""

DEEP = b"[" * 100_000, b'{"a":' * 50_000
"""Deeper than Python reads."""


class Exploit:
    """What would write a file if anybody unpickled it."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self._file,))


def message(
    named: str, /, body: bytes | None = None, content_type: str = "application/json", **headers: Any
) -> dict[str, Any]:
    """A message as kombu lays it into a list of Redis."""
    id_, content = str(uuid4()), body if body is not None else json.dumps([[], {}, {}]).encode()
    given = {"lang": "py", "task": named, "id": id_, "root_id": id_, "parent_id": None, "retries": 0} | headers
    return {
        "body": base64.b64encode(content).decode(),
        "content-encoding": "utf-8",
        "content-type": content_type,
        "headers": given,
        "properties": {
            "correlation_id": id_,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "commands"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid4()),
        },
    }


def old_protocol(task: str, **more: Any) -> dict[str, Any]:
    """The same as Celery 3 wrote it: all of the task in the body."""
    body = {"task": task, "id": str(uuid4()), "args": [], "kwargs": {}, "retries": 0} | more
    return message(task, json.dumps(body).encode()) | {"headers": {}}


def forged(evidence: Path) -> dict[str, bytes]:
    """Everything that somebody may try."""
    drain = "orchestrator.drain"
    link: Any = {
        "task": "os.system",
        "args": ["true"],
        "kwargs": {},
        "options": {},
        "subtask_type": None,
        "immutable": True,
    }
    well_formed = {
        "a task that there is not": message("os.system"),
        "no task": message(""),
        "a task of another type": message(drain, task=7),
        "a task that is many": message(drain, task=[drain]),
        "pickle": message(drain, pickle.dumps(Exploit(evidence)), "application/x-python-serialize"),
        "pickle called JSON": message(drain, pickle.dumps(Exploit(evidence))),
        "yaml": message(drain, b"!!python/object/apply:os.system ['true']", "application/x-yaml"),
        "arguments": message(drain, json.dumps([["x", 1], {"slot": 9}, {}]).encode()),
        "no arguments at all": message(drain, b"null"),
        "callbacks": message(drain, json.dumps([[], {}, {"callbacks": [link], "errbacks": [link]}]).encode()),
        "a chain": message(drain, json.dumps([[], {}, {"chain": [link], "chord": link}]).encode()),
        "an age of years": message(drain, eta="2099-01-01T00:00:00+00:00"),
        "an expiry that is none": message(drain, expires="soon"),
        "an old protocol": old_protocol(drain),
        "an old protocol's unknown task": old_protocol("os.system"),
        "a time limit": message(drain, timelimit=["x", None]),
        "a soft time limit": message(drain, timelimit=[None, "x"]),
        "a soft time limit that is a list": message(drain, timelimit=[None, [1]]),
        "time limits in a word": message(drain, timelimit="ab"),
        "three time limits": message(drain, timelimit=[1, 2, 3]),
        "three time limits more": message(drain, timelimit=[1, 2, 3]),
        "stamps": message(drain, stamped_headers=7),
        "stamps more": message(drain, stamped_headers=7),
        "another name": message(drain, shadow=["x"]),
        "an id that is none": message(drain, id="a\0b"),
        "an id that is many": message(drain, id=["x"]),
        "the end of time": message(drain, expires="9999-12-31T23:59:59-23:00"),
        "much that is little": message(drain, zlib.compress(b" " * BOMB), compression="application/x-gzip"),
        "an order to shut down": message("celery.control.shutdown"),
        "no properties": {"body": "e30=", "headers": {}},
        "another's delivery": message(drain) | {"properties": {"delivery_tag": 5, "delivery_info": []}},
    }
    return {name: json.dumps(made).encode() for name, made in well_formed.items()} | {
        "depth": DEEP[0],
        "more depth": DEEP[1],
        "nothing": b"",
        "no JSON": b"\xff\xfe{{{",
        "a list": b"[]",
        "null": b"null",
        "a number": b"7",
        "much": b"x" * 1_000_000,
    }


def everything() -> dict[str, Any]:
    """What a drain without mail must leave as it is."""
    return {
        table: sql(f"SELECT md5(coalesce(string_agg(t::text, ',' ORDER BY t::text), '')) FROM {table} t")
        for table in TABLES
    }


@pytest.fixture(scope="module")
def worker(apart: str, redis_apart: OwnRedis, home: Path) -> Iterator[Worker]:
    """The module's worker, which whatever is done to it is to leave at work."""
    del apart, redis_apart
    with Worker.start(home / "worker-untrusted.log", 1) as running:
        yield running


@pytest.fixture
def agent(project: Project) -> str:
    """The id of an agent that the worker has brought to life."""
    born: str = project.spawn(wait=False)["agent_id"]
    eventually(lambda: sql("SELECT 1 FROM agents WHERE id = :id AND status = 'idle'", id=born), 60)
    return born


def test_what_is_forged_does_nothing_and_stops_nobody(
    project: Project, agent: str, redis_apart: OwnRedis, worker: Worker, tmp_path: Path
) -> None:
    before = everything()

    for queue, (name, made) in product(QUEUES, forged(tmp_path / "evidence").items()):
        redis_apart.client.lpush(queue, made)
        eventually(lambda q=queue: redis_apart.client.llen(q) == 0, 30)  # type: ignore[misc]
        assert worker.process.poll() is None, f"{name}: {worker.log.read_text()[-2000:]}"

    eventually(lambda: redis_apart.client.hlen("unacked") == 0)  # or they would come back
    assert everything() == before
    assert not (tmp_path / "evidence").exists()
    command = project.send(agent, "pause")["id"]
    eventually(lambda: sql("SELECT 1 FROM commands WHERE id = :id AND state = 'applied'", id=command), 20)
    assert violations() == {}


ORDERS = {
    "shutdown": {},
    "cancel_consumer": {"queue": "commands"},
    "pool_shrink": {"n": 1},
    "rate_limit": {"task_name": "orchestrator.drain", "rate_limit": "1/h"},
    "time_limit": {"task_name": "orchestrator.drain", "hard": 0.001},
    "revoke": {"task_id": "any", "terminate": True},
    "add_consumer": {"queue": "another"},
}
"""What Celery's workers obey whoever broadcasts it."""


def test_no_broadcast_stops_a_worker_and_questions_are_answered(
    project: Project, agent: str, redis_apart: OwnRedis, worker: Worker
) -> None:
    with celery.connection_for_write() as link:
        eventually(lambda: celery.control.ping(timeout=2, connection=link), 60)
        for order, arguments in ORDERS.items():
            celery.control.broadcast(order, arguments=arguments, connection=link)
        for nonsense in (b"", b"\xff{", b"7", b"null", b"{}", b'{"properties": {}}', *DEEP):
            redis_apart.client.publish("/0.celery.pidbox", nonsense)
        eventually(lambda: celery.control.ping(timeout=2, connection=link), 20)

    command = project.send(agent, "pause")["id"]
    eventually(lambda: sql("SELECT 1 FROM commands WHERE id = :id AND state = 'applied'", id=command), 20)
    assert worker.process.poll() is None


def test_what_is_forged_among_the_messages_at_work_keeps_no_worker_from_starting(
    project: Project, agent: str, redis_apart: OwnRedis, worker: Worker, tmp_path: Path
) -> None:
    made = {"depth": DEEP[0], "no JSON": b"{", "a number": b"7", "nothing": b"[{}, null, null]"}
    for tag, content in made.items():
        redis_apart.client.hset("unacked", tag, content)
        redis_apart.client.zadd("unacked_index", {tag: 1})

    with Worker.start(tmp_path / "another.log", 1) as another:
        eventually(lambda: not any(redis_apart.client.hmget("unacked", list(made))), 30)
        assert not any(redis_apart.client.zmscore("unacked_index", list(made)))
        command = project.send(agent, "pause")["id"]
        eventually(lambda: sql("SELECT 1 FROM commands WHERE id = :id AND state = 'applied'", id=command), 20)
        assert another.process.poll() is None, another.log.read_text()[-2000:]
    assert worker.process.poll() is None, worker.log.read_text()[-2000:]


def test_what_is_compressed_is_not_unpacked(redis_apart: OwnRedis) -> None:
    del redis_apart
    with celery.connection_for_write() as link, link.SimpleQueue("anybodys") as queue:
        queue.put({"much": "x" * 100}, compression="gzip")
        queue.put({"little": "x"})

        assert queue.get(timeout=5).payload == {"little": "x"}
        with pytest.raises(queue.Empty):
            queue.get(timeout=0.2)


def test_a_broadcast_that_is_not_there_or_half_there_is_not_waited_for(redis_apart: OwnRedis) -> None:
    del redis_apart
    heard: list[Any] = []
    news = Exchange("news", type="fanout")
    inbox = Queue("reader", news, auto_delete=True)
    with (
        celery.connection_for_write() as link,
        link.channel() as channel,
        Consumer(channel, [inbox], callbacks=[lambda body, _: heard.append(body)]),
    ):
        link.transport.cycle._register_LISTEN(channel)
        channel._receive()  # that it has subscribed

        in_vain = Thread(target=channel._receive, daemon=True)
        in_vain.start()
        in_vain.join(busy(LISTENING_SECONDS + 2))
        assert not in_vain.is_alive(), "it would stand still until the next broadcast"

        Producer(channel, news).publish({"n": 1})
        eventually(lambda: channel._receive() and heard == [{"n": 1}])

        channel.subclient.connection._parser._buffer._buffer = BytesIO(b"*4\r\n$8\r\npmess")
        began = time.monotonic()
        with pytest.raises(channel.connection_errors):  # and its worker begins anew
            channel._receive()
        assert time.monotonic() - began < busy(LISTENING_SECONDS + 2), "it would wait for the other half"


def test_keys_of_celerys_names_that_hold_something_else_are_set_aside(
    project: Project, agent: str, redis_apart: OwnRedis, worker: Worker
) -> None:
    for verb, key in (("pause", "commands"), ("resume", "unacked")):
        redis_apart.client.delete(key)
        redis_apart.client.set(key, "somebody's")

        command = project.send(agent, verb)["id"]
        eventually(lambda id_=command: sql("SELECT 1 FROM commands WHERE id = :id AND state = 'applied'", id=id_), 20)  # type: ignore[misc]
        assert redis_apart.client.get(f"{key}.set-aside") == b"somebody's"
        assert f'"key": "{key}"' in worker.log.read_text()
    assert worker.process.poll() is None


def test_a_task_that_cannot_be_handed_to_the_pool_keeps_no_place_there() -> None:
    places = LaxBoundedSemaphore(1)
    taken: list[str] = []

    with pytest.raises(TypeError):
        places.acquire(placed(lambda request: request + 1, places.release), "no request")
    places.acquire(placed(taken.append, places.release), "a task")

    assert taken == ["a task"]
    assert places.value == 0, "until it is done"
