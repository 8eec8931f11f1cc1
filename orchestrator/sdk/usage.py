"""What a model call used, as an entry of the ledger."""

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import uuid4

_SMALLEST = Decimal("1e-10")

COUNTS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "tasks_completed")


def entry(*, cost: Decimal | float | str | None = None, report_id: str | None = None, **given: Any) -> dict[str, Any]:
    """An entry with an id and a time of its own; `given` are COUNTS, provider, model and note. The cost, in USD, is
    rounded to ten decimals. Raises ValueError for what no server would take."""
    for name in COUNTS:
        count = given.get(name, 0)
        if not isinstance(count, int) or count < 0:
            raise ValueError(f"{name} must be a whole number from 0 on, not {count!r}")
    made = {"report_id": report_id or uuid4().hex, "occurred_at": datetime.now(UTC).isoformat()}
    made |= {name: value for name, value in given.items() if value}
    return made if cost is None else made | {"cost": _money(cost)}


def _money(cost: Decimal | float | str) -> str:
    try:
        exact = Decimal(str(cost)).quantize(_SMALLEST)
    except InvalidOperation:
        exact = Decimal(-1)
    if exact < 0:
        raise ValueError(f"cost must be an amount in USD from 0 on, not {cost!r}")
    return f"{exact.normalize():f}"
