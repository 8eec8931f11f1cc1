"""Limits in Redis: exact over any window, for all processes together; and what holds while Redis is away."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import redis

from orchestrator import limits
from orchestrator.embedded import valkey
from orchestrator.limits import Spent, spend
from orchestrator.link import PATIENCE_SECONDS, Link, link
from orchestrator.settings import settings
from tests.stage import ROOT, Api, busy, eventually, free_port, is_problem
from tests.surface import Scene

SECOND = 1_000_000
"""In Redis's microseconds."""

HAMMER = """
import sys, time
from orchestrator.limits import spend
who, *actions = sys.argv[1:]
spend("pause", "warm")
print("ready", flush=True)
until = float(sys.stdin.readline()) + time.monotonic()
admitted = dict.fromkeys(actions, 0)
while time.monotonic() < until:
    for action in actions:
        admitted[action] += spend(action, who).allowed
print(*admitted.values())
"""

Set = Callable[..., None]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Set]:
    """Sets limits, and other settings, of this process and of those it starts: `here(get="5/second", redis_url=…)`."""

    def put(redis_url: str | None = None, web_processes: int = 1, **given: str) -> None:
        monkeypatch.setenv("ORCH_LIMITS", json.dumps({"*": "off", "anonymous": "off"} | given))
        monkeypatch.setenv("ORCH_WEB_PROCESSES", str(web_processes))
        if redis_url is not None:
            other = Link(redis_url)  # of the limits alone: the bell and the waiters keep theirs
            monkeypatch.setattr(limits, "link", lambda: other)
        forget()

    yield put
    monkeypatch.undo()
    forget()


def forget() -> None:
    """Let this process read its settings anew, and remember no shares."""
    for cached in (settings, limits.limits, limits._shares, limits._script):
        cached.cache_clear()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[redis.Redis]:
    """A Redis of this test's own; `address` tells where."""
    with valkey(tmp_path) as url, redis.Redis.from_url(url, retry=None) as client:
        yield client


def address(client: redis.Redis) -> str:
    """The URL of a test's own Redis."""
    given = client.get_connection_kwargs()
    return f"redis://:{given['password']}@{given['host']}:{given['port']}/0"


def someone() -> str:
    """A caller nobody has heard of."""
    return uuid4().hex


def taken(action: str, who: str) -> Spent:
    """One request, of an action that is limited."""
    spent = spend(action, who)
    assert spent is not None
    return spent


def admissions(who: str, action: str = "get") -> dict[bytes, float]:
    """What Redis keeps of a caller's admitted requests: when each was, by its own clock. It keeps a window's."""
    return dict(link().client.zrange(f"orch:limit:{action}:{who}", 0, -1, withscores=True))


def hammer(processes: int, who: str, seconds: float, *actions: str) -> list[tuple[int, list[float]]]:
    """So many processes ask for these actions without a pause: of each, how many requests they were granted, and when,
    by Redis's clock."""
    command = [sys.executable, "-W", "ignore", "-c", HAMMER, who, *actions]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command, cwd=ROOT, env=os.environ, **pipes) for _ in range(processes)]  # type: ignore[call-overload]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    for process in running:
        print(seconds, file=process.stdin, flush=True)
    seen: dict[str, dict[bytes, float]] = {action: {} for action in actions}
    going = True
    while going:
        going = any(process.poll() is None for process in running)
        for action in actions:
            seen[action] |= admissions(who, action)
        time.sleep(0.1)  # far less than the window, after which Redis forgets
    granted = zip(*(map(int, process.communicate()[0].split()) for process in running), strict=True)
    return [(sum(each), sorted(seen[action].values())) for each, action in zip(granted, actions, strict=True)]


def test_four_processes_together_never_admit_more_than_the_limit_in_any_window(here: Set) -> None:
    here(get="1/second", list="30/second", pause="9/second")

    hammered = hammer(4, someone(), 3.2, "get", "list")

    for quota, (granted, times) in zip((1, 30), hammered, strict=True):
        assert len(times) == granted
        assert granted >= 3 * quota, "three whole windows were asked for"
        windows = [later - earlier for earlier, later in zip(times, times[quota:], strict=False)]
        assert min(windows) >= SECOND, f"{quota + 1} requests within {min(windows)} µs"


