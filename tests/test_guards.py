"""Rules of the house that would otherwise be forgotten. Each failure says which rule, and where it was broken."""

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
import yaml

from orchestrator import diagram
from orchestrator.decide import EFFECTS
from orchestrator.lifecycle import COMMANDS, MOVES, SYSTEM_COMMANDS, Verb
from orchestrator.orders import ORDERS
from tests.stage import ROOT
from web import build, docs
from web.gate import ACTIONS, PREFIX

ROOMS = {
    "orchestrator": set(),
    "orchestrator.cli": {"orchestrator"},
    "workers": {"orchestrator"},
    "web": {"orchestrator", "workers"},
}
"""Doors between rooms open one way: web → workers → orchestrator."""

CLI_MAY_IMPORT = {"settings", "revisions", "bootstrap", "embedded", "limits", "stack", "sdk"}
CLI_MAY_IMPORT |= {"programs", "backup", "restore", "loading"}
"""The command line talks to the API like any client; what runs on this machine itself needs these."""

FLOORS = """
    loading errors settings failpoints states lifecycle holds stops diagram fields rows cursors columns logs link notes
    pulse limits models books lease_tables rollup_tables db pipeline verify orders keys sessions access errands timers
    ledger idempotency fences accept decide record turns suspects announcements claims drain fleet letters bulk
    matching directives leases beats explain feed audit rollups trends upkeep queries overview usage directory
    inspection revisions eras bootstrap programs runner embedded stack archives backup restore
""".split()  # noqa: SIM905  # a list of quotes would hide the order
"""Inside orchestrator/, a module imports only those named before it."""

LONGEST_FILE, LONGEST_FUNCTION, MEDIAN_FUNCTION, DEEPEST_NESTING = 250, 40, 6, 3

COMMITS = {"orchestrator/bootstrap.py"}
"""Where a connection's own commit may be called."""

BROAD_EXCEPTS = {
    "workers/shift.py": 1,
    "workers/careful.py": 2,
    "web/waiters.py": 1,
    "web/streams.py": 1,
    "orchestrator/cli/demo/__init__.py": 1,
    "orchestrator/sdk/pulse.py": 2,
}
"""Where everything may be caught, and how often: at the edge of a task, and where threads must end whatever happens."""

WRITERS = {
    r"UPDATE agents\b": {"orchestrator/record.py"},
    r"INSERT INTO agents\b": {"orchestrator/accept.py", "orchestrator/bulk.py"},
    r"INSERT INTO events\b": {"orchestrator/record.py"},
    r"INSERT INTO project_counters\b": {"orchestrator/record.py"},
    r"UPDATE commands\b": {"orchestrator/record.py", "orchestrator/drain.py", "orchestrator/accept.py"},
    r"UPDATE usage_entries\b": {"orchestrator/ledger.py"},
}
"""Who writes what; a second hand for agents, events and counters would end the audit."""

NO_KEY_NEEDED = {"health.healthz", "health.readyz", "health.metrics", "openapi", "docs"}

FORBIDDEN_NAMES = {"utils", "helpers", "services", "repositories", "crud", "base", "managers", "dto", "common", "misc"}


def sources(*rooms: str) -> list[Path]:
    """Our own files, migrations apart: they are history."""
    found = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    return [path for path in found if "migrations" not in path.parts]


def name(path: Path) -> str:
    """A file as this repository calls it."""
    return path.relative_to(ROOT).as_posix()


def module(path: Path) -> str:
    """A file as an import calls it."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def tracked() -> list[Path]:
    """What is in the repository."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)
    return [ROOT / line for line in listed.stdout.split() if (ROOT / line).is_file()]


OURS = sources("orchestrator", "workers", "web")


def room(dotted: str) -> str | None:
    """The room a module is in."""
    return next((r for r in sorted(ROOMS, key=len, reverse=True) if (dotted + ".").startswith(r + ".")), None)


@pytest.mark.parametrize("path", OURS, ids=name)
def test_doors_between_rooms_open_one_way(path: Path) -> None:
    here = room(module(path))
    assert here is not None
    for imported in imports(path):
        there = room(imported)
        assert there in {None, here, *ROOMS[here]}, f"{name(path)} ({here}) may not import {imported} ({there})"


@pytest.mark.parametrize("path", sources("orchestrator/cli"), ids=name)
def test_the_command_line_is_a_client_like_any_other(path: Path) -> None:
    for imported in imports(path):
        if imported.startswith("orchestrator.") and not imported.startswith("orchestrator.cli"):
            noun = imported.split(".")[1]
            assert noun in CLI_MAY_IMPORT | {"__version__"}, f"{name(path)} may not import {imported}"


def test_inside_the_core_imports_go_only_up() -> None:
    files = {path.stem: path for path in (ROOT / "orchestrator").glob("*.py") if path.stem != "__init__"}
    assert set(files) == set(FLOORS), "every module has its floor, and every floor its module"
    for floor, noun in enumerate(FLOORS):
        for imported in imports(files[noun]):
            if imported.startswith("orchestrator."):
                other = imported.split(".")[1]
                assert other in {*FLOORS[:floor], "__version__"}, f"{noun}.py imports {other}.py, which lies below it"


