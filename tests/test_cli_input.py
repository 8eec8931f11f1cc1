"""`orch` and what nobody can mean: numbers, names, keys and addresses that cannot be sent are exit 2 and a sentence."""

import os
import subprocess
from collections.abc import Sequence

import pytest

from tests.shell import COMMAND, Orch
from tests.stage import ROOT

ID = "00000000-0000-7000-8000-000000000000"
SPAWN = ["agent", "spawn", "x", "--type", ID, "-p", ID]
NOWHERE = "http://127.0.0.1:1"


def deep(levels: int) -> str:
    """A memory that is nested so deep."""
    return f'{{"a": {"[" * levels}1{"]" * levels}}}'


@pytest.fixture
def orch() -> Orch:
    """The command line where no server is: whatever got as far as to send something would be exit 7."""
    return Orch({"ORCH_URL": NOWHERE, "ORCH_API_KEY": "x"})


def is_refused(code: int, err: str, why: str) -> bool:
    """Whether it is a usage error, in one sentence."""
    assert (code, "Traceback" in err, err.count("Error: ")) == (2, False, 1), err
    assert why in err
    assert len(err) < 1000
    return True


@pytest.mark.parametrize(
    ("memory", "why"),
    [
        ('{"a": NaN}', "not JSON"),
        ('{"a": -Infinity}', "not JSON"),
        ('{"a": 1e400}', "not JSON"),
        ("{" * 2000, "not JSON"),
        (f'{{"a": {"9" * 5000}}}', "not JSON"),
        (r'{"a": "\ud800"}', "half a character"),
        (r'{"\udfff": 1}', "half a character"),
        ('{"a": "\udc80"}', "half a character"),
        (deep(20_000), "nested deeper"),
        (deep(970), "nested deeper"),
        (deep(200), "nested deeper"),
        ("[1]", "not a JSON object"),
    ],
)
def test_a_memory_that_cannot_be_sent_is_refused(orch: Orch, memory: str, why: str) -> None:
    result = orch(*SPAWN, "--memory", memory)

    assert is_refused(result.exit_code, result.stderr, why)


@pytest.mark.parametrize(
    "line", [[*SPAWN, "--wait"], ["command", "wait", ID, "-p", ID, "--timeout"], ["run", "-p", ID, "--grace"]]
)
@pytest.mark.parametrize("seconds", ["nan", "-1", "soon", "-inf"])
def test_seconds_are_a_number(orch: Orch, line: list[str], seconds: str) -> None:
    result = orch(*line[:-1], f"{line[-1]}={seconds}", *(["--", "true"] if line[0] == "run" else []))

    assert is_refused(result.exit_code, result.stderr, seconds)


@pytest.mark.parametrize("key", ["ü", "a\nb", "", " a", "a ", "x" * 256, "\x7f", "a\udc80"])
def test_an_idempotency_key_is_one_that_a_header_can_carry(orch: Orch, key: str) -> None:
    result = orch(*SPAWN, "--idempotency-key", key)

    assert is_refused(result.exit_code, result.stderr, "is no key")


@pytest.mark.parametrize(
    "line",
    [
        [b"agent", b"spawn", b"a\x80b", b"--type", ID.encode(), b"-p", ID.encode()],
        [b"agent", b"spawn", b"ab", b"--type", b"\x80", b"-p", ID.encode()],
        [b"agent", b"update", ID.encode(), b"--task", b"\xff", b"-p", ID.encode()],
        [b"agent", b"pause", ID.encode(), b"--reason", b"\xff", b"-p", ID.encode()],
        [b"agent", b"pause", b"--where", b"q=\xff", b"-p", ID.encode()],
        [b"agent", b"ls", b"-q", b"\xff", b"-p", ID.encode()],
        [b"agent", b"ls", b"-p", b"a\x80b"],
        [b"events", b"--after", b"\xff"],
        [b"key", b"create", b"\xff"],
        [b"project", b"create", b"x", b"--owner", b"\xff"],
        [b"run", b"--name", b"\xff", b"-p", ID.encode(), b"--", b"true"],
    ],
)
def test_words_that_are_sent_are_utf8(orch: Orch, line: Sequence[bytes]) -> None:
    result = orch(*map(os.fsdecode, line))

    assert is_refused(result.exit_code, result.stderr, "not text in UTF-8")
    assert result.stdout == ""


def test_so_they_are_in_the_arguments_of_a_process(orch: Orch) -> None:
    done = subprocess.run(
        [*COMMAND, "agent", "ls", "-q", b"\xff", "-p", ID],
        cwd=ROOT, env=os.environ | orch.env, capture_output=True, check=False,
    )  # fmt: skip

    assert is_refused(done.returncode, done.stderr.decode(), "not text in UTF-8")
    assert done.stdout == b""


@pytest.mark.parametrize(
    "url",
    [
        "localhost",
        "ftp://a.example",
        "http://",
        "http://[::1",
        "http://127.0.0.1:abc",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:0",
        "http://ä..b",
        "http://a..b",
        f"http://{'a' * 100}",
        "http://a\x01b",
        "http://127.0.0.1/\udc80",
    ],
)
@pytest.mark.parametrize("line", [["project", "ls"], ["run", "-p", ID, "--", "true"]])
def test_an_address_that_can_be_no_servers_is_refused(orch: Orch, line: list[str], url: str) -> None:
    by_option, by_environment = orch("--url", url, *line), orch(*line, ORCH_URL=url)

    assert is_refused(by_option.exit_code, by_option.stderr, "is no address of a server")
    assert is_refused(by_environment.exit_code, by_environment.stderr, "is no address of a server")


@pytest.mark.parametrize("url", ["http://[::1]:1", "http://ä.example:1", "http://localhost.:1", f"http://{'a' * 63}:1"])
def test_an_address_where_nobody_is_is_none_the_less_an_address(orch: Orch, url: str) -> None:
    assert orch("key", "create", "x", ORCH_URL=url).exit_code == 7
