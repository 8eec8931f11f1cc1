"""Real servers, real workers: PostgreSQL and Valkey from wheels (or from ORCH_DATABASE_URL and ORCH_REDIS_URL), Celery
as a process. Only the clock and the bell ever have stand-ins."""

import gc
import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest
from flask_openapi3 import OpenAPI
from sqlalchemy import make_url, text

from orchestrator import keys, limits
from orchestrator.bootstrap import prepare
from orchestrator.sdk import Orchestrator, ProjectClient
from orchestrator.settings import settings
from tests.databases import Database, Spares, connected
from tests.faults import Failpoints
from tests.redis_server import OwnRedis
from tests.stage import Api, Project, Worker
from tests.surface import Scene
from tests.wire import Gunicorn
from workers.app import app as celery
from workers.lookout import lookout
from workers.low_water import low_water

LONGEST = """
    test_up test_lease_races test_backup test_console_browser test_pulse test_careful test_demo test_cli_output
    test_failpoints test_streams test_races test_sdk_adapters test_cli test_chaos_checks test_following test_compose
    test_claims test_sdk_running test_clocks test_disk_full
""".split()  # noqa: SIM905  # a list of quotes would hide the order
"""Files that take long, by the time they take, the longest first."""

CACHES = (settings, limits.limits, limits._shares, limits._script, low_water, lookout)


