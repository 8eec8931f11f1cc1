"""Errors: every one in the contract's envelope, in the order of checks, and nothing of our inside in any."""

import io
import json
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from flask_openapi3 import OpenAPI

from orchestrator import fleet, limits
from orchestrator.db import Guard, begin
from orchestrator.errors import Problem
from orchestrator.settings import settings
from tests.stage import Api, Project, busy, fields, is_problem, sql
from tests.surface import EXAMPLES, PLAIN, Scene, routes, send
from tests.wire import Gunicorn

BARE = {"type", "title", "status", "instance", "request_id", "success", "errors"}


def kinds(kind: type[Problem] = Problem) -> list[type[Problem]]:
    """A class of problems and all below it."""
    return [kind, *(found for below in kind.__subclasses__() for found in kinds(below))]


CODES = {
    ("unauthenticated", 401), ("insufficient_permissions", 403), ("not_found", 404), ("method_not_allowed", 405),
    ("invalid_transition", 409), ("conflict", 409), ("precondition_failed", 412), ("payload_too_large", 413),
    ("unsupported_media_type", 415), ("validation_error", 422), ("malformed_json", 400),
    ("idempotency_key_reused", 422), ("rate_limited", 429), ("unavailable", 503), ("internal", 500),
}  # fmt: skip
"""The contract's, without those of holds, leases and budgets."""


def test_every_problem_has_a_code_and_status_of_the_contract() -> None:
    assert {(kind.code, kind.status) for kind in kinds()} >= CODES


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The project's metrics cannot be read, for a reason nobody foresaw."""

    def fail(*_: Any) -> None:
        raise RuntimeError("SELECT secret FROM vault; host=db.internal")

    monkeypatch.setattr(fleet, "metrics", fail)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What this process logs, as it would be written."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    root = logging.getLogger()
    handler.setFormatter(next(h.formatter for h in root.handlers if "Processor" in type(h.formatter).__name__))
    root.addHandler(handler)
    yield written
    root.removeHandler(handler)


@pytest.mark.usefixtures("broken")
def test_a_surprise_is_a_500_that_tells_nothing_but_its_request_id(scene: Scene) -> None:
    answer = scene.owner.get(f"{scene.project.path}/agents/metrics")

    assert is_problem(answer, 500, "internal"), answer.data
    assert set(answer.json or {}) == BARE
    assert not any(word in answer.text for word in ("secret", "vault", "db.internal", "RuntimeError", "Traceback"))


@pytest.mark.usefixtures("broken")
def test_a_surprise_is_logged_with_its_trace_under_the_request_id(scene: Scene, log: io.StringIO) -> None:
    answer = scene.owner.get(f"{scene.project.path}/agents/metrics")

    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    (line,) = [line for line in lines if line["level"] == "error"]
    assert line["request_id"] == (answer.json or {})["request_id"]
    assert "RuntimeError: SELECT secret" in line["exception"]
    assert 'raise RuntimeError("SELECT secret' in line["exception"]


@pytest.mark.usefixtures("broken")
def test_after_a_surprise_the_next_request_is_served(scene: Scene) -> None:
    scene.owner.get(f"{scene.project.path}/agents/metrics")

    assert scene.owner.get(scene.project.path).status_code == 200


def test_a_refusal_is_a_warning_without_a_trace_or_a_secret(scene: Scene, log: io.StringIO) -> None:
    email = scene.owner.get("me").json["user"]["email"]  # type: ignore[index]

    scene.owner.post(f"{scene.project.path}/agents", {"name": email})

    (line,) = [json.loads(line) for line in log.getvalue().splitlines()]
    assert (line["level"], line["event"], line["status"]) == ("warning", "refused", 422)
    assert not any(word in log.getvalue() for word in (email, scene.owner.key or "", "exception"))


@pytest.mark.parametrize("path", ["/nothing", "/api/v1/nothing", "/docs/nothing"])
def test_an_unknown_address_is_a_404_that_repeats_it(scene: Scene, path: str) -> None:
    answer = scene.owner.get(path)

    assert is_problem(answer, 404, "not_found")
    assert (answer.json or {})["instance"] == path
    assert path in (answer.json or {})["detail"]


@pytest.mark.parametrize("path", PLAIN)
def test_a_wrong_method_is_a_405_outside_the_api_too(scene: Scene, path: str) -> None:
    answer = scene.owner.post(path, {})

    assert is_problem(answer, 405, "method_not_allowed")
    assert "GET" in answer.headers["Allow"].split(", ")
    assert answer.headers["Allow"] == scene.owner("OPTIONS", path).headers["Allow"]


