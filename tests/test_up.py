"""`orch up`: one command, in the foreground, that starts everything, keeps it alive, and leaves nothing behind."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self
from uuid import uuid4

import httpx2
import psutil
import pytest

from orchestrator.sdk.address import needs_certificates
from tests.stage import ROOT, busy, eventually, free_port, has_ipv6

pytestmark = pytest.mark.usefixtures("_own_servers")

ORCH = [sys.executable, "-m", "orchestrator.cli"]
OURS = ("web", "worker", "beat", "flower")
ACCOUNT = "nobody"


@pytest.fixture
def _own_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever servers the session uses, the stack under test starts its own."""
    for name in ("ORCH_DATABASE_URL", "ORCH_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def own_home() -> Iterator[Path]:
    """A folder of this test's own, outside pytest's, which PostgreSQL's account cannot pass."""
    with TemporaryDirectory(prefix="orch-up-") as folder:
        yield Path(folder) / "home"


@dataclass
class Stack:
    """A running `orch up`."""

    process: subprocess.Popen[bytes]
    home: Path
    log: Path
    port: int
    flower_port: int

    @classmethod
    def start(
        cls, home: Path, port: int | None = None, user: str | None = None, flower: bool = False, **environment: str
    ) -> Self:
        """Start one; `said` tells how far it is."""
        port, flower_port = port or free_port(), free_port() if flower else 0
        env = os.environ | {"ORCH_HOME": str(home), "ORCH_PORT": str(port), "ORCH_FLOWER_PORT": str(flower_port)}
        env["TMPDIR"] = str(home.parent)  # those that are killed leave folders behind
        log = home.parent / f"{home.name}-{time.monotonic_ns()}.log"
        switch: dict[str, Any] = {"user": user, "group": "nogroup", "extra_groups": []} if user else {}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*ORCH, "up"], env=env | environment, cwd=ROOT, stdout=output, stderr=output, **switch
            )
        return cls(process, home, log, port, flower_port)

    def said(self) -> str:
        """Everything it has printed."""
        return self.log.read_text()

    def ready(self) -> Self:
        """Wait until it says that it is ready."""
        eventually(lambda: "Ready in" in self.said() or self.process.poll() is not None, 60)
        assert self.process.poll() is None, self.said()
        return self

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> float:
        """Stop it; the seconds it took. It should be ten at most, but a busy machine may need more."""
        began = time.monotonic()
        self.process.send_signal(signum)
        assert self.process.wait(timeout=40) == 0, self.said()
        return time.monotonic() - began

    def hang_up(self) -> None:
        """Close its terminal: all of its foreground hears of that at once, the watchers of the programs, too."""
        foreground = psutil.Process(self.process.pid)
        for process in (*foreground.children(), foreground):
            process.send_signal(signal.SIGHUP)

    def living(self) -> list[psutil.Process]:
        """Every process of this stack, whoever its parent is; watchers come before what they would start again."""
        return [process for process in psutil.process_iter() if knows(process, str(self.home))]

    def pid(self, name: str) -> int:
        """The process of one of its programs."""
        return int(json.loads((self.home / "run" / f"{name}.json").read_text())["program"][0])

    def api(self, method: str, path: str, body: Any = None) -> httpx2.Response:
        """A request of the administrator's that is waited for."""
        key = (self.home / "admin.key").read_text().strip()
        headers = {"Authorization": f"Bearer {key}", "Prefer": "wait=10"}
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}"
        return httpx2.request(method, url, json=body, headers=headers, timeout=30, verify=needs_certificates(url))

    def spawn(self) -> str:
        """The address of a new agent in a new project."""
        kind = self.api("POST", "agent-types", {"name": f"Type {uuid4()}"}).json()["id"]
        project = self.api("POST", "projects", {"name": f"Project {uuid4()}"}).json()["id"]
        born = self.api("POST", f"projects/{project}/agents", {"agent_type_id": kind, "name": "scout"})
        assert born.status_code == 201, born.text
        return f"projects/{project}/agents/{born.json()['id']}"

    def is_ready(self) -> bool:
        """Whether the API says that it can do its work, Redis included."""
        url = f"http://127.0.0.1:{self.port}/readyz"
        try:
            answer = httpx2.get(url, timeout=2, verify=needs_certificates(url))
        except httpx2.TransportError:
            return False
        return answer.status_code == 200 and not answer.json()["degraded"]