def pytest_configure() -> None:
    """Be interruptible, and let what we start be: a shell that runs us in the background has SIGINT ignored, nohup has
    SIGHUP."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    gc.set_threshold(50_000)  # next to nothing of what is collected is garbage


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest first, or one process would be left alone with them at the end."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


def pytest_collection_finish() -> None:
    """What is loaded by now stays: to look through it for garbage again and again would take a fifth of the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """A folder for what the session's servers keep; not pytest's own, which it closes to PostgreSQL's account."""
    with TemporaryDirectory(prefix="orch-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def servers(home: Path) -> Iterator[tuple[str, str]]:
    """The URLs of a PostgreSQL database and a Redis for this session."""
    with ExitStack() as stack:
        database_url = os.environ.get("ORCH_DATABASE_URL") or stack.enter_context(_postgres(home))
        given = os.environ.get("ORCH_REDIS_URL")
        yield database_url, _own_number(given) if given else stack.enter_context(_valkey(home))


@pytest.fixture(scope="session")
def template(servers: tuple[str, str], home: Path) -> Iterator[tuple[str, str]]:
    """The name of a migrated database with one administrator, to be copied, and the administrator's key."""
    name = f"orch_template_{uuid4().hex[:8]}"
    key_file = home / "template.key"
    with Database(servers[0], name) as url:
        prepare(url, key_file)
        yield name, key_file.read_text().strip()


@pytest.fixture(scope="session", autouse=True)
def world(servers: tuple[str, str], template: tuple[str, str], home: Path) -> Iterator[None]:
    """The environment every process of this session sees: one database, one Redis, no limits."""
    with (
        Database(servers[0], f"orch_test_{uuid4().hex[:8]}", template[0]) as url,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("ORCH_DATABASE_URL", url)
        patch.setenv("ORCH_REDIS_URL", servers[1])
        patch.setenv("ORCH_HOME", str(home))
        patch.setenv("ORCH_LIMITS", '{"*": "off", "anonymous": "off"}')
        patch.setenv("ORCH_WAITERS", "200")
        _forget()
        assert celery.conf.broker_url == settings().redis_url  # read once, and not while a test has another Redis
        yield
        _forget()


@pytest.fixture(scope="session")
def spares(servers: tuple[str, str], template: tuple[str, str]) -> Iterator[Spares]:
    """Databases that tests may have to themselves."""
    with Spares(servers[0], template[0]) as spares:
        yield spares


@pytest.fixture
def failpoints(tmp_path: Path) -> Failpoints:
    """Points at which processes can be made to fail that are started with its environment."""
    return Failpoints(tmp_path / "failpoints")


@pytest.fixture
def alone(spares: Spares) -> Iterator[str]:
    """A database of this test's own, that no worker drains but those the test starts; its URL."""
    with spares.lent() as url, inside(url):
        yield url


@pytest.fixture(scope="module")
def apart(servers: tuple[str, str], template: tuple[str, str], world: None) -> Iterator[str]:
    """A database of this module's own, that nobody drains; its URL. Not for modules that use `worker`."""
    with Database(servers[0], f"orch_apart_{uuid4().hex[:8]}", template[0]) as url, inside(url):
        yield url


@pytest.fixture(scope="module")
def scene(app: OpenAPI, template: tuple[str, str], apart: str) -> Scene:
    """One of each thing there is, in the module's own database."""
    return Scene.set(Api(app.test_client(), template[1]))


@pytest.fixture
def own_redis(world: None, tmp_path: Path) -> Iterator[OwnRedis]:
    """A Redis of this test's own: for this process's door, and for all processes the test starts."""
    with OwnRedis.start(tmp_path) as server, server.ours():
        yield server


@pytest.fixture(scope="module")
def redis_apart(world: None, home: Path) -> Iterator[OwnRedis]:
    """A Redis of this module's own, as `own_redis` is a test's: whoever stops it lets it go on."""
    with OwnRedis.start(home / f"redis-{uuid4().hex[:8]}") as server, server.ours():
        yield server


@pytest.fixture
def empty(servers: tuple[str, str]) -> Iterator[str]:
    """A database without tables; its URL."""
    with Database(servers[0], f"orch_empty_{uuid4().hex[:8]}") as url:
        yield url


@pytest.fixture(scope="module")
def web(apart: str, home: Path) -> Iterator[Gunicorn]:
    """A web server as production runs it, on the module's own database."""
    with Gunicorn.start(home / "web.log") as running:
        yield running


@pytest.fixture(scope="session")
def server(world: None, home: Path) -> Iterator[str]:
    """The address of the session's web server, as production runs it."""
    with Gunicorn.start(home / "server.log") as running:
        yield f"http://127.0.0.1:{running.port}"


@pytest.fixture(scope="session")
def worker(world: None, home: Path) -> Iterator[Worker]:
    """The session's Celery worker: a process with two children."""
    with Worker.start(home / "worker.log") as running:
        yield running


@pytest.fixture(scope="session")
def app(world: None) -> OpenAPI:
    """The Flask application, in this process."""
    from web import create_app  # noqa: PLC0415  # after the world is set

    return create_app()


@pytest.fixture
def admin(app: OpenAPI, template: tuple[str, str]) -> Api:
    """The API as the administrator sees it."""
    return Api(app.test_client(), template[1])


@pytest.fixture
def project(admin: Api, worker: Worker) -> Project:
    """A new project with an agent type, whose commands the session's worker applies."""
    return Project.make(admin)


@pytest.fixture
def orch(server: str, template: tuple[str, str]) -> Iterator[Orchestrator]:
    """The SDK's client, as the administrator."""
    with Orchestrator(server, template[1]) as client:
        yield client


@pytest.fixture
def demo(orch: Orchestrator, project: Project) -> ProjectClient:
    """The new project as the SDK shows it."""
    return orch.project(project.id)


@pytest.fixture
def known(app: OpenAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who calls is looked up once, not once a second, for a test that counts: the second could end meanwhile."""
    from web import gate  # noqa: PLC0415  # as for the app

    monkeypatch.setattr(gate, "ring", keys.KeyRing())
    monkeypatch.setattr(keys, "CACHE_SECONDS", 3600)


@pytest.fixture
def quiet(admin: Api, alone: str) -> Project:
    """A new project in a database that nobody drains."""
    return Project.make(admin)


@contextmanager
def inside(database_url: str) -> Iterator[None]:
    """This process and all that it starts use this database, for the length of the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORCH_DATABASE_URL", database_url)
        _forget()
        yield
    _forget()


def _forget() -> None:
    """Let this process read its settings anew, and go by them."""
    for cached in CACHES:
        cached.cache_clear()


def _own_number(redis_url: str) -> str:
    """The database of a Redis that this test process uses: each of several has its own, from the given one on."""
    url, process = make_url(redis_url), os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    number = int(url.database or 0) + int(process.removeprefix("gw"))
    return url.set(database=str(number)).render_as_string(hide_password=False)


@contextmanager
def _postgres(home: Path) -> Iterator[str]:
    """One that does not wait for the disk: hundreds of databases are made in it. (No test pulls the plug.)

    Nor does it count what is in them by itself: tables that were counted when they had just been emptied would be taken
    for empty ones by the test that fills them next, and joined row by row, which takes minutes.
    """
    from orchestrator.embedded import postgres  # noqa: PLC0415  # only where no server is given

    with postgres(home) as url:
        with connected(url) as db:
            db.execute(text("ALTER SYSTEM SET fsync = off"))
            db.execute(text("ALTER SYSTEM SET autovacuum = off"))
            db.execute(text("SELECT pg_reload_conf()"))
        yield url


def _valkey(home: Path) -> AbstractContextManager[str]:
    from orchestrator.embedded import valkey  # noqa: PLC0415  # only where no server is given

    return valkey(home)
