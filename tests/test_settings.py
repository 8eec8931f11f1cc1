"""The environment: what each setting takes, and the one sentence that anything else is answered with."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.settings import Settings, SettingsError, settings
from tests.stage import ROOT, free_port

Read = Callable[..., Settings]

POSTGRESQL = "postgresql+psycopg://user:secret@host:5432/name"
REDIS = "redis://:secret@host:6379/0"

NUMBERS = {
    "port": (1, 65535),
    "flower_port": (0, 65535),
    "web_processes": (1, 64),
    "web_threads": (1, 256),
    "web_hosts": (1, 1_000),
    "worker_processes": (1, 64),
    "waiters": (0, 10_000),
    "streams": (0, 10_000),
    "trusted_proxies": (0, 10),
}

IN_WORDS = {"home": "the XDG data folder", "limits": "the contract's", "database_url": "embedded", "pulse": "none"}
IN_WORDS["flower_url"] = IN_WORDS["pulse"]
IN_WORDS["redis_url"] = IN_WORDS["database_url"]
"""Defaults that README.md describes, where a value would tell nobody anything."""

FOR_OUR_TESTS = {"testing", "failpoints"}
"""What nobody who runs the system sets."""


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Read:
    """Reads the settings from an environment with these alone: `read(port="80")`; the session keeps its own."""
    for name in [name for name in os.environ if name.startswith("ORCH_")]:
        monkeypatch.delenv(name)

    def anew(**given: str) -> Settings:
        for name, value in given.items():
            monkeypatch.setenv(f"ORCH_{name.upper()}", value)
        found: Settings = settings.__wrapped__()
        return found

    return anew


def refusal(read: Read, **given: str) -> str:
    """What a process that would start with these says instead; it is never more than a line."""
    with pytest.raises(SettingsError) as refused:
        read(**given)
    [line] = str(refused.value).splitlines()
    return line


def end(*command: str, **environment: str) -> tuple[int, str, str]:
    """The exit code of a process with these in its environment, and what it has printed."""
    env = os.environ | environment
    done = subprocess.run(
        [sys.executable, *command], env=env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=30
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_may_be_the_least_and_the_most_and_nothing_beyond(read: Read, name: str) -> None:
    least, most = NUMBERS[name]
    sentence = f"ORCH_{name.upper()} must be a whole number from {least} to {most}, not "

    assert [getattr(read(**{name: str(value)}), name) for value in (least, most)] == [least, most]
    for wrong in (str(least - 1), str(most + 1), "1.5", "many", " ", "9" * 5000):
        assert refusal(read, **{name: wrong}) == f"{sentence}{wrong!r}"


def test_every_whole_number_is_among_them() -> None:
    assert {name for name, field in Settings.model_fields.items() if field.annotation is int} == set(NUMBERS)


@pytest.mark.parametrize("wrong", ["-0.1", "30.1", "nan", "inf", "soon"])
def test_the_default_wait_is_a_number_of_seconds(read: Read, wrong: str) -> None:
    assert read(default_wait="2.5").default_wait == 2.5
    assert refusal(read, default_wait=wrong) == f"ORCH_DEFAULT_WAIT must be a number from 0 to 30, not {wrong!r}"


@pytest.mark.parametrize("wrong", ["2.9", "3601", "soon"])
def test_a_worker_is_deaf_after_a_number_of_seconds(read: Read, wrong: str) -> None:
    assert read(deaf_after="3.5").deaf_after == 3.5
    assert refusal(read, deaf_after=wrong) == f"ORCH_DEAF_AFTER must be a number from 3 to 3600, not {wrong!r}"


@pytest.mark.parametrize("wrong", ["many", "[]", "3", "null", '{"get": 3, "list": null}', '{"get": "1/minute"', "off"])
def test_limits_are_an_object_of_words(read: Read, wrong: str) -> None:
    assert read(limits='{"get": "1/minute", "*": "off"}').limits == {"get": "1/minute", "*": "off"}
    sentence = 'ORCH_LIMITS must be a JSON object such as {"spawn": "20/minute"}'
    assert refusal(read, limits=wrong) == f"{sentence}, not {wrong!r}"


@pytest.mark.parametrize("wrong", ["flower:5555", "ftp://flower", "http://flower/path", "http://a@b@c", "http://"])
def test_flower_is_found_at_an_address_without_a_path(read: Read, wrong: str) -> None:
    assert read(flower_url="http://orch:secret@127.0.0.1:5555").flower_url == "http://orch:secret@127.0.0.1:5555"
    assert refusal(read, flower_url=wrong) == (
        "ORCH_FLOWER_URL must be like http://user:password@127.0.0.1:5555, without a path"
    )


@pytest.mark.parametrize("wrong", ["loud", "INFO", "info\n"])
def test_a_log_level_is_one_of_four_words(read: Read, wrong: str) -> None:
    assert read(log_level="warning").log_level == "warning"
    sentence = "ORCH_LOG_LEVEL must be debug, info, warning or error"
    assert refusal(read, log_level=wrong) == f"{sentence}, not {wrong!r}"


def test_a_home_is_one_place_wherever_its_programs_run(read: Read) -> None:
    assert read(home="here/orch").home == Path.cwd() / "here" / "orch"
    assert read(home="/there/orch").home == Path("/there/orch")


def test_a_host_has_no_space(read: Read) -> None:
    assert read(host="::1").host == read(host="[::1]").host == "::1"
    assert refusal(read, host="here or there") == "ORCH_HOST must be an address of this machine, not 'here or there'"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (POSTGRESQL.replace("+psycopg", ""), "must begin with postgresql+psycopg://"),
        (POSTGRESQL.replace("postgresql+psycopg", "postgres"), "must begin with postgresql+psycopg://"),
        (POSTGRESQL.replace("psycopg", "asyncpg"), "must begin with postgresql+psycopg://"),
        ("secret", "must begin with postgresql+psycopg://"),
        (
            POSTGRESQL.replace("5432", "abc"),
            "cannot be read; write postgresql+psycopg://user:password@host:5432/database",
        ),
        (
            POSTGRESQL.replace("host", "[::1"),
            "cannot be read; write postgresql+psycopg://user:password@host:5432/database",
        ),
        (f"{POSTGRESQL}?foo=bar", "has an option that there is not: foo; leave it out, or correct its name"),
        (
            f"{POSTGRESQL}?sslmode=prefer&connect_timeout=abc",
            "has a connect_timeout that is no whole number of seconds; write connect_timeout=10",
        ),
        (
            f"{POSTGRESQL}?port=abc",
            "cannot be read; write postgresql+psycopg://user:password@host:5432/database",
        ),
    ],
)
def test_an_address_of_postgresql_is_sqlalchemys_and_never_shown(read: Read, wrong: str, sentence: str) -> None:
    assert refusal(read, database_url=wrong) == f"ORCH_DATABASE_URL {sentence}"


@pytest.mark.parametrize(
    "wrong",
    [
        *("redis://", "redis:///0", "redis://:secret@:6379/0", "redis://:sec#ret@host/0", "redis://:6#ret@host/0"),
        *(REDIS.replace("6379", port) for port in ("abc", "0", "65536")),
        *(REDIS.replace("host", host) for host in ("[::1", "a:b:c")),
        *(REDIS.removesuffix("0") + number for number in ("abc", "-1", "1/2", "1.0", "²")),
    ],
)
def test_an_address_of_redis_that_cannot_be_read_is_never_shown(read: Read, wrong: str) -> None:
    write = "cannot be read; write redis://:password@host:6379/0, with %23 for a # in the password"
    assert refusal(read, redis_url=wrong) == f"ORCH_REDIS_URL {write}"


@pytest.mark.parametrize("scheme", ["redis+socket", "unix", "http", "valkey", "REDIS"])
def test_an_address_of_redis_is_one_that_the_door_and_celery_both_understand(read: Read, scheme: str) -> None:
    wrong = REDIS.replace("redis", scheme)
    assert refusal(read, redis_url=wrong) == "ORCH_REDIS_URL must begin with redis://, or with rediss:// for TLS"


@pytest.mark.parametrize(
    "wrong",
    [
        *(f"{REDIS}?{option}" for option in ("db=3", "socket_timeout=60", "nonsense=1", "ssl_cert_reqs=none")),
        *(f"rediss://host?{option}" for option in ("db=3", "ssl_cert_reqs=perhaps", "ssl_ca_certs=", "&")),
    ],
)
def test_options_in_an_address_of_redis_are_those_of_tls(read: Read, wrong: str) -> None:
    sentence = refusal(read, redis_url=wrong)
    assert sentence.startswith("ORCH_REDIS_URL can have no options but these, with rediss://: ssl_cert_reqs (")
    assert "secret" not in sentence


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", POSTGRESQL),
        ("database_url", "postgresql+psycopg://postgres@/orch?host=/run/postgresql"),
        ("database_url", f"{POSTGRESQL}?sslmode=prefer&connect_timeout=5&options=-c%20jit%3Doff"),
        ("database_url", f"{POSTGRESQL.replace('host:5432', '')}?host=one:5432&host=two:5432"),
        ("redis_url", REDIS),
        ("redis_url", "redis://localhost"),
        ("redis_url", "redis://user:s%23cret@[::1]:6379/15"),
        ("redis_url", "rediss://host/0?ssl_cert_reqs=none"),
        ("redis_url", "rediss://host/0?ssl_ca_certs=/etc/ca.pem&ssl_certfile=/etc/us.pem&ssl_keyfile=/etc/us.key"),
    ],
)
def test_an_address_that_works_is_kept_as_it_is(read: Read, name: str, value: str) -> None:
    assert getattr(read(**{name: value}), name) == value


def test_a_password_is_not_shown_with_the_settings(read: Read) -> None:
    assert "secret" not in repr(read(database_url=POSTGRESQL, redis_url=REDIS))


def test_each_wrong_value_has_its_sentence(read: Read) -> None:
    with pytest.raises(SettingsError) as refused:
        read(port="many", limits='{"get": 1, "list": 2}', redis_url="host")

    told = [line.partition(" ")[0] for line in str(refused.value).splitlines()]
    assert told == ["ORCH_PORT", "ORCH_LIMITS", "ORCH_REDIS_URL"]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_an_empty_value_is_none_at_all(read: Read, name: str) -> None:
    assert read(**{name: ""}) == read()


def test_what_was_read_cannot_be_changed(read: Read) -> None:
    found = read()

    with pytest.raises(ValidationError, match="frozen"):
        found.port = 80  # type: ignore[misc]
    assert found.port == 8080


def test_the_readme_lists_every_setting_with_its_default(read: Read) -> None:
    defaults: dict[str, Any] = read().model_dump()
    rows = re.findall(r"^\| (`ORCH_[^|]+) \| ([^|]+) \| [^|]+ \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    listed = {
        name: default
        for names, told in rows
        for name, default in zip(re.findall(r"ORCH_(\w+)", names), told.split(", "), strict=False)
    }

    assert listed == {name.upper(): IN_WORDS.get(name, f"{value:g}" if isinstance(value, float) else str(value))
                      for name, value in defaults.items() if name not in FOR_OUR_TESTS}  # fmt: skip


@pytest.mark.parametrize("command", [("-m", "orchestrator.bootstrap"), ("-m", "celery", "-A", "workers.app", "worker")])
def test_a_process_ends_with_the_sentences_and_nothing_else(command: tuple[str, ...]) -> None:
    code, out, err = end(*command, ORCH_PORT="many", ORCH_DATABASE_URL="postgres://user:secret@host/name")

    assert (code, out) == (1, "")
    assert err.splitlines() == [
        "ORCH_PORT must be a whole number from 1 to 65535, not 'many'",
        "ORCH_DATABASE_URL must begin with postgresql+psycopg://",
    ]


GUNICORN = ("gunicorn", "-c", "python:web.serve", "web:create_app()", "--bind", "127.0.0.1:0", "--log-level=critical")
WORKER = ("celery", "-q", "-A", "workers.app", "worker", "-Q", "upkeep")
BEAT = ("celery", "-q", "-A", "workers.app", "beat")


def test_a_wrong_value_is_one_sentence_of_the_web_server() -> None:
    ended, out, err = end("-W", "ignore", "-m", *GUNICORN, ORCH_WEB_THREADS="many")

    assert (ended, out, err) == (1, "", "ORCH_WEB_THREADS must be a whole number from 1 to 256, not 'many'\n")


@pytest.mark.parametrize("command", [GUNICORN, WORKER, BEAT, ("orchestrator.cli", "up")], ids=lambda words: words[-1])
def test_outside_of_a_test_no_program_starts_that_could_be_made_to_fail(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    ended, out, err = end("-W", "ignore", "-m", *command, ORCH_FAILPOINTS=str(tmp_path), ORCH_HOME=str(tmp_path))

    assert (ended, out, err) == (1, "", "ORCH_FAILPOINTS is for tests alone; leave it unset\n")


@pytest.mark.parametrize(
    ("command", "setting", "code"), [(GUNICORN, "ORCH_REDIS_URL", 3), (WORKER, "ORCH_DATABASE_URL", 1)]
)
def test_without_an_address_a_program_ends_instead_of_failing_at_everything_it_is_asked(
    command: tuple[str, ...], setting: str, code: int
) -> None:
    ended, out, err = end("-W", "ignore", "-m", *command, **{setting: ""})

    assert (ended, out) == (code, "")
    assert err == f"{setting} is not set; `orch up` sets it for its own processes\n"


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("ORCH_LIMITS", '{"nap": "off"}', "orch up: ORCH_LIMITS: there is no action 'nap'; there are spawn, "),
        ("ORCH_HOST", "203.0.113.1", "orch up: cannot listen on 203.0.113.1:"),
        ("ORCH_DATABASE_URL", POSTGRESQL.replace("host:5432", "127.0.0.1:1"), "orch up: PostgreSQL cannot be used: "),
        ("ORCH_DATABASE_URL", f"{POSTGRESQL}?foo=bar", "ORCH_DATABASE_URL has an option that there is not: foo; "),
        ("ORCH_DATABASE_URL", f"{POSTGRESQL}?sslmode=foo", "orch up: PostgreSQL cannot be used: "),
    ],
)
def test_what_is_wrong_only_here_is_one_sentence_of_orch_up(
    tmp_path: Path, setting: str, value: str, sentence: str
) -> None:
    ports = {"ORCH_PORT": str(free_port()), "ORCH_FLOWER_PORT": "0", "ORCH_HOME": str(tmp_path)}

    code, out, err = end("-m", "orchestrator.cli", "up", **ports, **{setting: value})

    [line] = (out + err).splitlines()
    assert (code, line[: len(sentence)]) == (1, sentence)
    assert setting in line
    assert "secret" not in line
    assert "secret" not in line