def knows(process: psutil.Process, home: str) -> bool:
    """Whether a process belongs to the stack with this home. (Valkey writes its title over its environment.)"""
    try:
        return process.status() != psutil.STATUS_ZOMBIE and (
            process.environ().get("ORCH_HOME") == home
            or any(home in word for word in process.cmdline())
            or process.cwd().startswith(home)
        )
    except psutil.Error:
        return False


@contextmanager
def stack(home: Path, **options: Any) -> Iterator[Stack]:
    """A stack that is ready; whatever is left of it at the end of the block is killed."""
    running = Stack.start(home, **options)
    try:
        yield running.ready()
    finally:
        for process in running.living():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        running.process.wait(timeout=5)


def test_one_command_starts_everything_and_says_where_it_is(own_home: Path) -> None:
    with stack(own_home, flower=True) as running:
        key = own_home / "admin.key"
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert re.fullmatch(r"orch_[0-9a-f]{8}_\S+\n", key.read_text())
        assert f"http://127.0.0.1:{running.port}/api/v1" in running.said()
        assert f"http://127.0.0.1:{running.port}/flower/" in running.said()
        with signed_in(running) as http:
            assert "No agents yet" in http.get("/").text
            assert "orchestrator.drain" in drained_task(running, http)

        agent = running.spawn()

        assert running.stop(signal.SIGINT) < busy(10)
        assert running.living() == []

    with stack(own_home) as again:
        assert again.api("GET", agent).json()["status"] == "idle"
        assert again.api("POST", f"{agent}/pause").json()["status"] == "paused"

        again.hang_up()
        assert again.process.wait(timeout=10) == 0, again.said()
        assert again.living() == []


def drained_task(running: Stack, http: httpx2.Client) -> str:
    """What Flower tells about the task that applied a new agent's spawn; and that it lets nobody interfere."""
    agent = running.spawn()
    project = agent.split("/agents/")[0]
    task_id = running.api("GET", f"{project}/commands?limit=1").json()["data"][0]["task_id"]
    alone = f"http://127.0.0.1:{running.flower_port}/flower"
    assert httpx2.get(f"{alone}/tasks").status_code == 401
    page = eventually(lambda: (found := http.get(f"/flower/task/{task_id}")).status_code == 200 and found)
    assert eventually(lambda: "applied" in http.get(f"/flower/task/{task_id}").text), "no result in Flower"
    assert http.post("/flower/api/worker/shutdown/worker").status_code in {401, 403, 404, 405}
    return str(page.text)


@contextmanager
def signed_in(running: Stack) -> Iterator[httpx2.Client]:
    """The console, for whoever follows the link that was printed."""
    url = f"http://127.0.0.1:{running.port}"
    [token] = re.findall(rf"{url}/login\?t=(\S+)", running.said())
    with httpx2.Client(base_url=url, follow_redirects=True, timeout=30) as http:
        same = {"Sec-Fetch-Site": "same-origin"}
        assert http.post("/login", data={"t": token}, headers=same).url.path == "/"
        yield http


def test_what_dies_is_started_again_and_said_so(own_home: Path) -> None:
    with stack(own_home, flower=True) as running:
        agent = running.spawn()
        for name in (*OURS, "valkey", "postgres"):
            before = running.pid(name)

            os.kill(before, signal.SIGKILL)

            eventually(lambda name=name, before=before: running.pid(name) != before, 5)
            assert f"{name:<8} | ended (signal SIGKILL); starting again in" in running.said()
        for name in ("worker", "postgres"):
            before, watcher = running.pid(name), psutil.Process(running.pid(name)).ppid()

            os.kill(watcher, signal.SIGKILL)

            eventually(lambda name=name: f"The watcher of {name} had ended; both are started" in running.said(), 20)
            eventually(lambda name=name: (own_home / "run" / f"{name}.json").exists(), 20)
            assert running.pid(name) != before
            assert not psutil.pid_exists(before) or psutil.Process(before).status() == psutil.STATUS_ZOMBIE
        eventually(running.is_ready, 20)
        paused = eventually(lambda: (answer := running.api("POST", f"{agent}/pause")).status_code == 200 and answer)
        assert paused.json()["status"] == "paused"
        assert running.stop() < busy(10)
        assert running.living() == []


def test_after_a_kill_the_next_start_recovers(own_home: Path) -> None:
    with stack(own_home) as first:
        agent = first.spawn()
        first.process.kill()

        with stack(own_home, port=first.port) as second:
            assert second.api("POST", f"{agent}/pause").json()["status"] == "paused"
            watchers = psutil.Process(second.process.pid).children()
            for killed in (second.process, *watchers):
                killed.kill()

            with stack(own_home, port=first.port) as third:
                assert third.api("POST", f"{agent}/resume").json()["status"] == "idle"
                third.stop()
                assert third.living() == []