def test_a_problem_says_what_was_wrong_and_with_what(scene: Scene) -> None:
    unknown = str(uuid4())

    answer = scene.owner.get(f"{scene.project.path}/agents/{unknown}")

    assert answer.json == {
        "type": "about:blank",
        "title": "Not found",
        "status": 404,
        "detail": f"there is no agent {unknown} in this project",
        "instance": f"/api/v1/{scene.project.path}/agents/{unknown}",
        "request_id": answer.headers["X-Request-ID"],
        "success": False,
        "errors": [{"code": "not_found", "message": f"there is no agent {unknown} in this project", "field": None}],
    }


def test_a_problem_is_never_cached_and_never_sniffed(scene: Scene) -> None:
    answer = scene.owner.get("projects/none")

    assert (answer.headers["Cache-Control"], answer.headers["X-Content-Type-Options"]) == ("no-store", "nosniff")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _away(port: int) -> str:
    return f"postgresql+psycopg://nobody:hunter2@127.0.0.1:{port}/gone"


@pytest.fixture(scope="module")
def nowhere() -> int:
    """A port that nobody listens on."""
    return _free_port()


@pytest.fixture(scope="module")
def orphan(world: None, home: Path, nowhere: int) -> Iterator[Gunicorn]:
    """A web server whose database refuses connections."""
    with Gunicorn.start(home / "orphan.log", ORCH_DATABASE_URL=_away(nowhere)) as running:
        yield running


@pytest.mark.parametrize("operation", EXAMPLES)
def test_with_the_database_away_every_route_is_a_503(
    app: OpenAPI, scene: Scene, orphan: Gunicorn, operation: str
) -> None:
    method, rule = routes(app)[operation]
    began = time.monotonic()

    reply = orphan.ask(f"{method} {scene.address(rule)} HTTP/1.1".encode(), scene.owner.key)

    assert is_problem(reply, 503, "unavailable"), reply.data
    assert int(reply.headers["Retry-After"]) >= 1
    assert time.monotonic() - began < busy(3)
    assert not any(word in reply.data for word in (b"127.0.0.1", b"nobody", b"hunter2", b"psycopg"))


def test_with_the_database_away_readiness_says_so_and_health_does_not(orphan: Gunicorn) -> None:
    ready, healthy, documented, measured = (
        orphan.ask(b"GET /%b HTTP/1.1" % path, None) for path in (b"readyz", b"healthz", b"openapi.json", b"metrics")
    )

    assert (ready.status_code, ready.json["status"]) == (503, "not ready")
    assert "database" in ready.json["reason"]
    assert {healthy.status_code, documented.status_code, measured.status_code} == {200}
    assert "hunter2" not in orphan.log.read_text()


def test_a_database_that_does_not_answer_is_a_503_in_time(orphan: Gunicorn, nowhere: int, scene: Scene) -> None:
    with socket.create_server(("127.0.0.1", nowhere)) as mute:
        began = time.monotonic()

        reply = orphan.ask(b"GET /api/v1/me HTTP/1.1", scene.owner.key)

        assert time.monotonic() - began < busy(3)
        assert is_problem(reply, 503, "unavailable"), reply.data
        mute.settimeout(0)
        mute.accept()[0].close()  # it was asked


def test_a_lock_that_is_held_is_a_503_in_time(scene: Scene) -> None:
    name = f"Held {uuid4().hex}"
    project = scene.owner.post("projects", {"name": name}).json["id"]  # type: ignore[index]

    with begin(Guard.TOOL) as db:
        db.exec_driver_sql("SELECT 1 FROM projects WHERE name = %s FOR UPDATE", (name,))
        began = time.monotonic()
        answer = scene.owner.patch(f"projects/{project}", {"name": "other"})

    assert time.monotonic() - began < busy(3)
    assert is_problem(answer, 503, "unavailable"), answer.data
    assert answer.headers["Retry-After"]


@pytest.fixture
def one_a_minute(monkeypatch: pytest.MonkeyPatch, scene: Scene) -> Iterator[Api]:
    """A new caller, who may change one agent a minute."""
    monkeypatch.setenv("ORCH_LIMITS", '{"*": "off", "anonymous": "off", "update": "1/minute"}')
    _read_settings()
    yield scene.admin.user()
    monkeypatch.undo()
    _read_settings()


