"""Everything on one machine, in the foreground: servers, migration, web, worker, beat and Flower."""

import errno
import fcntl
import os
import secrets
import shutil
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from threading import Event, Thread

from orchestrator.bootstrap import prepare, sign_in_link
from orchestrator.embedded import Postgres, Valkey
from orchestrator.limits import limits
from orchestrator.notes import clear_away
from orchestrator.pulse import LOOKS, Watch
from orchestrator.runner import Keeper, Program
from orchestrator.settings import Settings, SettingsError, address

READY_SECONDS = 60

WEB = ["gunicorn", "-c", "python:web.serve", "web:create_app()", "--graceful-timeout", "2"]  # all must end within 10 s

WATCHERS = {"beat", "flower"}
"""What only looks on, or does what others do as well: it stands back, at the start above all, when all want the CPU."""


@dataclass(frozen=True)
class Servers:
    """Where PostgreSQL and Redis are; those without a URL in the settings are ours to run."""

    postgres: Postgres | None
    valkey: Valkey | None
    database_url: str
    redis_url: str

    @classmethod
    def of(cls, settings: Settings) -> "Servers":
        """Those the settings name, embedded ones for the rest."""
        postgres = None if settings.database_url else Postgres(settings.home)
        valkey = None if settings.redis_url else Valkey(settings.home)
        database_url = settings.database_url or (postgres.url if postgres else "")
        return cls(postgres, valkey, database_url, settings.redis_url or (valkey.url if valkey else ""))

    @property
    def ours(self) -> list[Postgres | Valkey]:
        """The embedded ones."""
        return [server for server in (self.postgres, self.valkey) if server is not None]


def up(settings: Settings) -> int:
    """Run everything until SIGINT or SIGTERM; the exit code. One sentence and 1 where it cannot start."""
    began = time.monotonic()
    try:
        limits()  # wrong ones end it here, not every web process it would start
        with alone(settings.home):
            return _run(settings, began)
    except SettingsError as error:
        print(f"orch up: {error}", file=sys.stderr)
        return 1


def _run(settings: Settings, began: float) -> int:
    notes = settings.home / "run"
    notes.mkdir(exist_ok=True)
    clear_away(notes.glob("*.json"))
    _check_ports(settings)
    keeper = Keeper(notes)
    try:
        servers = Servers.of(settings)
        keeper.begin([server.prepare() for server in servers.ours])
        _wait_for(keeper, servers, settings.home / "admin.key")
        watch = Watch.over(_pulse(settings), servers.redis_url, settings.deaf_after)
        keeper.begin(_programs(settings, servers))
        Thread(target=_announce, args=(settings, servers, began), daemon=True).start()
        Thread(target=_listen, args=(settings, watch, keeper), daemon=True).start()
        keeper.loop()
    except SettingsError:
        keeper.stop()
        raise
    return 0


def _wait_for(keeper: Keeper, servers: Servers, key_file: Path) -> None:
    """Until the servers answer and the database is at its newest, going on to print what they say."""
    done = Event()
    failure = [SettingsError("the database could not be made ready; see the lines above")]

    def work() -> None:
        try:
            for server in servers.ours:
                server.wait()
            prepare(servers.database_url, key_file)
            failure.clear()
        except SettingsError as error:
            failure[:] = [error]
        finally:
            done.set()

    Thread(target=work, daemon=True).start()
    while not done.is_set() and not keeper.stopping:
        keeper.pump()
    if failure and not keeper.stopping:
        raise failure[0]


def _programs(settings: Settings, servers: Servers) -> list[Program]:
    metrics = _emptied(settings.home / "run" / "metrics")
    env = {
        "ORCH_DATABASE_URL": servers.database_url,
        "ORCH_REDIS_URL": servers.redis_url,
        "PROMETHEUS_MULTIPROC_DIR": str(metrics),
        "ORCH_PULSE": str(_pulse(settings)),
        **_flower_access(settings),
        "PYTHONWARNINGS": "ignore:You're running the worker with superuser",  # it was the operator's choice
    }
    wanted = {"web": WEB, "worker": _worker(settings), "beat": _beat(settings), "flower": _flower(settings)}
    commands = {name: [sys.executable, "-m", *command] for name, command in wanted.items() if command}
    for name in WATCHERS & commands.keys():
        commands[name] = ["nice", "-n", "10", *commands[name]]
    return [Program(name, command, env=env) for name, command in commands.items()]


