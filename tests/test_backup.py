"""`orch backup` and `orch restore`: what was answered is in the file, and what is in the file is a system again."""

import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import psutil
import pytest
from alembic import command
from click.testing import Result
from sqlalchemy import make_url, text
from sqlalchemy.exc import ProgrammingError

from orchestrator import bootstrap, embedded, eras, programs, revisions
from orchestrator.archives import Archive
from orchestrator.db import Guard, begin
from orchestrator.settings import settings
from tests.conftest import inside
from tests.databases import TABLES, connected
from tests.shell import COMMAND, Orch
from tests.stage import Api, Project, blocked, drain, eventually, held, settle, sql, violations
from tests.test_leases import leased
from tests.test_up import stack

PASSWORD = "p@ss w'ö\"rd=#%/: "  # noqa: S105  # an awkward one
KEPT = [table for table in TABLES if "UNLOGGED" not in table._prefixes and table is not eras.whereabouts]


def orch(*line: str, **env: str | None) -> Result:
    """One call in this process, with these settings."""
    settings.cache_clear()
    try:
        return Orch({})(*line, **env)
    finally:
        settings.cache_clear()


def backed_up(url: str, file: Path) -> Path:
    """A backup of a database."""
    made = orch("backup", str(file), ORCH_DATABASE_URL=url)
    assert made.exit_code == 0, made.output
    return file


def restored(url: str, file: Path) -> None:
    """The database, made of a backup."""
    made = orch("restore", str(file), ORCH_DATABASE_URL=url)
    assert made.exit_code == 0, made.output


def refused(*line: str, **env: str | None) -> str:
    """The one sentence of a call that fails."""
    result = orch(*line, **env)
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    [said] = result.stderr.splitlines()
    assert said.startswith("orch: ")
    assert said.endswith(".")
    return said.removeprefix("orch: ")


def rows() -> dict[str, set[tuple[Any, ...]]]:
    """What identifies each row of each table that a backup keeps."""
    keys = {table.name: ", ".join(column.name for column in table.primary_key) for table in KEPT}
    return {name: {tuple(row) for row in sql(f"SELECT {key} FROM {name}")} for name, key in keys.items()}


