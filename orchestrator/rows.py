"""Many rows in one statement: the shape in which `unnest` takes them, and ids for those that the database makes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from psycopg.types.json import Json, Jsonb
from pydantic_core import to_json
from sqlalchemy import Row

Rows = Sequence[Row[Any]]
"""What a statement returns."""

NEW_ID = """
    CAST(encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
        PLACING substring(int8send(CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)) FROM 3) FROM 1 FOR 6),
        52, 1), 53, 1), 'hex') AS uuid)"""
"""A new UUIDv7, as SQL: milliseconds, version, chance (RFC 9562, 5.7). PostgreSQL 17 has no function for it yet."""


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The rows turned by 90 degrees: one list per name. All rows have the same names; there is at least one."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def ids(given: Iterable[UUID]) -> str:
    """Ids for `CAST(:ids AS uuid[])`, as PostgreSQL reads an array: put together at once, as `document` is, and without
    hyphens, which would take twice the time."""
    return "{" + ",".join(id_.hex for id_ in given) + "}"


def document(rows: Sequence[Mapping[str, Any]]) -> Json:
    """The rows for `json_to_recordset`, a parameter that is put together at once: a list per column costs more than
    all the rest of a batch. Ids, times and decimals are written as text."""
    return Json(rows, to_json)


def jsonb(value: Any) -> Jsonb | None:
    """A value for a jsonb parameter; None is SQL's NULL, not JSON's."""
    return None if value is None else Jsonb(value)
