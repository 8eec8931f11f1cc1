"""From rows to columns: the shape in which `unnest` takes a batch in one statement."""

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg.types.json import Jsonb


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The rows turned by 90 degrees: one list per name. All rows have the same names; there is at least one."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def jsonb(value: Any) -> Jsonb | None:
    """A value for a jsonb parameter; None is SQL's NULL, not JSON's."""
    return None if value is None else Jsonb(value)
