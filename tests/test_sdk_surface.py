"""The SDK is complete: asyncio has what threads have, every operation is a method, and shapes are as the API's."""

import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from zipfile import ZipFile

import pytest
from pydantic import BaseModel

from orchestrator.sdk import (
    AsyncOrchestrator,
    AsyncProjectClient,
    Orchestrator,
    ProjectClient,
    bulk,
    bulk_shapes,
    commands,
    fleet,
    issues,
    shapes,
    surface,
    tenancy,
    world,
)
from tests.stage import ROOT

PAIRS = [
    *(
        (kind, getattr(surface, f"Async{name}"))
        for name, kind in vars(surface).items()
        if f"Async{name}" in vars(surface)
    ),
    (commands.Commands, commands.AsyncCommands),
    (ProjectClient, AsyncProjectClient),
    (Orchestrator, AsyncOrchestrator),
]
SHAPES = [
    kind
    for kind in (vars(shapes) | vars(bulk_shapes)).values()
    if isinstance(kind, type) and issubclass(kind, shapes.Shape)
]
SHAPES = [kind for kind in SHAPES if kind not in (shapes.Shape, shapes.Page)]


def methods(kind: type) -> dict[str, Any]:
    """What it can be asked to do."""
    found = inspect.getmembers(kind, inspect.isfunction)
    return {name: method for name, method in found if not name.startswith("_") or name == "__init__"}


def parameters(method: Any) -> list[tuple[str, Any, Any]]:
    """How a method is called."""
    given = inspect.signature(method).parameters.values()
    return [(each.name, each.kind, each.default) for each in given]


def operations(module: ModuleType) -> Iterator[Any]:
    """The functions that a module defines for others."""
    for name, function in inspect.getmembers(module, inspect.isfunction):
        if function.__module__ == module.__name__ and not name.startswith("_"):
            yield function


@pytest.mark.parametrize(("now", "later"), PAIRS, ids=lambda kind: kind.__name__)
def test_asyncio_has_the_same_methods_with_the_same_parameters(now: type, later: type) -> None:
    assert {name: parameters(method) for name, method in methods(now).items()} == {
        name: parameters(method) for name, method in methods(later).items()
    }
    assert now.__doc__ == later.__doc__ or later is AsyncOrchestrator


def test_asyncio_has_the_same_parts() -> None:
    one, other = Orchestrator("http://127.0.0.1:1", "key"), AsyncOrchestrator("http://127.0.0.1:1", "key")
    project, later = ProjectClient(one.connection, "p"), AsyncProjectClient(other.connection, "p")

    for here, there in ((one, other), (project, later)):
        parts = {name: f"Async{type(part).__name__}" for name, part in vars(here).items() if name[0] != "_"}
        found = {name: type(part).__name__ for name, part in vars(there).items() if name[0] != "_"}
        assert parts | {"url": "str", "id": "str"} == found | {"url": "str", "id": "str"}


def test_every_operation_is_a_method_of_both_clients() -> None:
    known = {operation for module in (world, fleet, bulk, tenancy, issues) for operation in operations(module)}

    for side in (0, 1):
        bound = {inspect.unwrap(method) for pair in PAIRS for method in methods(pair[side]).values()}
        assert known - bound == {world.me, world.verify}  # methods with words of their own


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_a_shape_has_the_fields_of_the_api_s(shape: type[BaseModel]) -> None:
    document = json.loads((ROOT / "docs" / "openapi.json").read_text())
    described = document["components"]["schemas"][shape.__name__]
    ours = shape.model_json_schema()

    assert set(ours["properties"]) == set(described["properties"])
    assert set(ours.get("required", ())) == set(described.get("required", ()))
    for name, field in ours["properties"].items():
        assert is_nullable(field) == is_nullable(described["properties"][name]), name


def is_nullable(schema: dict[str, Any]) -> bool:
    """Whether it may be null."""
    return any(option.get("type") == "null" for option in schema.get("anyOf", ()))


def test_the_wheel_says_that_it_is_typed(tmp_path: Path) -> None:
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, check=True, capture_output=True)

    (wheel,) = tmp_path.glob("*.whl")

    assert "orchestrator/py.typed" in ZipFile(wheel).namelist()
