"""What a model call used, as an entry of the ledger."""

import re
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import uuid4

_NO_TEXT = re.compile(r"[\0\ud800-\udfff]")

_SMALLEST = Decimal("1e-10")

Cost = Decimal | float | str | None

_TOKENS = 10**12
COUNTS = {
    "input_tokens": _TOKENS,
    "output_tokens": _TOKENS,
    "cache_read_tokens": _TOKENS,
    "cache_write_tokens": _TOKENS,
    "tasks_completed": 10**6,
}
"""How many the server takes in one entry, at most."""
LENGTHS = {"provider": 200, "model": 200, "note": 20_000, "report_id": 128}
"""How many characters."""
MOST_COST = 10**6


def entry(*, cost: Cost = None, report_id: str | None = None, **given: Any) -> dict[str, Any]:
    """An entry with an id and a time of its own; `given` are of COUNTS and LENGTHS. The cost, in USD, is rounded to ten
    decimals. Raises TypeError and ValueError for what no server would take."""
    texts = {name: given.pop(name, None) for name in ("provider", "model", "note")} | {"report_id": report_id}
    for name, text in texts.items():
        _check_text(name, text)
    for name, count in given.items():
        _check_count(name, count)
    made = {"occurred_at": datetime.now(UTC).isoformat()}
    made |= {name: value for name, value in (given | texts).items() if value}
    made.setdefault("report_id", uuid4().hex)
    return made if cost is None else made | {"cost": _money(cost)}


def _check_text(name: str, text: object) -> None:
    if text is not None and not isinstance(text, str):
        raise TypeError(f"{name} must be a text, not {text!r}")
    if text is not None and len(text) > LENGTHS[name]:
        raise ValueError(f"{name} must have {LENGTHS[name]} characters at most, not {len(text)}")
    if text is not None and _NO_TEXT.search(text):
        raise ValueError(f"{name} must have no NUL and no half of a surrogate pair, not {text!r}")


def _check_count(name: str, count: object) -> None:
    if name not in COUNTS:
        raise TypeError(f"there is nothing like {name!r} to be used")
    if not isinstance(count, int) or isinstance(count, bool):
        raise TypeError(f"{name} must be a whole number, not {count!r}")
    if not 0 <= count <= COUNTS[name]:
        raise ValueError(f"{name} must be a whole number from 0 to {COUNTS[name]}, not {count!r}")


def _money(cost: Decimal | float | str) -> str:
    if not isinstance(cost, Decimal | float | int | str) or isinstance(cost, bool):
        raise TypeError(f"cost must be an amount in USD, not {cost!r}")
    try:
        exact = Decimal(str(cost)).quantize(_SMALLEST)
        fits = 0 <= exact <= MOST_COST
    except InvalidOperation:  # no number, or none that can be compared
        fits = False
    if not fits:
        raise ValueError(f"cost must be an amount in USD from 0 to {MOST_COST}, not {cost!r}")
    return f"{exact.normalize():f}"
