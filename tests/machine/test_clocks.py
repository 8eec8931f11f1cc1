"""The clocks of our hosts are wrong, each otherwise: the database's and Redis's decide, and nothing else changes.

Skipped where there is no C compiler, for the library with which a process sees another clock (`clock.c`).
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery.beat import ScheduleEntry

from tests.redis_server import OwnRedis
from tests.stage import ROOT, Project, Worker, eventually, sql, violations
from tests.wire import Gunicorn
from workers.app import app
from workers.ticks import MOST_WAITING, Ticks

AHEAD, BEHIND = 3600, -3600
"""Seconds."""

TTL = 5
LIMITS = '{"*": "off", "anonymous": "off", "agent_metrics": "2/hour"}'


@pytest.fixture(scope="module")
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What lets a process see a wrong clock; made here."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("a wrong clock needs a C compiler")
    made = str(tmp_path_factory.mktemp("clock") / "clock.so")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O2", "-o", made, str(Path(__file__).with_name("clock.c"))], check=True
    )
    return made


@dataclass
class Hosts:
    """Two doors whose clocks are two hours apart, a worker's third, and whom they serve."""

    first: Gunicorn
    second: Gunicorn
    project: Project

    def ask(self, door: Gunicorn, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """One request of the administrator's."""
        return door(method, path, self.project.api.key, body, **headers)

    def spawn(self) -> str:
        """The address of a new agent, whose birth a worker has seen to."""
        body = {"agent_type_id": self.project.type_id, "name": "scout"}
        made = self.ask(self.first, "POST", f"{self.project.path}/agents", body, Prefer="wait=10")
        assert made.status_code == 201, made.text
        return self.project.agent(made.json()["id"])


@pytest.fixture(params=[AHEAD, BEHIND], ids=["ahead", "behind"])
def hosts(
    request: pytest.FixtureRequest, preloaded: str, quiet: Project, own_redis: OwnRedis, tmp_path: Path
) -> Iterator[Hosts]:
    """The worker's clock is wrong in one way or the other, beat's in the other; of the doors there is one of each."""
    del own_redis

    def shifted(seconds: int) -> dict[str, str]:
        return {"LD_PRELOAD": preloaded, "CLOCK_OFF_BY": str(seconds)}

    with ExitStack() as life:
        ahead = Gunicorn.start(tmp_path / "ahead.log", **shifted(AHEAD), ORCH_LIMITS=LIMITS)
        behind = Gunicorn.start(tmp_path / "behind.log", **shifted(BEHIND), ORCH_LIMITS=LIMITS)
        doors = life.enter_context(ahead), life.enter_context(behind)
        life.enter_context(Worker.start(tmp_path / "worker.log", 1, **shifted(request.param)))
        life.enter_context(_beat(tmp_path, shifted(-request.param)))
        yield Hosts(*doors, quiet)


@contextmanager
def _beat(folder: Path, clock: dict[str, str]) -> Iterator[None]:
    command = [sys.executable, "-m", "celery", "-q", "-A", "workers.app", "beat", "--pidfile", ""]
    with (folder / "beat.log").open("ab") as output:
        process = subprocess.Popen(
            [*command, "--schedule", str(folder / "beat")],
            cwd=ROOT, env=os.environ | clock, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def now() -> datetime:
    """By the database's clock."""
    found: datetime = sql("SELECT clock_timestamp() AS now")[0].now
    return found


def test_the_databases_clock_decides_about_leases_holds_and_keys_and_redis_about_limits(hosts: Hosts) -> None:
    began, agent = now(), hosts.spawn()
    short = hosts.ask(hosts.first, "POST", "keys", {"name": "short", "expires_at": _in(1800)})

    lease = hosts.ask(hosts.first, "POST", f"{agent}/lease", {"holder": "one", "ttl": TTL})
    taken = hosts.ask(hosts.second, "POST", f"{agent}/lease", {"holder": "two", "ttl": TTL})
    held = hosts.ask(hosts.second, "POST", f"{hosts.spawn()}/pause", {"owner": "night", "until": _in(4)})
    metrics = [hosts.ask(door, "GET", f"{agent}/metrics").status_code for door in (hosts.first, hosts.second) * 2]

    assert (lease.status_code, taken.status_code, held.status_code) == (201, 409, 202)
    asked = [
        hosts.ask(door, "PATCH", agent, {"current_task": "one"}, Idempotency_Key="once")
        for door in (hosts.first, hosts.second, hosts.first)
    ]

    assert len({answer.json()["id"] for answer in asked}) == 1, "tried again, it is the same"
    assert metrics == [200, 200, 429, 429], "one window for both"
    for door in (hosts.first, hosts.second):
        assert door("GET", "me", short.json()["key"]).status_code == 200, "it is good for half an hour"
    _ends_in_time(held.json()["agent_id"], began)
    assert violations() == {}


def _in(seconds: float) -> str:
    return (now() + timedelta(seconds=seconds)).isoformat()


def _ends_in_time(paused: str, began: datetime) -> None:
    """Lease and hold end when it is time, neither at once nor in an hour; and all that is written down is of now."""
    eventually(lambda: sql("SELECT 1 FROM leases WHERE ended_by = 'expiry'"), 30)
    eventually(lambda: sql("SELECT 1 FROM agents WHERE id = :id AND status = 'idle'", id=paused), 30)
    [lease] = sql("SELECT extract(epoch FROM ended_at - granted_at) AS lasted FROM leases WHERE ended_by = 'expiry'")
    [lifted] = sql("SELECT * FROM commands WHERE agent_id = :id AND cause IS NOT NULL", id=paused)
    assert lease.lasted >= TTL
    assert lifted.closed_at >= began + timedelta(seconds=3)
    [written] = sql("""
        SELECT min(t) AS first, max(t) AS last FROM (
            SELECT created_at AS t FROM commands UNION ALL SELECT closed_at FROM commands WHERE closed_at IS NOT NULL
            UNION ALL SELECT at FROM events UNION ALL SELECT recorded_at FROM events) times
        WHERE t > now() - interval '1 day'""")
    assert began <= written.first
    assert written.last <= now()


def test_what_beat_asks_for_is_done_whatever_the_workers_clock_says(hosts: Hosts) -> None:
    hosts.spawn()

    rolled = "SELECT 1 FROM fleet_minutes WHERE project_id = :id"
    eventually(lambda: sql(rolled, id=hosts.project.id), 40)


def test_ticks_do_not_pile_up_while_no_worker_is_there(own_redis: OwnRedis) -> None:
    ticks = Ticks(app, schedule_filename=os.devnull, lazy=True)
    entry = ScheduleEntry("sweep", **app.conf.beat_schedule["sweep"], app=app)

    sent = [ticks.apply_async(entry, advance=False) for _ in range(3 * MOST_WAITING)]

    assert own_redis.client.llen("upkeep") == MOST_WAITING
    assert sent[MOST_WAITING:] == [None] * 2 * MOST_WAITING
    assert not any("expires" in each["options"] for each in app.conf.beat_schedule.values())
