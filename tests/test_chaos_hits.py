"""A campaign's faults say whom they hit: one that hit nobody has not happened, and who was killed must be replaced."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import psutil
import psycopg
import pytest

from orchestrator.bootstrap import prepare
from orchestrator.embedded import DATABASE
from tests.chaos import campaign, history, hits, mishaps
from tests.chaos.drafts import right
from tests.chaos.evidence import gather
from tests.chaos.faults import ALL, WIPES, WITHOUT_BELLS
from tests.chaos.floors import missed
from tests.chaos.history import Fault
from tests.chaos.hits import Hit, Missed
from tests.chaos.plan import Plan
from tests.chaos.recovery import recovery
from tests.chaos.report import lines
from tests.chaos.simulation import SECOND
from tests.chaos.stack import OwnPostgres, Stack, stack, wait_until_back
from tests.faults import Failpoints
from tests.redis_server import OwnRedis
from tests.stage import eventually


class Hasty(random.Random):
    """Nothing lasts long."""

    def uniform(self, a: float, b: float) -> float:
        """A moment."""
        return 0.05 + 0 * (a + b)


@pytest.fixture(scope="module")
def deserted() -> Iterator[Stack]:
    """Servers and proxies, and none of our programs."""
    with TemporaryDirectory(prefix="orch-deserted-") as folder, ExitStack() as life:
        home = Path(folder)
        postgres = OwnPostgres(home)
        postgres.begin()
        life.callback(postgres.stop)
        prepare(f"postgresql+psycopg://postgres@/{DATABASE}?host={postgres.sockets}", home / "admin.key")
        redis = life.enter_context(OwnRedis.start(home))
        made = Stack(home, postgres, redis, Failpoints(home / "failpoints"))
        life.enter_context(made.to_postgres)
        life.enter_context(made.to_redis)
        yield made


@pytest.mark.parametrize("kind", ALL)
def test_a_fault_hits_nobody_where_nobody_is(deserted: Stack, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hits, "PATIENCE_SECONDS", 0.05)

    with pytest.raises(Missed):
        ALL[kind](deserted, Hasty())

    assert deserted.redis.client.dbsize() == 0, "what nobody was hit by is gone again"


@pytest.mark.parametrize("kind", ["postgres reset", "doors cut off", "postgres slow", "backends ended"])
def test_a_connection_that_is_there_is_counted(deserted: Stack, kind: str) -> None:
    at = f"host=127.0.0.1 port={deserted.to_postgres.port} user=postgres dbname={DATABASE}"

    door, other = psycopg.connect(at, application_name="orch-door"), psycopg.connect(at)
    with closing(door), closing(other), _again_and_again(lambda: door.execute("SELECT 1")):
        hit = ALL[kind](deserted, Hasty())

    assert hit.number == {"postgres reset": 2}.get(kind, 1)


@contextmanager
def _again_and_again(ask: Callable[[], object]) -> Iterator[None]:
    """Somebody asks all the time, until the end of the block or of the connection."""
    done = Event()

    def work() -> None:
        with suppress(psycopg.Error):
            while not done.is_set():
                ask()

    thread = Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.fixture(scope="module")
def running() -> Iterator[Stack]:
    """All of it."""
    with TemporaryDirectory(prefix="orch-hits-") as folder, stack(Path(folder) / "stack") as made:
        yield made


@pytest.fixture(scope="module")
def spawn(running: Stack) -> Iterator[Callable[[], object]]:
    """Asks for an agent, and may get no answer."""
    authorization = {"Authorization": f"Bearer {running.key}"}
    with httpx2.Client(base_url=f"http://{running.address}/api/v1", headers=authorization, timeout=5) as client:
        project = client.post("/projects", json={"name": "Hits"}).json()["id"]
        kind = client.post("/agent-types", json={"name": "Simulated"}).json()["id"]

        def make() -> None:
            with suppress(httpx2.TransportError):
                client.post(f"/projects/{project}/agents", json={"agent_type_id": kind, "name": "scout"})

        yield make


@pytest.mark.parametrize("kind", ["beat killed", "worker killed", "web child killed", "kill at drained"])
def test_who_is_killed_is_named_and_replaced(
    running: Stack, kind: str, spawn: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hits, "PATIENCE_SECONDS", 10)
    before = running.processes()

    with _again_and_again(spawn):
        hit = ALL[kind](running, Hasty())
    wait_until_back(running, hit.killed)

    assert hit.killed in before
    assert hit.whom == f"{before[hit.killed]} {hit.killed}"
    after = running.processes()
    assert hit.killed not in after
    assert sorted(after.values()) == sorted(before.values())


def test_a_program_that_only_answers_again_is_not_back(running: Stack) -> None:
    beat = cast("psutil.Process", running.program("beat"))

    with pytest.raises(TimeoutError, match="beat"):
        wait_until_back(running, beat.pid, seconds=0)
    beat.kill()
    eventually(lambda: running.program("beat") is None)
    with pytest.raises(TimeoutError, match="beat"):
        wait_until_back(running, seconds=0)
    wait_until_back(running, beat.pid)


def test_a_fault_is_over_before_the_programs_are_whole_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mishaps.ALL, "beat killed", lambda *_: Hit(1, "beat main 7", 7))
    waited: list[int | None] = []

    def wait(_: Stack, killed: int | None) -> None:
        waited.append(killed)
        time.sleep(0.3)

    monkeypatch.setattr(mishaps, "wait_until_back", wait)
    fault = mishaps.happen(cast("Stack", None), "beat killed", Hasty())

    assert (fault.kind, fault.target, fault.hit, waited) == ("beat killed", "beat main 7", 1, [7])
    assert fault.healed - fault.t0 < 0.2 * SECOND


def test_faults_that_hit_nobody_are_told_apart_and_count_for_nothing(tmp_path: Path) -> None:
    told = right(1, 30, faults=2)
    nobody = [Fault("fault 0", "", fault.t0, fault.healed, 0) for fault in told.faults]
    history.write(tmp_path, [*told.faults, *nobody], told.final)

    found = history.read(tmp_path)
    evidence = gather(replace(told, faults=found.faults, missed=found.missed))

    assert (found.faults, found.missed) == (told.faults, nobody)
    assert "fault 0: 1 of 2, and 2 that hit nobody" in missed(evidence, {"fault 0": 2}, 1)
    assert len(recovery(evidence)["fault 0"]) == 1
    assert any("1 fault 0: 1 hit, 2 times nobody; commands go on after" in line for line in lines(evidence, []))
    assert any("0 flood: 0 hit, 1 times nobody" in line for line in lines(_flooded(told), []))


def _flooded(told: history.History) -> Any:
    return gather(replace(told, missed=[Fault("flood", "", 0, 1, 0)]))


def test_one_that_hit_nobody_lets_another_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def miss(*_: object) -> Hit:
        raise Missed

    happen = {"beat killed": miss, "redis wiped": lambda *_: Hit(3, "keys"), "redis reset": lambda *_: Hit(1, "x")}
    monkeypatch.setattr(mishaps, "ALL", happen)
    monkeypatch.setattr(mishaps, "BETWEEN_SECONDS", (0.0, 0.01))
    monkeypatch.setattr(mishaps, "wait_until_back", lambda *_: None)
    faults: list[Fault] = []

    mishaps.go_wrong(Plan(1, 0.5, tuple(happen)), cast("Stack", None), faults)

    kinds = [fault.kind for fault in faults if not fault.hit]
    assert set(kinds) == {"beat killed"}
    assert len(kinds) <= len(faults) / 2 + 1, "nor does it keep the others from happening"


def test_the_end_of_a_campaign_without_redis_is_a_fault_of_its_own() -> None:
    done: list[str] = []
    redis = SimpleNamespace(**{name: lambda name=name: done.append(name) for name in ("stop", "lose", "begin")})
    servers = SimpleNamespace(redis=redis, to_redis=SimpleNamespace(open=12))
    caller = SimpleNamespace(insist=lambda *_: done.append("asked"))
    made = campaign.Campaign(Plan(1, 1), Path(), cast("Stack", servers))

    campaign._last_words(made, cast("Any", caller), cast("Any", SimpleNamespace(agents=["a", "b"], path="")))

    assert done == ["stop", "lose", "asked", "asked", "begin"]
    assert [(fault.kind, fault.hit) for fault in made.faults] == [(WITHOUT_BELLS, 12)]
    assert WITHOUT_BELLS in WIPES
    assert made.plan.wanted[WITHOUT_BELLS] == 1
