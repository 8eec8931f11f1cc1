"""With Redis or PostgreSQL away the doors say so in time, and all goes on by itself once they are back."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, NamedTuple

import psutil
import pytest

from tests.chaos.stack import CHILDREN, Stack
from tests.chaos.stack import stack as started
from tests.sse import Stream
from tests.stage import busy, eventually

SECONDS = float(os.environ.get("ORCH_TEST_AWAY", "5"))
"""For how long Redis stands still."""


class Answer(NamedTuple):
    """What came, and after how many seconds."""

    status: int
    headers: dict[str, str]
    body: Any
    seconds: float


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """All of it, with servers that can be made to fail."""
    with TemporaryDirectory(prefix="orch-outage-") as folder, started(Path(folder) / "stack") as running:
        yield running


@pytest.fixture(scope="module")
def agent(stack: Stack) -> str:
    """The address of an agent."""
    project = ask(stack, "POST", "projects", {"name": "Outages"}).body["id"]
    kind = ask(stack, "POST", "agent-types", {"name": "Simulated"}).body["id"]
    body = {"agent_type_id": kind, "name": "scout"}
    made = ask(stack, "POST", f"projects/{project}/agents", body, Prefer="wait=10")
    assert made.status == 201, made
    return f"projects/{project}/agents/{made.body['id']}"


def ask(stack: Stack, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    """One request of the administrator's, on a connection of its own."""
    began = time.monotonic()
    connection = HTTPConnection(stack.address, timeout=30)
    given = {"Authorization": f"Bearer {stack.key}", "Content-Type": "application/json"} | headers
    connection.request(method, f"/api/v1/{path}", json.dumps(body) if body is not None else None, given)
    answer = connection.getresponse()
    content = json.loads(answer.read())
    connection.close()
    return Answer(answer.status, dict(answer.headers), content, time.monotonic() - began)


def asked_again_and_again(seconds: float, one: Callable[[], Answer]) -> list[Answer]:
    """The answers, one after the other, for so long."""
    ends, answers = time.monotonic() + seconds, []
    while time.monotonic() < ends:
        answers.append(one())
        time.sleep(0.02)
    return answers


@contextmanager
def meanwhile(work: Callable[[], Any]) -> Iterator[None]:
    """Beside the block; ended when it ends."""
    thread = Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_with_redis_frozen_doors_go_on_answering_and_readers_do_not_wait(stack: Stack, agent: str) -> None:
    reads: list[Answer] = []

    def read() -> None:
        reads.extend(asked_again_and_again(SECONDS, lambda: ask(stack, "GET", agent)))

    with stack.redis.frozen(), meanwhile(read):
        writes = asked_again_and_again(SECONDS, lambda: ask(stack, "PATCH", agent, {"current_task": "wait"}))

    assert {answer.status for answer in writes} == {202}
    assert max(answer.seconds for answer in writes) < busy(2)
    assert {answer.status for answer in reads} == {200}
    slow = [answer.seconds for answer in reads if answer.seconds > busy(0.5)]
    assert len(slow) <= 2, "each door finds out once that Redis does not answer"
    eventually(lambda: ask(stack, "PATCH", agent, {"current_task": "on"}, Prefer="wait=5").status == 200, 30)


def test_with_postgresql_down_doors_say_when_to_come_back_and_recover_by_themselves(stack: Stack, agent: str) -> None:
    before = processes(stack)
    stream = Stream(f"http://{stack.address}", stack.key, agent.rpartition("/agents")[0] + "/events")

    stack.postgres.crash()
    refused = asked_again_and_again(3, lambda: ask(stack, "PATCH", agent, {"current_task": "lost"}))
    stack.postgres.begin()

    assert {answer.status for answer in refused} == {503}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    assert max(answer.seconds for answer in refused) < busy(3)
    eventually(lambda: ask(stack, "PATCH", agent, {"current_task": "found"}, Prefer="wait=5").status == 200, 30)
    assert ask(stack, "GET", agent).body["current_task"] == "found"
    with stream:
        eventually(lambda: stream.data and stream.data[-1]["changes"] == {"current_task": "found"}, 10)
        assert stream.is_open, "it was not even cut"
    assert processes(stack) == before, "nothing of ours was started again"


def test_with_postgresql_frozen_doors_give_up_and_recover_by_themselves(stack: Stack, agent: str) -> None:
    before = processes(stack)
    ask(stack, "PATCH", agent, {"current_task": "before"}, Prefer="wait=5")
    others: list[Answer] = []

    def ask_too() -> None:
        others.extend(asked_again_and_again(14, lambda: ask(stack, "GET", agent)))

    with stack.postgres.frozen(), meanwhile(ask_too):
        writes = asked_again_and_again(14, lambda: ask(stack, "PATCH", agent, {"current_task": "lost"}))

    assert {answer.status for answer in (*writes, *others)} == {503}
    for answers in (writes, others):
        slow = [answer.seconds for answer in answers if answer.seconds > busy(3)]
        assert len(slow) <= CHILDREN["web"] < len(answers), "each process finds out once that nothing answers"
        assert max(slow, default=0) < busy(7), "the database itself would have ended a statement after five"
    eventually(lambda: ask(stack, "PATCH", agent, {"current_task": "thawed"}, Prefer="wait=5").status == 200, 30)
    assert processes(stack) == before, "nothing of ours was started again"


def processes(stack: Stack) -> set[int]:
    """Those of our programs."""
    mains = [stack.program(name) for name in ("web", "worker", "beat")]
    found: list[psutil.Process] = [process for main in mains if main for process in (main, *main.children())]
    return {process.pid for process in found}
