"""`orch doctor`: all well on a stack that works, and what to do about each thing that does not."""

import json
import re
import socket
from pathlib import Path
from threading import Thread

import httpx2
import pytest
from sqlalchemy import make_url

from orchestrator.limits import limits
from orchestrator.settings import settings
from tests.redis_server import OwnRedis
from tests.shell import Orch, serving
from tests.stage import eventually, has_ipv6, sql

pytestmark = pytest.mark.usefixtures("worker")

CHECKS = [
    *("Python", "settings", "home", "port", "PostgreSQL", "PostgreSQL disk", "migration", "clock"),
    *("Redis", "Redis memory", "Redis disk", "server", "worker", "key"),
]


@pytest.fixture
def orch(server: str, template: tuple[str, str]) -> Orch:
    """The command line where the server is, and should be, once it has heard the worker."""
    eventually(lambda: httpx2.get(f"{server}/readyz").is_success)
    port = server.rpartition(":")[2]
    return Orch({"ORCH_URL": server, "ORCH_API_KEY": template[1], "ORCH_PORT": port, "ORCH_FLOWER_PORT": "0"})


Findings = dict[str, dict[str, str]]


def by_subject(printed: str) -> Findings:
    """Each finding by what it is about."""
    return {finding["what"]: finding for finding in json.loads(printed)}


def findings(orch: Orch, **env: str | None) -> tuple[int, Findings]:
    """The exit code, and each finding by what it is about; in this process, which takes a tenth of the time."""
    _forget()
    result = orch("doctor", **env)
    _forget()
    return result.exit_code, by_subject(result.stdout)


def _forget() -> None:
    settings.cache_clear()
    limits.cache_clear()


def _hang_up(listener: socket.socket) -> None:
    """Take connections and end them, until the listener is shut."""
    try:
        while True:
            listener.accept()[0].close()
    except OSError:
        pass


def _shift_clock(database_url: str, interval: str) -> None:
    """Let later connections to a database see another time: theirs comes before the server's own function."""
    name = make_url(database_url).database
    sql(f"CREATE FUNCTION clock_timestamp() RETURNS timestamptz RETURN pg_catalog.clock_timestamp() + {interval}")
    sql(f"ALTER DATABASE {name} SET search_path = public, pg_catalog")


def test_a_stack_that_works_passes_every_check(orch: Orch) -> None:
    result = orch.run("doctor")
    found = by_subject(result.stdout)

    assert result.returncode == 0, found
    assert list(found) == CHECKS
    assert {found[what]["state"] for what in CHECKS if not what.startswith(("Redis", "PostgreSQL disk"))} == {"ok"}
    assert found["Redis"]["state"] == found["Redis memory"]["state"] == "ok"
    assert "is ours" in found["port"]["says"]
    assert "superuser" in found["key"]["says"]


def test_on_a_terminal_each_finding_is_a_line_with_what_to_do_below(orch: Orch) -> None:
    _forget()
    code, shown = orch.drawn("doctor", "--url", "http://127.0.0.1:1")
    _forget()

    lines = shown.splitlines()
    assert code == 1
    assert any("ok" in line and "migration" in line for line in lines)
    assert any("fail" in line and "server" in line for line in lines)


@pytest.mark.parametrize(
    ("setting", "value", "what", "advice"),
    [
        ("ORCH_LIMITS", "many", "settings", "Correct the environment"),
        ("ORCH_LIMITS", '{"nap": "off"}', "settings", "Correct the environment"),
        ("ORCH_PORT", "99999", "settings", "Correct the environment"),
        ("ORCH_HOME", "/proc/nowhere", "home", "Set ORCH_HOME"),
        ("ORCH_DATABASE_URL", "postgresql+psycopg://postgres@127.0.0.1:1/x", "PostgreSQL", "ORCH_DATABASE_URL"),
        ("ORCH_REDIS_URL", "redis://127.0.0.1:1/0", "Redis", "ORCH_REDIS_URL"),
        ("ORCH_URL", "http://127.0.0.1:1", "server", ""),
        ("ORCH_API_KEY", "wrong", "key", ""),
    ],
)
def test_what_is_wrong_is_a_failure_that_says_what_to_do(
    orch: Orch, setting: str, value: str, what: str, advice: str
) -> None:
    code, found = findings(orch, **{setting: value})

    assert code == 1
    assert found[what]["state"] == "fail"
    assert advice in found[what]["advice"]
    assert all(finding["state"] != "fail" for name, finding in found.items() if name not in (what, "key"))


