"""`orch` before a server that is no orchestrator: whatever that answers, it is exit 7 and a sentence."""

import json

import pytest

from orchestrator.cli.documents import LIST, MARKS
from tests.shell import Orch, answering
from tests.stage import ROOT

ID = "00000000-0000-7000-8000-000000000000"

OK = {"200", "201", "202"}

LINES = [
    ["project", "ls"],
    ["project", "create", "x"],
    ["agent", "ls", "-p", "x"],
    ["agent", "get", ID, "-p", ID],
    ["agent", "explain", ID, "-p", ID, "-o", "table"],
    ["agent", "history", ID, "-p", ID],
    ["agent", "pause", ID, "-p", ID],
    ["agent", "pause", "--where", "all", "--yes", "-p", ID],
    ["agent", "terminate", ID, "-p", ID],
    ["agent", "watch", ID, "-p", ID],
    ["command", "wait", ID, "-p", ID],
    ["events", "-f"],
    ["key", "create", "x"],
    ["key", "revoke", ID],
    ["run", "-p", ID, "--name", "x", "--", "true"],
    ["top"],
    ["verify"],
]

JSON = {"Content-Type": "application/json"}
ANSWERS = {
    "nothing": (200, JSON, b""),
    "empty": (200, JSON, b"{}"),
    "list": (200, JSON, b"[]"),
    "other": (200, JSON, b'{"status": "ok", "message": "hello"}'),
    "numbers": (200, JSON, b'{"data": [1, 2]}'),
    "no pages": (200, JSON, b'{"data": [1, 2], "pagination": []}'),
    "deep": (200, JSON, b"[" * 100_000),
    "packed": (200, JSON | {"Content-Encoding": "gzip"}, b"no gzip at all"),
    "redirect": (302, {"Location": "http://127.0.0.1:1/"}, b""),
    "problem": (404, JSON, b'{"status": ["x"], "request_id": 1}'),
    "page": (404, {"Content-Type": "text/html", "Retry-After": "\xb2"}, b"<html>"),
}


def test_every_document_of_ours_has_a_mark() -> None:
    described = json.loads((ROOT / "docs" / "openapi.json").read_text())
    schemas = described["components"]["schemas"]
    for path, methods in described["paths"].items():
        if path.endswith(("/lease", "/beat")):
            continue  # the SDK's business
        answers = [
            answer for method in methods.values() if "responses" in method for answer in method["responses"].items()
        ]
        for schema in [answer["content"]["application/json"]["schema"] for code, answer in answers if code in OK]:
            required = set(schemas[schema["$ref"].rpartition("/")[2]]["required"])
            assert required & (MARKS | LIST), f"{path} answers with {required}: name one of them in MARKS"


@pytest.mark.parametrize("answer", ANSWERS)
def test_whatever_another_server_answers_it_is_no_orchestrator(answer: str) -> None:
    with answering(*ANSWERS[answer]) as url:
        orch = Orch({"ORCH_URL": url, "ORCH_API_KEY": "x"})
        for line in LINES:
            result = orch(*line)

            assert (result.exit_code, result.stdout) == (7, ""), (line, result.output)
            assert url in result.stderr
            assert "no orchestrator" in result.stderr or "no events come from" in result.stderr


def test_an_answer_that_is_ours_by_half_is_not_followed() -> None:
    with answering(202, JSON, b'{"id": 1}') as url:
        result = Orch({"ORCH_URL": url, "ORCH_API_KEY": "x"})("agent", "pause", ID, "-p", ID)

    assert (result.exit_code, "no orchestrator" in result.stderr) == (7, True)


def test_nothing_is_no_answer_where_a_document_is_needed() -> None:
    with answering(204, {}, b"") as url:
        orch = Orch({"ORCH_URL": url, "ORCH_API_KEY": "x"})
        for line in LINES:
            revokes = line[:2] == ["key", "revoke"]
            assert orch(*line).exit_code == (0 if revokes else 7), line


@pytest.mark.parametrize("answer", ANSWERS)
def test_the_doctor_says_so_too(answer: str) -> None:
    with answering(*ANSWERS[answer]) as url:
        result = Orch({"ORCH_API_KEY": "x"})("doctor", "-o", "table", "--url", url)

    assert result.exit_code == 1
    assert f"what answers at {url} is no orchestrator" in result.stdout
