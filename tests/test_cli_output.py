"""`orch` where its words cannot be written: a full disk, closed streams, an encoding of few characters."""

import json
import sys
from collections.abc import Iterator
from io import BytesIO, TextIOWrapper
from itertools import product

import pytest

from orchestrator.cli import main, render
from tests.shell import Orch, answering

ID = "00000000-0000-7000-8000-000000000000"
NAME = "schön 火 😀"
LOOK = ["agent", "get", ID, "-p", ID]
PAUSE = ["agent", "pause", ID, "-p", ID]
REVOKE = ["key", "revoke", ID]
FULL = ">/dev/full"


@pytest.fixture(scope="module")
def orch() -> Iterator[Orch]:
    """The command line, before a server that answers everything with an agent."""
    body = json.dumps({"id": ID, "name": NAME}).encode()
    with answering(200, {"Content-Type": "application/json"}, body) as url:
        yield Orch({"ORCH_URL": url, "ORCH_API_KEY": "x"})


@pytest.mark.parametrize("output", ["json", "table", "id"])
def test_a_full_disk_is_a_sentence_and_exit_1(orch: Orch, output: str) -> None:
    looked = orch.redirected(FULL, *LOOK, "-o", output)

    assert (looked.returncode, looked.stderr.count(b"\n")) == (1, 1)
    assert looked.stderr.startswith(b"orch: the answer cannot be written to standard output (No space left on device)")


def test_which_says_so_if_the_command_went_through(orch: Orch) -> None:
    changed = orch.redirected(FULL, *PAUSE)

    assert (changed.returncode, changed.stderr.count(b"\n")) == (1, 1)
    assert changed.stderr.startswith(b"orch: the command went through, so do not repeat it, but its answer cannot be")


@pytest.mark.parametrize("line", [["agent", "ls", "--help"], ["--version"], ["doctor"]])
def test_nor_is_anything_else_a_traceback_there(orch: Orch, line: list[str]) -> None:
    done = orch.redirected(FULL, *line)

    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"No space left on device" in done.stderr


@pytest.mark.parametrize(
    ("line", "closed"),
    [
        *product([LOOK, PAUSE, [*LOOK, "-o", "table"], ["--help"]], [">&-", ">&- 2>&- <&-"]),
        *product([PAUSE], ["<&-", "2>&-"]),  # which has no say in how an answer is written
    ],
)
def test_closed_streams_do_no_harm(orch: Orch, line: list[str], closed: str) -> None:
    done = orch.redirected(closed, *line)

    assert (done.returncode, done.stderr) == (0, b"")


def test_what_is_said_to_people_does_not_get_into_the_output(orch: Orch) -> None:
    done = orch.redirected("2>&-", "agent", "ls", "-p", "x")

    assert (done.returncode, done.stdout) == (7, b"")


def test_a_full_standard_error_leaves_the_exit_code_as_it_is(orch: Orch) -> None:
    assert orch.redirected("2>/dev/full", "agent", "ls", "-p", "x").returncode == 7


def test_a_question_that_nobody_can_answer_is_a_usage_error() -> None:
    with answering(200, {}, b'{"count": 2}') as url:
        asked = Orch({"ORCH_URL": url, "ORCH_API_KEY": "x"}).redirected("<&-", *PAUSE[:2], "--where", "all", "-p", ID)

    assert (asked.returncode, b"add --yes" in asked.stderr) == (2, True)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ascii:surrogateescape", "utf-8"])
def test_an_encoding_of_few_characters_loses_none(orch: Orch, encoding: str) -> None:
    as_json = written(orch, encoding, *PAUSE)
    as_table = written(orch, encoding, *PAUSE, "-o", "table")

    assert json.loads(as_json)["name"] == NAME
    assert NAME.encode(encoding.partition(":")[0], errors="backslashreplace") in as_table


def written(orch: Orch, encoding: str, *line: str) -> bytes:
    """What a call that succeeds writes in this process, where standard output is what PYTHONIOENCODING makes of it."""
    codec, _, errors = encoding.partition(":")
    with TextIOWrapper(BytesIO(), codec, errors or "strict") as out, pytest.MonkeyPatch.context() as patch:
        for name, value in orch.env.items():
            patch.setenv(name, value)
        patch.setattr(sys, "stdout", out)
        render.console.cache_clear()  # it has looked at another standard output
        with pytest.raises(SystemExit) as ended:
            main(line, prog_name="orch")
        out.flush()
        render.console.cache_clear()
        assert ended.value.code == 0
        return out.buffer.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_nor_does_that_of_a_process(orch: Orch) -> None:
    done = orch.redirected("", *PAUSE, "-o", "table", PYTHONIOENCODING="ascii")

    assert (done.returncode, NAME.encode("ascii", errors="backslashreplace") in done.stdout) == (0, True)


def test_a_reader_who_has_enough_is_told_nothing(orch: Orch) -> None:
    done = orch.redirected("| true", *PAUSE)

    assert (done.returncode, done.stderr) == (0, b"")
