"""What the tables are made of: kinds of columns and checks that more than one of them has."""

from collections.abc import Iterable

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    MetaData,
    Numeric,
    func,
)
from sqlalchemy.types import UserDefinedType


class Xid8(UserDefinedType[int]):
    """PostgreSQL's 64-bit transaction id: the order in which the feed can be read without a gap."""

    cache_ok = True

    def get_col_spec(self, **kw: object) -> str:
        """The type's name in DDL."""
        del kw
        return "xid8"


def one_of(column: str, values: Iterable[str], name: str) -> CheckConstraint:
    """A CHECK that a text column holds one of an enum's values."""
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=name)


def time(name: str, **options: object) -> Column[object]:
    """A moment, with its time zone."""
    return Column(name, DateTime(timezone=True), **options)  # type: ignore[arg-type]


def created() -> Column[object]:
    """When the row was made, by the database's clock."""
    return time("created_at", nullable=False, server_default=func.now())


MONEY = Numeric(30, 10)
"""Sums in USD. One entry is NUMERIC(20, 10): ten decimals, ten digits before the point."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)
