"""docker-compose.yml without a Docker engine: each service's own command and environment, as processes."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from orchestrator.settings import Settings
from tests.redis_server import OwnRedis
from tests.stage import ROOT, eventually, free_port

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
BINARIES = Path(sys.executable).parent


class Place:
    """Where a container would put things, translated to this machine: servers, ports, folders, host name."""

    def __init__(self, database_url: str, redis_url: str, folder: Path) -> None:
        self._urls = {"ORCH_DATABASE_URL": database_url, "ORCH_REDIS_URL": redis_url}
        self.ports = {"8080": free_port(), "5555": free_port()}
        self.folder = folder

    def text(self, value: str) -> str:
        """A word of the file as it reads here."""
        value = re.sub(r"\$\{\w+:-(.*?)\}(?=$|:)", r"\1", value).replace("$$", "$")
        value = value.replace("//flower:", "//127.0.0.1:")
        for inside, here in self.ports.items():
            value = re.sub(rf"(0\.0\.0\.0|127\.0\.0\.1):{inside}", f"127.0.0.1:{here}", value)
            value = value.replace(f"--port={inside}", f"--port={here}")
        return value.replace("0.0.0.0", "127.0.0.1").replace("/tmp", str(self.folder))  # noqa: S104, S108

    def environment(self, service: str) -> dict[str, str]:
        """What the file gives the service and nothing of ours but the way to the binaries."""
        given = {name: self.text(str(value)) for name, value in SERVICES[service]["environment"].items()}
        mine = {"PATH": f"{BINARIES}:{os.environ['PATH']}", "ORCH_HOME": str(self.folder), "PYTHONPATH": str(ROOT)}
        return mine | given | self._urls

    def command(self, service: str) -> list[str]:
        """The service's command."""
        return [self.text(word) for word in SERVICES[service]["command"]]

    def is_healthy(self, service: str) -> bool:
        """Whether the service's own health check passes."""
        kind, *words = [self.text(word) for word in SERVICES[service]["healthcheck"]["test"]]
        command = words if kind == "CMD" else ["sh", "-c", words[0]]
        return not subprocess.run(command, env=self.environment(service), check=False, capture_output=True).returncode

    @contextmanager
    def runs(self, service: str) -> Iterator[None]:
        """The service as a process, for the length of the block."""
        with (self.folder / f"{service}.log").open("wb") as log:
            process = subprocess.Popen(
                self.command(service), env=self.environment(service), cwd=self.folder, stdout=log, stderr=log
            )
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=15)


@pytest.fixture
def place(empty: str, own_redis: OwnRedis, tmp_path: Path) -> Place:
    """A place with an empty database."""
    return Place(empty, own_redis.url, tmp_path)


def test_every_service_of_the_file_serves_an_agent_through_its_life(place: Place) -> None:
    subprocess.run(place.command("migrate"), env=place.environment("migrate"), cwd=place.folder, check=True)
    key = (place.folder / "admin.key").read_text().strip()

    with ExitStack() as running:
        for service in ("web", "worker", "beat", "flower"):
            running.enter_context(place.runs(service))
        for service in ("web", "worker", "beat", "flower"):
            eventually(lambda service=service: place.is_healthy(service), 45)
        statuses = live(f"http://127.0.0.1:{place.ports['8080']}/api/v1", key)
        assert "orchestrator.drain" in shown_by_flower(f"http://127.0.0.1:{place.ports['8080']}", key)

    assert statuses == ["idle", "working", "paused", "idle", "terminated"]


def shown_by_flower(url: str, key: str) -> str:
    """Its list of tasks, through the console."""
    with httpx2.Client(base_url=url, follow_redirects=True) as http:
        assert http.get("/flower/tasks").url.path == "/login"
        http.post("/login", data={"key": key}, headers={"Sec-Fetch-Site": "same-origin"})
        return str(http.get("/flower/tasks/datatable?draw=1&start=0&length=50&search[value]=&order[0][column]=0"
                            "&order[0][dir]=asc&columns[0][data]=name").text)  # fmt: skip


def live(url: str, key: str) -> list[str]:
    """The statuses an agent goes through."""
    headers = {"Authorization": f"Bearer {key}", "Prefer": "wait=10"}
    with httpx2.Client(headers=headers, timeout=30) as http:
        kind = http.post(f"{url}/agent-types", json={"name": "Scout"}).json()["id"]
        agents = f"{url}/projects/{http.post(f'{url}/projects', json={'name': 'Demo'}).json()['id']}/agents"
        born = http.post(agents, json={"agent_type_id": kind, "name": "scout"}).json()
        agent = f"{agents}/{born['id']}"
        seen = [born["status"], http.patch(agent, json={"status": "working"}).json()["status"]]
        seen += [http.post(f"{agent}/{verb}").json()["status"] for verb in ("pause", "resume")]
        assert http.delete(agent).json()["success"]
        return [*seen, http.get(agent).json()["status"]]


def test_the_web_server_has_as_many_processes_and_threads_as_the_settings_say(place: Place) -> None:
    command, environment = place.command("web"), place.environment("web")

    told = subprocess.run(
        [*command, "--print-config"], env=environment, cwd=place.folder, check=True, capture_output=True, text=True
    ).stdout

    has = {name: int(re.search(rf"^{name} +=? *(\d+)$", told, re.MULTILINE)[1]) for name in ("workers", "threads")}  # type: ignore[index]
    assert has["workers"] == int(environment["ORCH_WEB_PROCESSES"]) > 1
    assert has["threads"] == int(environment.get("ORCH_WEB_THREADS", Settings.model_fields["web_threads"].default))


def test_nothing_but_the_web_server_is_published() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"web"}


def test_nothing_runs_as_root() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()

    assert re.search(r"^USER orch$", dockerfile, re.MULTILINE)
    for name, service in SERVICES.items():
        if name not in OURS:
            assert not service["user"].startswith("0"), name


def test_every_service_is_watched_and_every_password_comes_from_outside() -> None:
    for name, service in SERVICES.items():
        assert "healthcheck" in service, name
    for found in re.findall(r"PASSWORD\S*|://orch:(\S+?)@", (ROOT / "docker-compose.yml").read_text()):
        assert not found or found.startswith("${POSTGRES_PASSWORD:?"), found


def test_a_worker_that_is_deaf_ends_and_is_started_again() -> None:
    worker = SERVICES["worker"]

    assert worker["command"][:4] == ["python", "-m", "orchestrator.pulse", "celery"]
    assert worker["restart"] == "unless-stopped", "an engine starts again what has ended, not what is unhealthy"
    assert "ORCH_PULSE" in worker["environment"]


def test_the_image_has_what_every_command_needs() -> None:
    copied = set(
        shlex.split(" ".join(re.findall(r"^COPY (?!--)(.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)))
    )

    assert {"requirements.txt", "pyproject.toml", "celeryconfig.py", "orchestrator", "workers", "web"} <= copied