@pytest.mark.parametrize(("what", "setting"), [("port", "ORCH_PORT"), ("Flower's port", "ORCH_FLOWER_PORT")])
def test_a_port_that_another_program_has_is_a_failure_and_a_free_one_is_not(
    orch: Orch, what: str, setting: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        Thread(target=_hang_up, args=(other,), daemon=True).start()
        taken, found = findings(orch, **{setting: port})
        other.shutdown(socket.SHUT_RDWR)
    free, later = findings(orch, **{setting: port})

    assert (taken, found[what]["state"], free, later[what]["state"]) == (1, "fail", 0, "ok")
    assert setting in found[what]["advice"]
    assert later[what]["says"] == f"{port} is free"


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
@pytest.mark.parametrize("host", ["::1", "::"])
def test_so_is_one_of_ipv6(orch: Orch, host: str) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        port = str(other.getsockname()[1])
        Thread(target=_hang_up, args=(other,), daemon=True).start()
        code, found = findings(orch, ORCH_HOST=host, ORCH_PORT=port)
        other.shutdown(socket.SHUT_RDWR)

    assert (code, found["port"]["state"]) == (1, "fail")


def test_a_database_that_says_done_before_it_is_on_disk_is_a_warning(orch: Orch, alone: str) -> None:
    sql(f"ALTER DATABASE {make_url(alone).database} SET synchronous_commit = off")

    code, found = findings(orch, ORCH_DATABASE_URL=alone)

    assert (code, found["PostgreSQL disk"]["state"]) == (0, "warn")
    assert "synchronous_commit" in found["PostgreSQL disk"]["says"]
    assert "crash" in found["PostgreSQL disk"]["advice"]


def test_a_database_at_another_revision_is_a_failure(orch: Orch, alone: str) -> None:
    sql("UPDATE alembic_version SET version_num = 'older'")

    code, found = findings(orch, ORCH_DATABASE_URL=alone)

    assert code == 1
    assert found["migration"]["state"] == "fail"
    assert "older" in found["migration"]["says"]
    assert "bootstrap" in found["migration"]["advice"]


@pytest.mark.parametrize(
    ("interval", "code", "state", "says"),
    [
        ("'1 hour'", 1, "fail", "3600.0 s ahead of ours"),
        ("'-1 hour'", 1, "fail", "3600.0 s behind ours"),
        ("'-1 minute'", 0, "warn", "60.0 s behind ours"),
    ],
)
def test_a_clock_that_differs_is_a_warning_or_where_usage_would_be_refused_a_failure(
    orch: Orch, alone: str, interval: str, code: int, state: str, says: str
) -> None:
    _shift_clock(alone, interval)

    exit_code, found = findings(orch, ORCH_DATABASE_URL=alone)

    assert (exit_code, found["clock"]["state"]) == (code, state)
    assert says in found["clock"]["says"]
    assert "NTP" in found["clock"]["advice"]


@pytest.mark.parametrize(
    ("config", "code", "what", "state", "advice"),
    [
        ({"maxmemory": "64mb", "maxmemory-policy": "allkeys-lru"}, 1, "Redis memory", "fail", "noeviction"),
        ({"maxmemory-policy": "allkeys-lru"}, 0, "Redis memory", "warn", "noeviction"),
        ({"appendonly": "no", "save": ""}, 0, "Redis disk", "warn", "CONFIG SET appendonly yes"),
        ({"appendonly": "no", "save": "60 1"}, 0, "Redis disk", "ok", ""),
    ],
)
def test_a_redis_that_drops_what_it_should_keep_is_found(
    orch: Orch, own_redis: OwnRedis, config: dict[str, str], code: int, what: str, state: str, advice: str
) -> None:
    for name, value in config.items():
        own_redis.client.config_set(name, value)

    exit_code, found = findings(orch, ORCH_REDIS_URL=own_redis.url)

    assert (exit_code, found[what]["state"]) == (code, state)
    assert advice in found[what].get("advice", "")


@pytest.mark.parametrize(
    ("part", "wrong", "why"),
    [
        (r":\w+@", ":secret@", "it wants another password"),
        (r":\w+@", "", "it wants another password"),
        (r"/0$", "/99", "DB index is out of range"),
    ],
)
def test_a_redis_that_lets_nobody_in_says_why_in_one_line(
    orch: Orch, own_redis: OwnRedis, part: str, wrong: str, why: str
) -> None:
    code, found = findings(orch, ORCH_REDIS_URL=re.sub(part, wrong, own_redis.url))

    assert (code, found["Redis"]["state"]) == (1, "fail")
    assert why in found["Redis"]["says"]
    assert "\n" not in found["Redis"]["says"]
    assert "secret" not in found["Redis"]["says"]


def test_a_server_that_has_heard_no_worker_is_a_failure_of_the_worker(orch: Orch, home: Path) -> None:
    with serving(home / "web-doctor-deaf.log", ORCH_REDIS_URL="redis://127.0.0.1:1/0") as url:
        code, found = findings(orch, ORCH_URL=url)

    assert code == 1
    assert (found["server"]["state"], found["worker"]["state"]) == ("ok", "fail")


def test_a_misspelt_setting_and_a_readable_key_are_warnings(orch: Orch, tmp_path: Path) -> None:
    (tmp_path / "admin.key").write_text(orch.env["ORCH_API_KEY"])
    (tmp_path / "admin.key").chmod(0o644)

    code, found = findings(orch, ORCH_HOME=str(tmp_path), ORCH_LIMIT="off")

    assert code == 0
    assert (found["settings"]["state"], found["home"]["state"]) == ("warn", "warn")
    assert "ORCH_LIMIT " in found["settings"]["says"]
    assert "chmod 600" in found["home"]["advice"]


def test_servers_that_were_never_made_are_no_failure(orch: Orch, tmp_path: Path) -> None:
    code, found = findings(orch, ORCH_HOME=str(tmp_path), ORCH_DATABASE_URL=None, ORCH_REDIS_URL=None)

    assert code == 0
    assert found["PostgreSQL"]["says"] == found["Redis"]["says"] == "embedded, not made yet"
