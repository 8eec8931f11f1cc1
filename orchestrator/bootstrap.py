"""From an empty database to one that can serve: schema at head, and a first administrator with a key."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, exc, text
from uuid_utils.compat import uuid7

from orchestrator import eras, keys, sessions
from orchestrator.settings import SettingsError, settings

OLDEST_POSTGRESQL = 17
"""transaction_timeout came with it; without it a frozen worker would hold its agents for good."""

_ONE_AT_A_TIME = text("SELECT pg_advisory_lock(hashtext('orchestrator.bootstrap'))")
_LET_GO = text("SELECT pg_advisory_unlock(hashtext('orchestrator.bootstrap'))")
_ANY_USER = text("SELECT EXISTS (SELECT FROM users)")
_FIRST_USER = text("INSERT INTO users (id, email, is_superuser) VALUES (:id, 'admin@localhost.local', true)")

_OLDEST_ADMINISTRATOR = text("SELECT id FROM users WHERE is_superuser AND is_active ORDER BY created_at LIMIT 1")


def prepare(database_url: str, key_file: Path | None) -> None:
    """Migrate to head; where there is no user yet and a `key_file` is given, make an administrator and write the
    key there, alone in the file, readable by its owner only. Safe to run from several hosts at once.

    Raises SettingsError for a PostgreSQL that cannot be used, or is too old.
    """
    with reached(database_url) as lock:
        lock.execute(_ONE_AT_A_TIME)
        try:
            _migrate(database_url)
            if key_file is not None:
                _first_administrator(database_url, key_file)
        finally:
            lock.execute(_LET_GO)


@contextmanager
def reached(database_url: str) -> Iterator[Connection]:
    """A connection that commits each statement by itself. Raises SettingsError for a PostgreSQL that cannot be used, or
    is too old."""
    engine = create_engine(database_url, isolation_level="AUTOCOMMIT")
    try:
        with _connect(engine) as db:
            _check_version(db)
            yield db
    finally:
        engine.dispose()


@contextmanager
def transaction(database_url: str) -> Iterator[Connection]:
    """One transaction on a connection that nobody else has or gets."""
    engine = create_engine(database_url)
    try:
        with engine.begin() as db:
            yield db
    finally:
        engine.dispose()


def migrate(db: Connection) -> None:
    """To head, inside this transaction."""
    config = alembic_config()
    config.attributes["connection"] = db
    command.upgrade(config, "head")


def alembic_config() -> Config:
    """Alembic's configuration; there is no ini file, the scripts lie beside this module."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _connect(engine: Engine) -> Connection:
    try:
        return engine.connect()
    except exc.OperationalError as error:
        why = str(error.orig).strip().splitlines()[0]
        raise SettingsError(f"PostgreSQL cannot be used: {why}; start it, or correct ORCH_DATABASE_URL") from None


def _check_version(db: Connection) -> None:
    version = db.execute(text("SHOW server_version_num")).scalar_one()
    if int(version) < OLDEST_POSTGRESQL * 10_000:
        raise SettingsError(f"PostgreSQL {OLDEST_POSTGRESQL} or newer is needed; ORCH_DATABASE_URL leads to {version}")


def _migrate(database_url: str) -> None:
    with transaction(database_url) as db:
        migrate(db)
        eras.begin_where_needed(db)


def _first_administrator(database_url: str, key_file: Path) -> None:
    with transaction(database_url) as db:
        if not db.execute(_ANY_USER).scalar_one():
            user_id = uuid7()
            db.execute(_FIRST_USER, {"id": user_id})
            _, key = keys.issue(db, user_id, "first administrator")
            # Written before the commit: a crash between the two leaves a useless file, never a lost key.
            _write_private(key_file, key)


def renew_key(database_url: str, key_file: Path) -> bool:
    """A new key for the first administrator, written like the first one; whether there is an administrator."""
    with transaction(database_url) as db:
        user_id = db.execute(_OLDEST_ADMINISTRATOR).scalar_one_or_none()
        if user_id is not None:
            _write_private(key_file, keys.issue(db, user_id, "made by a restore")[1])
    return user_id is not None


def sign_in_link(database_url: str, console: str) -> str | None:
    """An address that signs the first administrator in to the console, once; None where there is none."""
    with transaction(database_url) as db:
        user_id = db.execute(_OLDEST_ADMINISTRATOR).scalar_one_or_none()
        return user_id and f"{console}/login?t={sessions.link(db, user_id)}"


def _write_private(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(content + "\n")


def main() -> None:
    """`python -m orchestrator.bootstrap`: prepare the database of ORCH_DATABASE_URL."""
    url = settings().database_url
    if url is None:
        raise SettingsError("ORCH_DATABASE_URL is not set")
    prepare(url, settings().home / "admin.key")


if __name__ == "__main__":
    main()