def _worker(settings: Settings) -> list[str]:
    command = ["celery", "-q", "-A", "workers.app", "worker", "-n", "worker@%h", "-Q", "commands,upkeep", "-E"]
    return [*command, "-c", str(settings.worker_processes), "--without-gossip", "--without-mingle", "-l", "warning"]


def _beat(settings: Settings) -> list[str]:
    run = settings.home / "run"
    command = ["celery", "-q", "-A", "workers.app", "beat", "-l", "warning"]
    return [*command, "--schedule", str(run / "beat"), "--pidfile", ""]


def _flower(settings: Settings) -> list[str]:
    if not settings.flower_port:
        return []
    command = ["celery", "-q", "-A", "workers.app", "flower", "--address=127.0.0.1", f"--port={settings.flower_port}"]
    return [*command, "--url_prefix=flower", "--read_only=True", "--logging=error"]


def _flower_access(settings: Settings) -> dict[str, str]:
    """A password that only Flower and the console know: whoever may see the tasks comes by the console."""
    if not settings.flower_port:
        return {}
    secret = f"orch:{secrets.token_urlsafe(24)}"
    return {"FLOWER_BASIC_AUTH": secret, "ORCH_FLOWER_URL": f"http://{secret}@127.0.0.1:{settings.flower_port}"}


def _listen(settings: Settings, watch: Watch, keeper: Keeper) -> None:
    """Start the worker again once it is deaf. Its tasks are in PostgreSQL: nothing is lost by it."""
    pause = settings.deaf_after / LOOKS
    note, known = settings.home / "run" / "worker.json", ""
    while not keeper.stopping:
        time.sleep(pause)
        with suppress(OSError):  # of a closed terminal, or of the notes: there will be another look
            if (worker := note.read_text()) != known:  # another one than before, which may have ended by itself
                known = worker
                watch.begin_anew()
            if watch.deaf():
                keeper.start_again("worker")
                watch.begin_anew()
                print(f"The worker had taken nothing for {settings.deaf_after:g} s; it is started again", flush=True)


def _pulse(settings: Settings) -> Path:
    return settings.home / "run" / "pulse"


def _announce(settings: Settings, servers: Servers, began: float) -> None:
    """Say where everything is once it works."""
    url = f"http://{address(settings.host, settings.port)}"
    while not _is_ready(url):
        if time.monotonic() - began > READY_SECONDS:
            print(f"Not ready after {READY_SECONDS} s; {url}/readyz says why", flush=True)
            return
        time.sleep(0.05)
    print(f"Console  {sign_in_link(servers.database_url, url) or url}")
    print(f"API      {url}/api/v1, described at {url}/docs")
    if settings.flower_port:
        print(f"Flower   {url}/flower/, behind the console's sign-in")
    print(f"Key      {settings.home / 'admin.key'}")
    print(f"Ready in {time.monotonic() - began:.1f} s", flush=True)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=1) as answer:  # noqa: S310  # our own address
            return bool(answer.status == HTTPStatus.OK)
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Be the only one who runs a stack in this folder; raises SettingsError where that is impossible."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = (home / "lock").open("a")
    except OSError as error:
        raise SettingsError(f"cannot use ORCH_HOME={home}: {error.strerror}; set it to a folder of yours") from None
    with lock:
        try:
            # A POSIX lock: not inherited by our children, so it is free the moment this process is gone.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SettingsError(f"another `orch up` runs in ORCH_HOME={home}; stop it or choose another home") from None
        yield


def _check_ports(settings: Settings) -> None:
    with _listening("ORCH_PORT", settings.host, settings.port):  # still, when Flower's is tried: it may be the same
        if settings.flower_port:
            with _listening("ORCH_FLOWER_PORT", "127.0.0.1", settings.flower_port):
                pass


def _listening(name: str, host: str, port: int) -> socket.socket:
    """A socket that has this port; raises SettingsError where it cannot be had."""
    probe = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind((host, port))
        probe.listen()
    except OSError as error:
        probe.close()
        if error.errno == errno.EADDRINUSE:
            raise SettingsError(f"port {port} is taken; set {name} to a free one") from None
        where = address(host, port)
        raise SettingsError(f"cannot listen on {where}: {error.strerror}; set ORCH_HOST or {name}") from None
    return probe


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.chmod(folder, 0o700)  # noqa: PTH101
    return folder