def test_the_window_slides_and_is_not_cut_by_the_clock(here: Set) -> None:
    here(get="2/second")
    who = someone()
    first = taken("get", who)
    (began,) = admissions(who).values()

    eventually(lambda: now() > began + 0.6 * SECOND)
    second, third = taken("get", who), taken("get", who)
    eventually(lambda: taken("get", who).allowed)
    fifth = taken("get", who)

    assert [first.allowed, second.allowed, third.allowed] == [True, True, False]
    assert not fifth.allowed or now() >= began + 1.6 * SECOND, "the second one still counted"


def now() -> float:
    """Redis's clock, in its microseconds."""
    seconds, microseconds = link().client.time()
    return float(seconds * SECOND + microseconds)


def test_where_the_clock_is_set_back_what_was_admitted_counts_on(here: Set) -> None:
    here(get="3/minute")
    who = someone()
    first = [taken("get", who).allowed for _ in range(2)]

    an_hour_ahead = {member: at + 3_600 * SECOND for member, at in admissions(who).items()}
    link().client.zadd(f"orch:limit:get:{who}", an_hour_ahead)
    then = [taken("get", who).allowed for _ in range(2)]

    assert first + then == [True, True, True, False]


def test_reset_says_when_there_will_be_more(here: Set) -> None:
    here(get="1/minute", list="1/second")
    who = someone()

    granted, refused = taken("get", who), taken("get", who)

    assert (granted.allowed, granted.remaining, refused.allowed, refused.remaining) == (True, 0, False, 0)
    assert 59 <= refused.reset <= granted.reset == 60
    assert taken("list", who).reset == 1


def test_above_a_thousand_an_estimate_serves_that_takes_no_more_room(here: Set) -> None:
    here(get="1001/day")
    who = someone()

    granted = sum(taken("get", who).allowed for _ in range(1_100))

    assert 1_001 <= granted <= 1_003, "a day's end may fall between two of them"
    kept = list(link().client.scan_iter(f"orch:limit:get:{who}*", count=10_000))
    assert sum(link().client.memory_usage(key) for key in kept) < 1_000