def relations(url: str) -> int:
    """How many tables and indexes of ours are in a database."""
    with connected(url) as db:
        found: int = db.execute(
            text("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        ).scalar_one()
    return found


@pytest.fixture
def own_home() -> Iterator[Path]:
    """A folder of this test's own, outside pytest's, which PostgreSQL's account cannot pass."""
    with TemporaryDirectory(prefix="orch-backup-") as folder:
        yield Path(folder) / "home"


@pytest.fixture
def file(quiet: Project, alone: str, tmp_path: Path) -> Path:
    """A backup with one agent in it, and a command that was queued."""
    quiet.send(quiet.born(name="kept"), "pause")
    return backed_up(alone, tmp_path / "orch.dump")


class Writers:
    """Threads that spawn agents and report usage without a pause, and one that drains."""

    def __init__(self, project: Project) -> None:
        self._project, self._enough = project, Event()
        self.answered: list[str] = []

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """They are inside the block."""
        with ThreadPoolExecutor(4) as threads:
            lives = [threads.submit(life) for life in (self._write, self._write, self._write, self._drain)]
            try:
                yield
            finally:
                self._enough.set()
        for life in lives:
            life.result()

    def _write(self) -> None:
        api = self._project.api
        project = replace(self._project, api=Api(api.client.application.test_client(), api.key))
        while not self._enough.is_set():
            agent_id = project.spawn(wait=False)["agent_id"]
            report = {"entries": [{"report_id": "1", "cost": "0.0000000001", "input_tokens": 3}]}
            if project.api.post(f"{project.agent(agent_id)}/usage", report).status_code == 202:
                self.answered.append(agent_id)

    def _drain(self) -> None:
        while not self._enough.is_set():
            drain()


def test_everything_that_was_answered_before_is_there_though_everybody_went_on(
    quiet: Project, alone: str, empty: str, tmp_path: Path
) -> None:
    writers, file = Writers(quiet), tmp_path / "orch.dump"
    busy, friend = quiet.born(), quiet.api.user()
    once = uuid4().hex
    quiet.api.post(f"{quiet.agent(busy)}/usage", {"entries": [{"report_id": "1", "cost": "1.0000000001"}]})
    leased(quiet, busy)
    settle()
    with held(busy), writers.at_work():
        order = quiet.api.post(f"{quiet.agent(busy)}/pause", {}, Idempotency_Key=once)
        eventually(lambda: len(writers.answered) > 20, 60)
        before, answered = rows(), len(writers.answered)
        made = Orch({"ORCH_DATABASE_URL": alone}).run("backup", str(file))
        eventually(lambda: len(writers.answered) > answered, 60)

    assert made.returncode == 0, made.stderr
    verdict = orch("restore", str(file), "-o", "table", ORCH_DATABASE_URL=empty)
    assert (verdict.exit_code, "I13" in verdict.stdout) == (0, True), verdict.output
    with inside(empty):
        after = rows()
        assert {name: some - after[name] for name, some in before.items()} == {name: set() for name in before}
        assert violations() == {}
        assert quiet.command(order.json["id"])["state"] == "queued"  # type: ignore[index]
        again = quiet.api.post(f"{quiet.agent(busy)}/pause", {}, Idempotency_Key=once)
        assert again.json["id"] == order.json["id"]  # type: ignore[index]
        settle()
        assert quiet.command(order.json["id"])["state"] == "applied"  # type: ignore[index]
        assert quiet.api.get(quiet.agent(busy)).json["cost_incurred"] == "1.0000000001"  # type: ignore[index]
        assert friend.get("me").status_code == 200
        assert quiet.spawn(wait=False)
        settle()
        assert violations() == {}


def test_a_backup_is_private_says_what_it_is_and_leaves_nothing_beside_it(
    quiet: Project, alone: str, tmp_path: Path
) -> None:
    made = orch("backup", str(tmp_path / "b"), "-o", "json", ORCH_DATABASE_URL=alone)

    assert (made.exit_code, made.stderr) == (0, "")
    assert f'"revision": "{revisions.head()}"' in made.stdout
    [file] = tmp_path.iterdir()
    assert (file.name, file.stat().st_mode & 0o777) == ("b", 0o600)
    assert f'"bytes": {file.stat().st_size}' in made.stdout


def test_a_file_that_is_there_is_written_over_only_by_force(quiet: Project, alone: str, tmp_path: Path) -> None:
    file = tmp_path / "b"
    file.write_text("dear")

    said = refused("backup", str(file), ORCH_DATABASE_URL=alone)
    kept = file.read_text()
    forced = orch("backup", str(file), "--force", ORCH_DATABASE_URL=alone)

    assert said == f"{file} is there already; name another file, or write over it with --force."
    assert (kept, forced.exit_code, file.read_bytes()[:5]) == ("dear", 0, b"PGDMP")


def test_one_that_came_meanwhile_is_not_written_over(
    quiet: Project, alone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, run = tmp_path / "b", programs.run
    monkeypatch.setattr("orchestrator.backup.run", lambda *a, **more: (run(*a, **more), file.write_text("dear")))

    said = refused("backup", str(file), ORCH_DATABASE_URL=alone)

    assert "is there already" in said
    assert ([path.name for path in tmp_path.iterdir()], file.read_text()) == (["b"], "dear")


def test_where_no_file_can_be_written_it_says_so(quiet: Project, alone: str, tmp_path: Path) -> None:
    (tmp_path / "b.part").touch()

    assert refused("backup", str(tmp_path), ORCH_DATABASE_URL=alone) == f"{tmp_path} is a folder; name a file in it."
    assert "remove it if none runs" in refused("backup", str(tmp_path / "b"), ORCH_DATABASE_URL=alone)
    nowhere = refused("backup", str(tmp_path / "no" / "b"), ORCH_DATABASE_URL=alone)
    assert nowhere.startswith(f"cannot write {tmp_path / 'no' / 'b.part'}: No such file or directory; name a file")
    assert [path.name for path in tmp_path.iterdir()] == ["b.part"]


def test_a_full_disk_leaves_nothing_behind(
    quiet: Project, alone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    assert "No space left on device" in refused("backup", str(tmp_path / "b"), ORCH_DATABASE_URL=alone)
    assert list(tmp_path.iterdir()) == []


def test_a_pg_dump_that_is_killed_leaves_nothing_behind(quiet: Project, alone: str, tmp_path: Path) -> None:
    line = ["sh", "-c", 'ulimit -f 8; exec "$@"', "sh", *COMMAND, "backup", str(tmp_path / "b")]

    ended = subprocess.run(line, env=os.environ, capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stderr) == (1, "orch: pg_dump ended by SIGXFSZ.\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("given", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_backup_that_is_stopped_leaves_nothing_behind(
    quiet: Project, alone: str, tmp_path: Path, given: signal.Signals, code: int
) -> None:
    with begin(Guard.TOOL) as db:
        db.execute(text("LOCK TABLE agents IN ACCESS EXCLUSIVE MODE"))
        with Orch({"ORCH_DATABASE_URL": alone}).start("backup", str(tmp_path / "b")) as backup:
            eventually(blocked, 30)
            [dump] = _dumps(backup.pid)
            backup.send_signal(given)
            said = backup.communicate(timeout=60)[1]

    assert (backup.returncode, said) == (code, "")
    eventually(lambda: is_gone(dump))
    assert list(tmp_path.iterdir()) == []


def is_gone(process: psutil.Process) -> bool:
    """Whether a process has ended, be it that nobody has asked yet how."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _dumps(pid: int) -> list[psutil.Process]:
    """The pg_dump of a process, once it is one, and more than asked for its version."""
    with suppress(psutil.NoSuchProcess):
        return [
            each
            for each in psutil.Process(pid).children()
            if each.name() == "pg_dump" and (line := each.cmdline()) and "--version" not in line  # none: it has ended
        ]
    return []


@contextmanager
def behind_a_password(home: Path) -> Iterator[str]:
    """A server that asks for one; the URL of its database."""
    with embedded.postgres(home) as url:
        with connected(url) as db:
            spelt = PASSWORD.replace("'", "''").replace(":", r"\:")
            db.execute(text(f"CREATE ROLE orch LOGIN PASSWORD '{spelt}'"))
            db.execute(text("ALTER DATABASE orchestrator OWNER TO orch"))
            db.execute(text("CREATE DATABASE other OWNER orch"))
            (home / "postgres" / "pg_hba.conf").write_text("local all orch scram-sha-256\n")
            db.execute(text("SELECT pg_reload_conf()"))
        host = make_url(url).query["host"]
        yield f"postgresql+psycopg://orch:{quote(PASSWORD, safe='')}@/orchestrator?host={quote(str(host))}"


def test_a_password_of_any_signs_opens_the_database_and_is_in_no_list_of_processes(
    own_home: Path, tmp_path: Path
) -> None:
    own_home.mkdir()
    with behind_a_password(own_home) as url:
        bootstrap.prepare(url, None)
        with Orch({"ORCH_DATABASE_URL": url}).start("backup", str(tmp_path / "b")) as backup, connected(url) as db:
            db.execute(text("BEGIN; LOCK TABLE agents IN ACCESS EXCLUSIVE MODE"))
            [dump] = eventually(lambda: _dumps(backup.pid), 30)
            listed = [word for process in (dump, dump.parent()) if process for word in process.cmdline()]
            db.execute(text("ROLLBACK"))
            said = backup.communicate(timeout=60)[1]
        restored(url.replace("/orchestrator?", "/other?"), tmp_path / "b")
        wrong = refused("restore", str(tmp_path / "b"), ORCH_DATABASE_URL=url.replace("orch:p", "orch:q"))

    assert (backup.returncode, said) == (0, "")
    assert not any(sign in word for word in listed for sign in (PASSWORD, quote(PASSWORD, safe=""), "p@ss"))
    assert "password authentication failed" in wrong


def test_a_server_that_is_away_is_one_sentence(file: Path) -> None:
    away = "postgresql+psycopg://postgres@127.0.0.1:1/x"
    for line in (["backup", f"{file}.2"], ["restore", str(file)]):
        said = refused(*line, ORCH_DATABASE_URL=away)

        assert said.startswith("PostgreSQL cannot be used: ")
        assert said.endswith("start it, or correct ORCH_DATABASE_URL.")


def test_a_database_without_our_tables_is_not_backed_up(empty: str, tmp_path: Path) -> None:
    assert refused("backup", str(tmp_path / "b"), ORCH_DATABASE_URL=empty).startswith("the database is empty")


def test_what_is_no_backup_is_refused(empty: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no dump" * 1000)
    with connected(empty) as db:
        db.execute(text("CREATE TABLE t ()"))
    programs.run(programs.tool("pg_dump"), "--format=custom", f"--file={tmp_path / 'other'}", url=empty)

    missing = refused("restore", str(tmp_path / "no"), ORCH_DATABASE_URL=empty)
    garbage = refused("restore", str(tmp_path / "text"), ORCH_DATABASE_URL=empty)
    other = refused("restore", str(tmp_path / "other"), ORCH_DATABASE_URL=empty)

    written = "name a file that `orch backup` has written."
    assert missing == f"there is no file {tmp_path / 'no'}; name one that `orch backup` has written."
    assert garbage.startswith(f"{tmp_path / 'text'} is no backup that ")
    assert other == f"{tmp_path / 'other'} holds no orchestrator's database; {written}"


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95, 0.99999])
def test_of_a_backup_that_was_cut_off_nothing_is_restored(file: Path, empty: str, share: float) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])

    said = refused("restore", str(file), ORCH_DATABASE_URL=empty)

    assert "nothing was restored: " in said or "is no backup" in said
    assert relations(empty) == 0
    file.write_bytes(whole)
    restored(empty, file)


def test_a_database_that_is_not_empty_is_left_alone(file: Path, alone: str) -> None:
    before = relations(alone)

    said = refused("restore", str(file), ORCH_DATABASE_URL=alone)

    assert said.startswith("the database is not empty (")
    assert "a new ORCH_HOME or a new database" in said
    assert relations(alone) == before


def test_what_an_extension_has_brought_along_is_in_no_ones_way(file: Path, empty: str) -> None:
    with connected(empty) as db:
        if not list(db.execute(text("SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements'"))):
            pytest.skip("this server has no extension with a view")
        db.execute(text("CREATE EXTENSION pg_stat_statements"))

    restored(empty, file)


def test_a_restore_that_is_killed_before_its_end_leaves_nothing_that_looks_ready(
    file: Path, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("orchestrator.restore._complete", killed)

    assert orch("restore", str(file), ORCH_DATABASE_URL=empty).exit_code == 130
    with connected(empty) as db:
        assert revisions.current(db) is None
    with pytest.raises(ProgrammingError, match="already exists"):
        bootstrap.prepare(empty, None)
    assert "is not empty" in refused("restore", str(file), ORCH_DATABASE_URL=empty)


@pytest.mark.parametrize("revision", ["0005", "0012"])
def test_an_older_backup_is_migrated_with_its_sums(
    quiet: Project, alone: str, empty: str, tmp_path: Path, revision: str
) -> None:
    agent = quiet.born(name="old")
    used = [{"report_id": str(n), "output_tokens": 5, "cost": "0.25", "model": "large"} for n in range(3)]
    quiet.api.post(f"{quiet.agent(agent)}/usage", {"entries": used})
    settle()
    sums = quiet.api.get(f"{quiet.path}/usage").json
    with begin(Guard.TOOL) as db:
        config = bootstrap.alembic_config()
        config.attributes["connection"] = db
        command.downgrade(config, revision)

    restored(empty, backed_up(alone, tmp_path / "b"))

    with inside(empty), begin() as db:
        assert revisions.current(db) == revisions.head()
        assert quiet.api.get(quiet.agent(agent)).json["name"] == "old"  # type: ignore[index]
        assert quiet.api.get(f"{quiet.path}/usage").json == sums
    assert [group["cost_incurred"] for group in sums["data"]] == ["0.75"]  # type: ignore[index]


def test_a_newer_backup_is_refused(quiet: Project, alone: str, empty: str, tmp_path: Path) -> None:
    sql("UPDATE alembic_version SET version_num = '9999'")

    said = refused("restore", str(backed_up(alone, tmp_path / "b")), ORCH_DATABASE_URL=empty)

    assert f"is of schema revision 9999, which this code ({revisions.head()}) does not know" in said
    assert relations(empty) == 0


def test_books_that_did_not_balance_are_a_failure(quiet: Project, alone: str, empty: str, tmp_path: Path) -> None:
    quiet.born()
    sql("UPDATE project_counters SET idle = idle + 1")

    result = orch("restore", str(backed_up(alone, tmp_path / "b")), "-o", "json", ORCH_DATABASE_URL=empty)

    assert result.exit_code == 1
    assert "orch: I8b violated: " in result.stderr
    assert '"violations": 1' in result.stdout


def test_what_was_queued_when_it_was_backed_up_is_not_late(
    quiet: Project, alone: str, empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet.spawn(wait=False)
    sql("UPDATE commands SET created_at = created_at - interval '1 hour'")
    file, read = backed_up(alone, tmp_path / "b"), Archive.read

    def an_hour_ago(*given: Any) -> Archive:
        found = read(*given)
        return replace(found, made_at=found.made_at - timedelta(hours=1))

    monkeypatch.setattr(Archive, "read", an_hour_ago)

    restored(empty, file)
    with inside(empty):
        assert violations() == {"I1": 1}
        settle()
        assert violations() == {}


def without_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra `embedded` were not installed."""
    monkeypatch.setattr(programs, "find_spec", lambda _: None)


@pytest.mark.parametrize("line", ["backup", "restore"])
@pytest.mark.parametrize("found", [None, "\0", "#!/bin/sh\necho 'Error: no PostgreSQL'"])
def test_without_postgresqls_programs_it_says_what_to_install(
    file: Path, empty: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, found: str | None
) -> None:
    without_the_wheel(monkeypatch)
    if found is not None:
        _program(tmp_path / "pg_dump", found)
        _program(tmp_path / "pg_restore", found)

    said = refused(line, str(file), ORCH_DATABASE_URL=empty, PATH=str(tmp_path))

    name = {"backup": "pg_dump", "restore": "pg_restore"}[line]
    assert said == f"there is no {name}: install orchestrator[embedded], or PostgreSQL's client programs."


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def test_programs_older_than_the_server_are_not_used(
    file: Path, alone: str, empty: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    restore = programs.tool("pg_restore").path
    without_the_wheel(monkeypatch)
    _program(tmp_path / "pg_dump", "#!/bin/sh\necho 'pg_dump (PostgreSQL) 16.1'")
    older = '#!/bin/sh\n[ "$1" = --version ] && echo "pg_restore (PostgreSQL) 16.1" || exec {} "$@"'
    _program(tmp_path / "pg_restore", older.format(restore))
    path = f"{tmp_path}:/usr/bin:/bin"

    dumped = refused("backup", f"{file}.2", ORCH_DATABASE_URL=alone, PATH=path)
    loaded = refused("restore", str(file), ORCH_DATABASE_URL=empty, PATH=path)

    for said in (dumped, loaded):
        assert "is of PostgreSQL 16, and older than the server: put the pg_" in said
    assert relations(empty) == 0


def test_a_file_that_is_too_new_for_pg_restore_is_one_sentence(
    file: Path, empty: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_the_wheel(monkeypatch)
    complaint = "unsupported version (9.9) in file header"
    version = '[ "$1" = --version ] && echo "pg_restore (PostgreSQL) 99"'
    _program(
        tmp_path / "pg_restore", f"#!/bin/sh\n{version} || {{ echo 'pg_restore: error: {complaint}' >&2; exit 1; }}"
    )

    said = refused("restore", str(file), ORCH_DATABASE_URL=empty, PATH=str(tmp_path))

    assert said == f"{file} is no backup that {tmp_path / 'pg_restore'} can read: {complaint}."


@pytest.mark.parametrize("active", [True, False])
def test_where_every_key_is_lost_a_new_one_is_made_for_the_first_administrator(
    quiet: Project, alone: str, empty: str, tmp_path: Path, active: bool
) -> None:
    quiet.api.user(is_superuser=True)
    sql("UPDATE users SET is_active = :active", active=active)
    file, home = backed_up(alone, tmp_path / "b"), tmp_path / "home"

    result = orch("restore", str(file), "--new-key", ORCH_DATABASE_URL=empty, ORCH_HOME=str(home))

    assert result.exit_code == (0 if active else 1)
    if not active:
        assert "no active superuser" in result.stderr
        assert not home.exists()
        return
    with inside(empty):
        me = Api(quiet.api.client, (home / "admin.key").read_text().strip()).get("me").json
    assert me["user"]["email"] == "admin@localhost.local"  # type: ignore[index]
    assert (home / "admin.key").stat().st_mode & 0o777 == 0o600


def test_a_restore_that_is_stopped_leaves_no_server_behind_and_an_empty_database(
    file: Path, own_home: Path, tmp_path: Path
) -> None:
    real = programs.tool("pg_restore").path
    slow = f"*--version*) echo 'pg_restore (PostgreSQL) 99';; *--use-list*) exec sleep 60;; *) exec {real} \"$@\";;"
    _program(tmp_path / "pg_restore", f'#!/bin/sh\ncase "$*" in {slow} esac')
    own = Orch({"ORCH_HOME": str(own_home)})
    given = {"ORCH_DATABASE_URL": None, "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    with own.start("restore", str(file), **given) as restore:
        [sleep] = eventually(lambda: [c for c in psutil.Process(restore.pid).children() if c.name() == "sleep"], 30)
        server = psutil.Process(int((own_home / "postgres" / "postmaster.pid").read_text().split()[0]))
        restore.terminate()
        said = restore.communicate(timeout=60)[1]

    assert (restore.returncode, said) == (143, "")
    eventually(lambda: is_gone(sleep) and is_gone(server))
    again = own.run("restore", str(file), ORCH_DATABASE_URL=None)
    assert (again.returncode, '"violations": 1' in again.stdout) == (0, False), again.stderr


@pytest.mark.timeout(300)  # two stacks and a restore, on a machine that has much else to do
def test_the_stack_of_a_lost_machine_stands_again_in_another_home(
    own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ORCH_DATABASE_URL", "ORCH_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    file, there = tmp_path / "orch.dump", own_home.with_name("there")
    here, elsewhere = Orch({"ORCH_HOME": str(own_home)}), Orch({"ORCH_HOME": str(there)})

    with stack(own_home) as first:
        agent = first.spawn()
        made, meanwhile = here.run("backup", str(file)), here.run("restore", str(file))
        first.stop()
    away, restored = here.run("backup", f"{file}.2"), elsewhere.run("restore", str(file), "--new-key")

    assert (made.returncode, made.stderr) == (0, "")
    assert "another `orch up` runs" in meanwhile.stderr
    assert away.stderr.startswith(f"orch: no PostgreSQL runs below ORCH_HOME={own_home}: start it with `orch up`")
    assert [done.returncode for done in (meanwhile, away, restored)] == [1, 1, 0], restored.stderr
    with stack(there) as second:
        assert second.api("GET", agent).json()["status"] == "idle"
        assert second.api("POST", f"{agent}/pause").json()["status"] == "paused"
        second.stop()
        assert second.living() == []