def test_without_its_parent_each_program_ends_by_itself_however_its_siblings_fare(own_home: Path) -> None:
    with stack(own_home) as killed:
        beat = killed.pid("beat")
        frozen = psutil.Process(beat).parent()
        assert frozen is not None
        frozen.suspend()

        killed.process.kill()

        eventually(lambda: {process.pid for process in killed.living()} == {beat, frozen.pid}, 8)
        frozen.resume()
        eventually(lambda: not killed.living(), 15)


def test_two_stacks_run_side_by_side_but_not_in_one_home(own_home: Path) -> None:
    with stack(own_home) as one, stack(own_home.with_name("other")) as two:
        agent = one.spawn()

        assert two.api("GET", agent).status_code == 404
        third = Stack.start(own_home)
        assert third.process.wait(timeout=20) == 1
        assert (
            sentence(third)
            == f"orch up: another `orch up` runs in ORCH_HOME={own_home}; stop it or choose another home"
        )


def test_a_taken_port_is_one_sentence(own_home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        refused = Stack.start(own_home, port=port)

        assert refused.process.wait(timeout=20) == 1
        assert sentence(refused) == f"orch up: port {port} is taken; set ORCH_PORT to a free one"
        assert refused.living() == []


def test_a_port_that_is_given_to_both_api_and_flower_is_one_sentence(own_home: Path) -> None:
    port = free_port()

    refused = Stack.start(own_home, port, ORCH_FLOWER_PORT=str(port))

    assert refused.process.wait(timeout=20) == 1
    assert sentence(refused) == f"orch up: port {port} is taken; set ORCH_FLOWER_PORT to a free one"
    assert refused.living() == []


def test_a_home_that_cannot_be_used_is_one_sentence(own_home: Path) -> None:
    own_home.write_text("not a folder")

    refused = Stack.start(own_home)

    assert refused.process.wait(timeout=20) == 1
    assert sentence(refused) == f"orch up: cannot use ORCH_HOME={own_home}: File exists; set it to a folder of yours"


def sentence(refused: Stack) -> str:
    """The one line a stack that would not start has printed."""
    (line,) = refused.said().splitlines()
    return line


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else; everyone else tests it anyway")
def test_it_works_for_somebody_who_is_not_root(own_home: Path) -> None:
    own_home.parent.chmod(0o777)
    if not can_run(ACCOUNT):
        pytest.skip(f"the account {ACCOUNT!r} cannot read this installation")

    with stack(own_home, user=ACCOUNT, HOME=str(own_home.parent)) as running:
        assert running.api("GET", running.spawn()).json()["status"] == "idle"
        assert {process.username() for process in running.living()} == {ACCOUNT}
        assert running.stop() < busy(10)


def can_run(account: str) -> bool:
    """Whether this account can reach our interpreter and our code."""
    try:
        tried = subprocess.run([*ORCH, "--help"], user=account, cwd=ROOT, check=False, capture_output=True)
    except PermissionError:
        return False
    return not tried.returncode


def test_under_nohup_the_end_of_a_terminal_stops_nothing(tmp_path: Path) -> None:
    begin = "import signal, sys\nfrom pathlib import Path\nfrom orchestrator.runner import Keeper\n"
    code = f"{begin}Keeper(Path(sys.argv[1]))\nprint(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"
    for start, ignored in ([], "False\n"), (["nohup"], "True\n"):
        said = subprocess.run(
            [*start, sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True, capture_output=True, text=True
        )
        assert said.stdout == ignored


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
def test_it_listens_on_an_address_of_ipv6_and_says_it_in_brackets(own_home: Path) -> None:
    stack = Stack.start(own_home, ORCH_HOST="::1")
    try:
        stack.ready()
        url = f"http://[::1]:{stack.port}"
        second = Stack.start(own_home.parent / "second", stack.port, ORCH_HOST="::1")

        assert httpx2.get(f"{url}/readyz").is_success
        assert f"API      {url}/api/v1, described at {url}/docs" in stack.said()
        assert re.search(rf"^Console  {re.escape(url)}/", stack.said(), re.MULTILINE)
        assert second.process.wait(timeout=40) == 1
        assert second.said() == f"orch up: port {stack.port} is taken; set ORCH_PORT to a free one\n"
    finally:
        stack.stop()