def test_the_estimate_takes_what_the_last_window_used_into_account(here: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EXACT_UP_TO", 0)
    here(get="40/second")
    who = someone()
    eventually(lambda: now() % SECOND < SECOND / 2)
    while taken("get", who).allowed:
        pass
    next_window = now() // SECOND * SECOND + SECOND

    eventually(lambda: now() >= next_window)
    granted = sum(taken("get", who).allowed for _ in range(80))

    assert granted <= 40 * (now() - next_window) / SECOND + 1
    eventually(lambda: taken("get", who).allowed)


def test_a_thousand_is_still_exact(here: Set) -> None:
    here(get="1000/day")
    who = someone()

    granted = sum(taken("get", who).allowed for _ in range(1_010))

    assert granted == len(admissions(who)) == 1_000


def test_what_nobody_uses_any_more_is_forgotten(here: Set) -> None:
    here(get="5/second", list="5000/second")
    who = someone()

    taken("get", who)
    taken("list", who)

    keys = list(link().client.scan_iter(f"orch:limit:*:{who}*", count=10_000))
    assert len(keys) == 3
    assert all(0 < link().client.pttl(key) <= 2_000 for key in keys)


@pytest.mark.parametrize("wipe", [lambda own: own.flushall(), lambda own: (own.flushall(), own.script_flush())])
def test_a_wiped_redis_starts_the_window_anew(here: Set, own: redis.Redis, wipe: Callable[[redis.Redis], None]) -> None:
    here(get="2/minute", redis_url=address(own))
    who = someone()
    before = [taken("get", who).allowed for _ in range(3)]

    wipe(own)

    assert before == [True, True, False]
    assert [taken("get", who).allowed for _ in range(3)] == before


# Redis is away


def gone(_own: redis.Redis) -> str:
    """Where no Redis is."""
    return f"redis://127.0.0.1:{free_port()}/0"


def frozen(own: redis.Redis) -> str:
    """A Redis that takes connections and says nothing."""
    os.kill(own.info("server")["process_id"], signal.SIGSTOP)
    return address(own)


def test_without_redis_hosts_share_as_processes_do(here: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_WEB_HOSTS", "3")
    here(get="12/minute", web_processes=2, redis_url=f"redis://127.0.0.1:{free_port()}/0")
    who = someone()

    assert [taken("get", who).allowed for _ in range(4)] == [True, True, False, False]


def barred(own: redis.Redis) -> str:
    """A Redis that lets nobody in."""
    return address(own).replace("@", "-wrong@")


def test_a_full_redis_still_counts(here: Set, own: redis.Redis) -> None:
    here(get="3/minute", web_processes=3, redis_url=address(own))
    who = someone()
    own.config_set("maxmemory", 1)

    spent = [taken("get", who) for _ in range(5)]

    assert [(answer.allowed, answer.remaining) for answer in spent[:4]] == [(True, 2), (True, 1), (True, 0), (False, 0)]


@pytest.fixture
def thawed(own: redis.Redis) -> Iterator[redis.Redis]:
    """A Redis of this test's own that may be frozen: it could not be ended otherwise."""
    process: int = own.info("server")["process_id"]
    yield own
    os.kill(process, signal.SIGCONT)


def counted(api: Api) -> dict[str, float]:
    """The metric of requests that were limited without Redis, by outcome."""
    lines = api.get("/metrics").text.splitlines()
    found = (line.split() for line in lines if line.startswith("orchestrator_limits_local_total{"))
    return {name.split('"')[1]: float(value) for name, value in found}


@pytest.mark.parametrize("away", [gone, frozen, barred])
def test_without_redis_each_process_admits_its_share_and_counts(
    scene: Scene, here: Set, thawed: redis.Redis, away: Callable[[redis.Redis], str]
) -> None:
    user = scene.admin.user()
    here(admin="8/minute", web_processes=4, redis_url=away(thawed))
    before, began = counted(user), time.monotonic()

    answers = [user.get("projects") for _ in range(3)]

    assert time.monotonic() - began < busy(1 + 3 * PATIENCE_SECONDS)
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert is_problem(answers[-1], 429, "rate_limited")
    assert 58 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert [answer.headers["RateLimit"].split(";")[1] for answer in answers] == ["r=1", "r=0", "r=0"]
    after = counted(user)
    assert after["passed"] - before.get("passed", 0) == 2
    assert after["refused"] - before.get("refused", 0) == 1


def test_a_share_is_at_least_one_request(here: Set) -> None:
    here(get="3/minute", web_processes=64, redis_url=f"redis://127.0.0.1:{free_port()}/0")
    who = someone()

    assert [taken("get", who).allowed for _ in range(2)] == [True, False]


def test_a_share_is_one_callers_and_one_actions(here: Set) -> None:
    here(get="1/minute", list="1/minute", redis_url=f"redis://127.0.0.1:{free_port()}/0")
    one, other = someone(), someone()

    spent = [taken("get", one), taken("list", one), taken("get", other), taken("get", one)]

    assert [answer.allowed for answer in spent] == [True, True, True, False]


def test_a_flood_of_others_makes_room_for_itself_alone(here: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    here(get="1/minute", anonymous="1/minute", redis_url=f"redis://127.0.0.1:{free_port()}/0")
    monkeypatch.setattr(limits, "REMEMBERED", 3)
    who, busy = someone(), someone()

    first = [taken("get", who).allowed, taken("anonymous", busy).allowed]
    again = [(taken("anonymous", someone()), taken("anonymous", busy))[1].allowed for _ in range(10)]
    assert first == [True, True]
    assert not any(again), "strangers lift no limit of one who goes on"
    assert not taken("get", who).allowed, "nor anybody's limit of another kind"

    for _ in range(3):
        taken("get", someone())
    assert taken("get", who).allowed, "who has not been seen for longest makes room: this is a bound on memory"


def test_a_share_slides_too_and_refusals_do_not_spend_it(here: Set) -> None:
    here(get="2/second", redis_url=f"redis://127.0.0.1:{free_port()}/0")
    who = someone()

    first = [taken("get", who).allowed for _ in range(3)]
    eventually(lambda: taken("get", who).allowed, 5)

    assert first == [True, True, False]


def test_failed_keys_are_limited_without_redis_and_valid_ones_pass(scene: Scene, here: Set) -> None:
    nobody = Api(scene.owner.client, None)
    here(anonymous="2/minute", redis_url=f"redis://127.0.0.1:{free_port()}/0")

    answers = [nobody.get("projects") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [401, 401, 429]
    assert scene.owner.get("projects").status_code == 200


def test_limits_are_redis_business_again_once_it_is_back(here: Set, thawed: redis.Redis) -> None:
    process: int = thawed.info("server")["process_id"]
    here(get="9/minute", web_processes=9, redis_url=address(thawed))
    who = someone()
    assert taken("get", who).remaining == 8

    os.kill(process, signal.SIGSTOP)
    alone = taken("get", who)
    os.kill(process, signal.SIGCONT)

    assert (alone.allowed, alone.remaining) == (True, 0)
    eventually(lambda: taken("get", who).remaining >= 5, 5)
