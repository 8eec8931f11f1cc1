"""The SDK and the command line where only they are installed, without what the server needs."""

import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.shell import Orch
from tests.stage import ROOT, Project

pytestmark = pytest.mark.usefixtures("worker")

# Read by every Python that is started with it on its path, and by what that starts.
ABSENT = """
import sys

class Absent:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)

sys.meta_path.insert(0, Absent)
"""


def servers_modules() -> set[str]:
    """The top-level modules of what the extras bring."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    needed = [*extras["server"], *extras["embedded"]]
    names = {re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-") for requirement in needed}  # type: ignore[index]
    installed = packages_distributions().items()
    return {module for module, dists in installed if any(dist.lower().replace("_", "-") in names for dist in dists)}


@pytest.fixture
def cli(server: str, project: Project, template: tuple[str, str], tmp_path: Path) -> Orch:
    """The command line of an administrator on such a machine."""
    absent = servers_modules() | {"web", "workers"}
    assert {"celery", "flask", "psycopg", "redis", "sqlalchemy", "uuid_utils", "psutil", "honcho"} < absent
    (tmp_path / "sitecustomize.py").write_text(ABSENT.replace("{absent}", repr(absent)))
    return Orch(
        {
            "ORCH_URL": server,
            "ORCH_API_KEY": template[1],
            "ORCH_PROJECT": project.id,
            "ORCH_OUTBOX": str(tmp_path),
            "PYTHONPATH": str(tmp_path),
        }
    )


def test_agents_are_spawned_run_and_listed(cli: Orch, project: Project) -> None:
    born = cli.run("agent", "spawn", "scout", "--type", project.type_id)
    ran = cli.run("run", "--name", "scout", "--", "true")
    listed = cli.run("agent", "ls", "-o", "table")

    assert [(done.returncode, done.stderr) for done in (born, ran, listed)] == [(0, "")] * 3
    assert "scout" in listed.stdout


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("up", "orchestrator[server,embedded]"),
        ("doctor", "orchestrator[server]"),
        ("demo", "orchestrator[server,em"),
        ("backup x", "orchestrator[server]"),
        ("restore x", "orchestrator[server]"),
    ],
)
def test_what_needs_the_server_says_what_to_install(cli: Orch, line: str, wanted: str, tmp_path: Path) -> None:
    result = cli.run(*line.split(), ORCH_URL=None, ORCH_PORT="9", ORCH_HOME=str(tmp_path))

    assert result.returncode == 1
    assert f"install {wanted}" in result.stderr
    assert "Traceback" not in result.stderr
