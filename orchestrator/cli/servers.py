"""PostgreSQL and Redis as this machine reaches them, without the API in between."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from redis import AuthenticationError, Redis, RedisError
from sqlalchemy import Connection, create_engine, exc, text

from orchestrator.bootstrap import OLDEST_POSTGRESQL
from orchestrator.cli.finding import Finding, fail, ok, warn
from orchestrator.revisions import current, head
from orchestrator.settings import Settings

SECONDS = 3
"""To connect."""

NOTABLE_SECONDS, TOO_MANY_SECONDS = 2, 300
"""Between two clocks: worth a warning; so many that usage reported as of now is refused."""

_ASK = text("""
    SELECT current_setting('server_version_num')::int AS number, split_part(current_setting('server_version'), ' ', 1)
        AS version, clock_timestamp() AS now,
        ARRAY(SELECT name FROM pg_settings
            WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'off' ORDER BY name) AS lax
""")

_UP = "`orch up` starts it."


def postgres(here: Settings) -> Iterator[Finding]:
    """Whether it can be reached, is new enough, at the head of the migrations, and of one mind about the time."""
    url = here.database_url or _embedded_database(here)
    if url is None:
        yield ok("PostgreSQL", "embedded, not made yet")
        return
    try:
        engine = create_engine(url, connect_args={"connect_timeout": SECONDS})
        with engine.connect() as db:
            yield from _examine(db)
        engine.dispose()
    except exc.SQLAlchemyError as error:
        why = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        if here.database_url:
            yield fail("PostgreSQL", f"cannot be used: {why}", "Start it, or correct ORCH_DATABASE_URL.")
        else:
            yield warn("PostgreSQL", "embedded, not running", _UP)


def redis(here: Settings) -> Iterator[Finding]:
    """Whether it can be reached, keeps its data, and refuses rather than drops when it is full."""
    url = here.redis_url or _embedded_redis(here)
    if url is None:
        yield ok("Redis", "embedded, not made yet")
        return
    try:
        client: Any = Redis.from_url(url, socket_connect_timeout=SECONDS, socket_timeout=SECONDS, retry=None)
        info = client.info()
        yield ok("Redis", f"{info.get('server_name', 'redis')} {info.get('valkey_version', info['redis_version'])}")
        yield _eviction(info)
        yield _persistence(info, client)
    except (RedisError, ValueError) as error:
        if here.redis_url:
            why = "it wants another password" if isinstance(error, AuthenticationError) else error
            yield fail("Redis", f"cannot be used: {why}", "Start it, or correct ORCH_REDIS_URL.")
        else:
            yield warn("Redis", "embedded, not running", _UP)


def _examine(db: Connection) -> Iterator[Finding]:
    asked = datetime.now(UTC)
    row = db.execute(_ASK).one()
    answered = datetime.now(UTC)
    if row.number < OLDEST_POSTGRESQL * 10_000:
        yield fail("PostgreSQL", f"{row.version} is too old", f"Use PostgreSQL {OLDEST_POSTGRESQL} or newer.")
        return
    yield ok("PostgreSQL", row.version)
    yield _durability(row.lax)
    yield _migration(current(db), head())
    yield _clock((row.now - asked - (answered - asked) / 2).total_seconds())


def _durability(off: list[str]) -> Finding:
    if not off:
        return ok("PostgreSQL disk", "a commit is on disk")
    advice = f"ALTER SYSTEM SET {off[0]} = on: else what was accepted can be lost when its machine crashes."
    return warn("PostgreSQL disk", f"{' and '.join(off)} is off", advice)


def _migration(found: str | None, wanted: str | None) -> Finding:
    if found == wanted:
        return ok("migration", f"at head ({found})")
    says = f"the database is at {found}, this code needs {wanted}" if found else "the database is empty"
    return fail("migration", says, "Migrate it: `python -m orchestrator.bootstrap`.")


def _clock(ahead: float) -> Finding:
    says = f"the database's is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} ours"
    if abs(ahead) > TOO_MANY_SECONDS:
        return fail("clock", says, "Let both machines keep time by NTP: usage reported as of now may be refused.")
    if abs(ahead) > NOTABLE_SECONDS:
        return warn("clock", says, "Let both machines keep time by NTP.")
    return ok("clock", says)


def _eviction(info: dict[str, Any]) -> Finding:
    policy, most = info["maxmemory_policy"], info["maxmemory"]
    if policy == "noeviction":
        return ok("Redis memory", "noeviction")
    says, advice = f"maxmemory-policy is {policy}", "CONFIG SET maxmemory-policy noeviction: a full broker must refuse."
    return fail("Redis memory", says, advice) if most else warn("Redis memory", f"{says}, without a maximum", advice)


def _persistence(info: dict[str, Any], client: Any) -> Finding:
    if info["aof_enabled"]:
        return ok("Redis disk", "append-only file")
    try:
        snapshots = client.config_get("save").get("save")
    except RedisError:  # managed servers do not show their configuration
        return warn("Redis disk", "does not say whether it keeps its data", "See its provider's pages.")
    if snapshots:
        return ok("Redis disk", "snapshots")
    return warn("Redis disk", "nothing is kept", "CONFIG SET appendonly yes: else a restart begins all limits anew.")


def _embedded_database(here: Settings) -> str | None:
    if not (here.home / "postgres" / "PG_VERSION").exists():
        return None
    from orchestrator.embedded import Postgres  # noqa: PLC0415  # needs the wheels of the embedded servers

    return Postgres(here.home).url


def _embedded_redis(here: Settings) -> str | None:
    try:
        lines = (here.home / "valkey" / "valkey.conf").read_text().splitlines()
    except OSError:
        return None
    found = dict(line.split(maxsplit=1) for line in lines if " " in line)
    return f"redis://:{found.get('requirepass', '')}@127.0.0.1:{found.get('port')}/0"