def test_the_tables_are_complete() -> None:
    assert set(MOVES) == set(Verb) - {Verb.UPDATE, Verb.SETTLE}
    assert set(EFFECTS) == {*COMMANDS, *SYSTEM_COMMANDS}
    assert set(ORDERS) == set(COMMANDS)


def test_every_route_demands_a_caller_and_spends_a_limit() -> None:
    rules = list(build().url_map.iter_rules())
    behind = {rule.endpoint for rule in rules if rule.rule.startswith(PREFIX)}
    outside = {rule.endpoint for rule in rules if not rule.rule.startswith(PREFIX)}

    assert behind == set(ACTIONS), "each route below the prefix has its limit in gate.ACTIONS, and no other"
    elsewhere = ("swagger.", "console.")  # the console has a gate of its own, and a test of it
    assert {endpoint for endpoint in outside if not endpoint.startswith(elsewhere)} == NO_KEY_NEEDED


def test_every_queue_has_a_consumer() -> None:
    import celeryconfig  # noqa: PLC0415  # it reads the environment, which is set by now

    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    (wanted,) = [word for word in services["worker"]["command"] if word.startswith("--queues=")]
    consumed = set(wanted.removeprefix("--queues=").split(","))
    declared = {queue.name for queue in celeryconfig.task_queues}

    assert {route["queue"] for route in celeryconfig.task_routes.values()} == consumed
    assert declared - consumed == {celeryconfig.broker_transport_options["deadletter_queue"]}
    assert ",".join(sorted(consumed)) in (ROOT / "orchestrator" / "stack.py").read_text()


def test_transactions_are_committed_at_the_edge_only() -> None:
    for path in OURS:
        assert ".commit(" not in path.read_text() or name(path) in COMMITS, f"{name(path)} commits by itself"


def test_no_broad_except_but_at_the_edge_of_a_task() -> None:
    for path in OURS:
        broad = re.findall(r"except (?:Base)?Exception\b.*", path.read_text())
        assert len(broad) == BROAD_EXCEPTS.get(name(path), 0), f"{name(path)} catches everything: {broad}"
        assert all("#" in line for line in broad), f"{name(path)} does not say why it catches everything"


@pytest.mark.parametrize("statement", WRITERS)
def test_every_table_has_its_writer(statement: str) -> None:
    found = {name(path) for path in OURS if re.search(statement, path.read_text())}

    assert found == WRITERS[statement]


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    """Every function of a file."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def body_lines(function: ast.FunctionDef) -> int:
    """A function's lines without its docstring."""
    first = function.body[1] if ast.get_docstring(function) and len(function.body) > 1 else function.body[0]
    assert function.end_lineno is not None
    return function.end_lineno - first.lineno + 1


def nesting(node: ast.AST, level: int = 0) -> int:
    """How deep blocks lie in blocks; functions in functions begin anew."""
    blocks = (ast.If, ast.For, ast.While, ast.With, ast.Try)
    depths = [level]
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.FunctionDef):
                is_elif = isinstance(node, ast.If) and field == "orelse" and isinstance(child, ast.If)
                depths.append(nesting(child, level + (isinstance(child, blocks) and not is_elif)))
    return max(depths)


def test_files_and_functions_are_small() -> None:
    lengths = []
    for path in OURS:
        text = path.read_text()
        assert text.count("\n") <= LONGEST_FILE, f"{name(path)} has {text.count(chr(10))} lines: two nouns in one file?"
        for function in functions(ast.parse(text)):
            lengths.append(body_lines(function))
            assert lengths[-1] <= LONGEST_FUNCTION, f"{name(path)}: {function.name} has {lengths[-1]} lines"
            assert nesting(function) <= DEEPEST_NESTING, f"{name(path)}: {function.name} is nested too deeply"
    assert median(lengths) <= MEDIAN_FUNCTION


def test_files_are_named_after_nouns_they_own() -> None:
    for path in OURS:
        assert path.stem not in FORBIDDEN_NAMES, f"{name(path)}: name the file after the noun it owns"


def test_what_is_generated_is_committed_as_generated() -> None:
    assert diagram.PAGE.read_text() == diagram.render(), "run `make docs`"
    assert json.loads(docs.PAGE.read_text()) == json.loads(docs.render()), "run `make docs`"


def test_each_promise_names_tests_that_there_are() -> None:
    promises = re.findall(r"^\| [A-Z].+ \| (`tests/.+) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    named = [name for proof in promises for name in re.findall(r"`(tests/[\w/]+\.py)`", proof)]

    assert len(promises) >= 10
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_no_index_is_named_and_every_requirement_has_its_hash() -> None:
    for lock in ROOT.glob("requirements*.txt"):
        text = lock.read_text()
        assert not re.search(r"--(extra-)?index-url|--find-links|://", text), f"{lock.name} names an index"
        pinned = re.findall(r"(?m)^\S+==\S+", text)
        assert pinned
        assert len(re.findall(r"(?m)^\S+==\S+.*\\\n\s+--hash=sha256:", text)) == len(pinned), lock.name


def test_no_path_of_a_machine_and_no_leftover_note() -> None:
    home = re.compile(r"/(?:home|root|Users|work)/\w|\b(?:TODO|FIXME|XXX)\b")
    for path in tracked():
        if path.name in {"test_guards.py", "LICENSE"} or path.suffix == ".png":
            continue
        found = home.search(path.read_text(errors="ignore"))
        assert found is None, f"{name(path)}: {found and found[0]}"