def _read_settings() -> None:
    settings.cache_clear()
    limits.limits.cache_clear()


def test_the_key_comes_before_the_limit(scene: Scene, one_a_minute: Api) -> None:
    path = scene.project.agent(scene.ids["agent_id"])
    one_a_minute.patch(path, {})

    spent = one_a_minute.patch(path, {})
    keyless = Api(one_a_minute.client, None).patch(path, {})

    assert is_problem(spent, 429, "rate_limited")
    assert is_problem(keyless, 401, "unauthenticated")


def test_the_limit_comes_before_everything_in_the_request(scene: Scene, one_a_minute: Api) -> None:
    path = f"/api/v1/{scene.project.agent('none')}"
    one_a_minute.patch(path, {})

    answer = send(one_a_minute, "PATCH", path, b"{", "text/plain")

    assert is_problem(answer, 429, "rate_limited")
    assert int(answer.headers["Retry-After"]) >= 1


BAD = {"no such field": 1}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"a": 1}', b"x" * (2 << 20)], ids=["none", "torn", "list", "odd", "huge"]
)
@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
def test_the_project_comes_before_the_body(app: OpenAPI, scene: Scene, body: bytes, kind: str) -> None:
    stranger = scene.admin.user()

    for operation in [name for name in EXAMPLES if EXAMPLES[name].body and "<project_id>" in routes(app)[name][1]]:
        method, rule = routes(app)[operation]
        answer = send(stranger, method, scene.address(rule), body, kind)

        assert is_problem(answer, 404, "not_found"), (operation, answer.data)
        assert scene.project.id in (answer.json or {})["detail"]


def test_the_project_comes_before_the_idempotency_key(scene: Scene) -> None:
    used = {"Idempotency_Key": uuid4().hex}
    other = Project.make(scene.admin)
    first = scene.owner.post(f"{scene.project.path}/issues", {"title": "a"}, **used)

    hidden = scene.owner.post(f"{other.path}/issues", {"title": "a"}, **used)

    assert (first.status_code, is_problem(hidden, 404, "not_found")) == (201, True)


def test_a_used_idempotency_key_comes_before_the_body(scene: Scene) -> None:
    used = {"Idempotency_Key": uuid4().hex}
    agents = f"{scene.project.path}/agents"
    first = scene.owner.post(agents, {"agent_type_id": scene.project.type_id, "name": "a"}, **used)

    bad = scene.owner.post(agents, BAD, **used)
    fresh = scene.owner.post(agents, BAD, Idempotency_Key=uuid4().hex)

    assert first.status_code == 202
    assert is_problem(bad, 422, "idempotency_key_reused"), bad.data
    assert is_problem(fresh, 422, "validation_error"), fresh.data


def test_the_body_comes_before_the_agent(scene: Scene) -> None:
    path = scene.project.agent(uuid4())

    entries = {"entries": [{"report_id": "1"}]}

    for method, where, fine in (("PATCH", path, {}), ("POST", f"{path}/pause", {}), ("POST", f"{path}/usage", entries)):
        bad, good = scene.owner(method, where, fine | BAD), scene.owner(method, where, fine)

        assert is_problem(bad, 422, "validation_error"), bad.data
        assert is_problem(good, 404, "not_found"), good.data


def test_a_refused_request_leaves_its_idempotency_key_free(scene: Scene) -> None:
    key = {"Idempotency_Key": uuid4().hex}
    agents, good = f"{scene.project.path}/agents", {"agent_type_id": scene.project.type_id, "name": "a"}

    refused = [
        scene.owner.post(agents, BAD, **key),
        scene.owner.post(agents, good | {"agent_type_id": str(uuid4())}, **key),
        scene.owner.patch(scene.project.agent(uuid4()), {"name": "a"}, **key),
    ]

    assert [answer.status_code for answer in refused] == [422, 404, 404]
    assert scene.owner.post(agents, good, **key).status_code == 202


def test_a_conflict_names_the_field(scene: Scene) -> None:
    slug = uuid4().hex
    scene.owner.post("projects", {"name": "a", "slug": slug})

    answer = scene.owner.post("projects", {"name": "b", "slug": slug})

    assert is_problem(answer, 409, "conflict")
    assert fields(answer) == ["slug"]
    assert sql("SELECT name FROM projects WHERE slug = :slug", slug=slug) == [("a",)]
