"""For those who run it: health, readiness, metrics, and the invariants."""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx2
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import create_engine, make_url, text

from orchestrator import verify
from tests.redis_server import forget_redis
from tests.stage import Api, Project, Worker, drain, eventually, held, sql
from tests.wire import Gunicorn
from web import glance
from web.waiters import waiters
from workers import tasks

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-", re.IGNORECASE)


def ready(api: Api) -> tuple[int, dict[str, Any]]:
    """Status and body of the readiness check, asked without a key."""
    answer = Api(api.client, None).get("/readyz")
    return answer.status_code, answer.json  # type: ignore[return-value]


@pytest.fixture(autouse=True)
def sharp(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look is never good for a second here: each test changes what there is to see."""
    monkeypatch.setattr(glance, "GOOD_SECONDS", -1)


@pytest.fixture
def heard(worker: Worker) -> None:
    """This process has heard the session's worker."""
    del worker
    eventually(lambda: tasks.canary.apply_async() and waiters().heard.is_set(), 20)


@pytest.fixture
def redis_away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody listens where this process looks for Redis."""
    monkeypatch.setenv("ORCH_REDIS_URL", "redis://127.0.0.1:1/0")
    forget_redis()
    yield
    monkeypatch.undo()
    forget_redis()


@pytest.fixture
def deaf(redis_away: None) -> Iterator[None]:
    """This process began when Redis was away already, and has heard nobody."""
    del redis_away
    waiters.cache_clear()
    yield
    waiters.cache_clear()


@pytest.fixture
def closed_database(quiet: Project, alone: str) -> Project:
    """A project whose database has just closed its doors."""
    let_in(alone, False)
    return quiet


def let_in(url: str, anybody: bool = True) -> None:
    """Open a database's doors, or close them and send everybody away."""
    name, admin = make_url(url).database, create_engine(make_url(url).set(database="postgres"))
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        db.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {anybody}"))
        if not anybody:
            everybody = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
            db.execute(text(everybody), {"name": name})
    admin.dispose()


def test_a_process_that_is_up_says_so_to_anybody(admin: Api) -> None:
    answer = Api(admin.client, None).get("/healthz")

    assert (answer.status_code, answer.json) == (200, {"status": "ok"})


def test_a_process_that_has_all_it_needs_is_ready(admin: Api, heard: None) -> None:
    del heard

    assert ready(admin) == (200, {"status": "ready", "degraded": []})


def test_a_process_without_its_database_is_alive_but_not_ready(closed_database: Project, heard: None) -> None:
    del heard
    api = closed_database.api

    status, said = ready(api)
    refused = api.get(closed_database.path)

    assert (status, said["status"], api.get("/healthz").status_code) == (503, "not ready", 200)
    assert "database" in said["reason"]
    assert (refused.status_code, refused.json["errors"][0]["code"]) == (503, "unavailable")
    assert int(refused.headers["Retry-After"]) > 0


def test_a_process_whose_schema_is_not_migrated_is_not_ready(quiet: Project, heard: None) -> None:
    del heard
    sql("UPDATE alembic_version SET version_num = 'another'")

    status, said = ready(quiet.api)

    assert (status, said["status"]) == (503, "not ready")
    assert "migrations" in said["reason"]


def test_a_process_that_has_heard_no_worker_is_not_ready(admin: Api, deaf: None) -> None:
    del deaf

    status, said = ready(admin)

    assert (status, said["status"]) == (503, "not ready")
    assert "worker" in said["reason"]


def test_doors_stay_open_while_redis_is_away(project: Project, heard: None, redis_away: None) -> None:
    del heard, redis_away
    agent = project.spawn(wait=False)["agent_id"]

    assert ready(project.api) == (200, {"status": "ready", "degraded": ["redis"]})
    assert project.send(agent, "pause")["state"] == "queued"


def test_an_old_queue_is_called_degraded(quiet: Project, heard: None) -> None:
    del heard
    quiet.spawn(wait=False)
    young = ready(quiet.api)
    sql("UPDATE commands SET created_at = now() - interval '11 seconds'")

    assert young == (200, {"status": "ready", "degraded": []})
    assert ready(quiet.api) == (200, {"status": "ready", "degraded": ["queue_age"]})


def samples(exposition: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Labels and value of each sample, by its name."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def answers(exposition: str, endpoint: str, status: int) -> float:
    """How many answers of an endpoint with a status were counted."""
    labels = {"endpoint": endpoint, "status": str(status)}
    return sum(value for given, value in samples(exposition)["orchestrator_http_answers_total"] if given == labels)


def test_the_metrics_tell_depth_and_age_of_the_queue(quiet: Project) -> None:
    empty = samples(quiet.api.get("/metrics").text)
    for _ in range(3):
        quiet.spawn(wait=False)
    sql("UPDATE commands SET created_at = now() - interval '60 seconds' WHERE seq = (SELECT min(seq) FROM commands)")

    found = samples(Api(quiet.api.client, None).get("/metrics").text)
    drain()
    drained = samples(quiet.api.get("/metrics").text)

    depths = [each["orchestrator_queue_depth"][0][1] for each in (empty, found, drained)]
    assert depths == [0, 3, 0]
    assert 60 <= found["orchestrator_queue_age_seconds"][0][1] < 120
    assert [labels["quantile"] for labels, _ in drained["orchestrator_command_seconds"]] == ["p50", "p95", "p99"]
    assert all(0 < value < 60 for _, value in drained["orchestrator_command_seconds"])


def test_the_metrics_tell_how_long_what_was_closed_of_late_had_taken(quiet: Project) -> None:
    agent = quiet.born()
    for age, ago in (("30 minutes", "30 seconds"), ("1 day", "5 minutes")):
        quiet.send(agent, "pause")
        drain()
        sql(f"""UPDATE commands SET created_at = now() - interval '{age}', closed_at = now() - interval '{ago}'
            WHERE seq = (SELECT max(seq) FROM commands)""")
    sql("DELETE FROM commands WHERE verb = 'spawn'")

    found = samples(quiet.api.get("/metrics").text)

    assert [round(value) for _, value in found["orchestrator_command_seconds"]] == [29 * 60 + 30] * 3


def test_who_asks_again_within_a_second_is_told_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    looks: list[int] = []
    look = glance.glance(lambda: looks.append(0) or len(looks))

    with ThreadPoolExecutor(8) as pool:
        said = set(pool.map(lambda _: look(), range(100)))
    monkeypatch.setattr(glance, "GOOD_SECONDS", -1)

    assert (said, look()) == ({1}, 2)


def test_a_look_that_takes_long_is_good_for_a_second_from_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    clock = [0.0]
    monkeypatch.setattr(glance, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    @glance.glance
    def look() -> float:
        clock[0] += 2
        return clock[0]

    assert (look(), look()) == (2, 2)


@pytest.mark.parametrize(
    ("path", "away"),
    [
        ("/readyz", lambda answer: answer.status_code == 503),
        ("/metrics", lambda answer: "orchestrator_queue_depth" not in answer.text),
    ],
)
def test_that_the_database_is_away_is_good_for_a_second_as_well(
    closed_database: Project,
    alone: str,
    heard: None,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    away: Callable[[Any], bool],
) -> None:
    del heard
    seen = [away(closed_database.api.get(path))]

    let_in(alone)
    for seconds in (3600, -1):
        monkeypatch.setattr(glance, "GOOD_SECONDS", seconds)
        seen.append(away(closed_database.api.get(path)))

    assert seen == [True, True, False]


def test_a_look_that_fails_is_looked_again() -> None:
    looks = iter([0, 1])
    look = glance.glance(lambda: 1 / next(looks))

    with pytest.raises(ZeroDivisionError):
        look()
    assert look() == 1


@pytest.fixture(scope="module")
def counting(world: None, home: Path) -> Path:
    """Where the module's web servers keep what they count together."""
    folder = home / "metrics-of-two"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def two(counting: Path, home: Path) -> Iterator[list[Gunicorn]]:
    """Two web servers that count together."""
    with ExitStack() as stack:
        logs = (home / f"web-operations-{number}.log" for number in range(2))
        yield [stack.enter_context(Gunicorn.start(log, PROMETHEUS_MULTIPROC_DIR=str(counting))) for log in logs]


def test_a_process_that_died_has_no_requests_that_wait(project: Project, two: list[Gunicorn]) -> None:
    agent, web = project.spawn()["id"], two[0]

    def waiting() -> float:
        told = web.ask(b"GET /metrics HTTP/1.1", None).data.decode()  # each time through a connection of its own
        return samples(told)["orchestrator_waiting_requests"][0][1]

    def pause() -> None:
        with suppress(httpx2.HTTPError):
            web("POST", f"{project.agent(agent)}/pause", project.api.key, Prefer="wait=30")

    with held(agent), ThreadPoolExecutor(1) as pool:
        pool.submit(pause)
        eventually(lambda: waiting() == 1)
        (child,) = psutil.Process(web.process.pid).children()
        child.kill()
    eventually(lambda: waiting() == 0)


def test_a_process_that_is_just_starting_does_no_harm_to_the_metrics(two: list[Gunicorn], counting: Path) -> None:
    (counting / "counter_4194304.db").touch()

    answer = two[0]("GET", "/metrics", None)

    (counting / "counter_4194304.db").unlink()
    assert answer.status_code == 200
    assert "orchestrator_http_answers_total" in samples(answer.text)


def test_the_metrics_count_answers_and_their_seconds_by_endpoint(project: Project) -> None:
    before = project.api.get("/metrics").text
    project.api.get(project.path)
    project.api.get(f"projects/{uuid4()}")

    after = project.api.get("/metrics").text

    for status in (200, 404):
        more = answers(after, "projects.get_project", status) - answers(before, "projects.get_project", status)
        assert more == 1
    took = {labels["endpoint"] for labels, _ in samples(after)["orchestrator_http_seconds_bucket"]}
    assert "projects.get_project" in took


def test_no_label_of_a_metric_is_an_id_or_an_address(project: Project) -> None:
    agent = project.spawn()["id"]
    for path in (project.agent(agent), f"{project.agent(agent)}/metrics", f"nowhere/{agent}", project.path):
        project.api.get(path)

    found = samples(project.api.get("/metrics").text)

    values = {value for each in found.values() for labels, _ in each for value in labels.values()}
    assert not [value for value in values if UUID.search(value) or "@" in value or "/" in value]


def test_the_metrics_are_told_without_the_database_too(closed_database: Project) -> None:
    answer = closed_database.api.get("/metrics")

    found = samples(answer.text)
    assert answer.status_code == 200
    assert "orchestrator_http_answers_total" in found
    assert "orchestrator_queue_depth" not in found


def test_the_metrics_of_two_processes_are_one_sum(admin: Api, two: list[Gunicorn]) -> None:
    def counted(web: Gunicorn) -> float:
        return answers(web("GET", "/metrics", None).text, "people.get_me", 200)

    before = counted(two[0])
    for web in two:
        for _ in range(3):
            assert web("GET", "me", admin.key).status_code == 200

    assert [counted(web) - before for web in two] == [6, 6]


def test_the_invariants_are_judged_for_superusers_only(quiet: Project) -> None:
    agent = quiet.born()
    good = quiet.api.get("verify")
    sql("UPDATE agents SET tokens_used = tokens_used + 1 WHERE id = :id", id=agent)
    bad = quiet.api.get("verify")
    stranger = quiet.api.user().get("verify")

    assert (good.status_code, good.json["ok"]) == (200, True)
    assert [found["name"] for found in good.json["invariants"]] == list(verify.INVARIANTS)
    assert not any(found["violations"] for found in good.json["invariants"])
    assert bad.json["ok"] is False
    assert {found["name"] for found in bad.json["invariants"] if found["violations"]} == {"I8a", "I8b"}
    assert (stranger.status_code, stranger.json["errors"][0]["code"]) == (403, "insufficient_permissions")


def test_the_metrics_keep_what_was_last_verified(quiet: Project) -> None:
    agent = quiet.born()
    found = []
    for wrong in (1, 0):
        sql("UPDATE agents SET tokens_used = :wrong WHERE id = :id", id=agent, wrong=wrong)
        quiet.api.get("verify")
        told = samples(quiet.api.get("/metrics").text)
        found.append({labels["invariant"]: n for labels, n in told["orchestrator_verify_violations"]}["I8a"])

    assert found == [1, 0]
    assert 0 <= time.time() - told["orchestrator_verified_timestamp_seconds"][0][1] < 60


def test_the_metrics_tell_what_inspections_have_found(quiet: Project) -> None:
    agent = quiet.born()
    sql("UPDATE agents SET tokens_used = 1 WHERE id = :id", id=agent)

    found = tasks.inspect()
    told = samples(quiet.api.get("/metrics").text)

    assert found == {"I8a": 1, "I8b": 1}
    counted = {labels["invariant"]: n for labels, n in told["orchestrator_invariant_violations_total"]}
    assert counted == dict.fromkeys(verify.OF_ITS_AGENTS | verify.OF_A_PROJECT, 0) | found
    assert 0 <= time.time() - told["orchestrator_inspected_timestamp_seconds"][0][1] < 60
