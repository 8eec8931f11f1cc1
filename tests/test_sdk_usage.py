"""An entry of usage: what no server would take is refused where it is made."""

from decimal import Decimal
from inspect import signature
from typing import Any

import pytest

from orchestrator.ledger import Entry
from orchestrator.sdk import Run
from orchestrator.sdk.usage import COUNTS, LENGTHS, entry


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        *(({name: most + 1}, ValueError) for name, most in COUNTS.items()),
        *(({name: -1}, ValueError) for name in COUNTS),
        *(({name: wrong}, TypeError) for name in COUNTS for wrong in (1.0, "1", True, None)),
        *(({name: "x" * (most + 1)}, ValueError) for name, most in LENGTHS.items()),
        *(({name: 7}, TypeError) for name in LENGTHS),
        *(({name: wrong}, ValueError) for name in LENGTHS for wrong in ("half a \ud83d", "\0")),
        *(({"cost": wrong}, ValueError) for wrong in (-1, 1_000_001, "nan", "inf", "much", float("nan"), "")),
        *(({"cost": wrong}, TypeError) for wrong in (True, [], b"1")),
        ({"input_token": 1}, TypeError),
    ],
    ids=str,
)
def test_what_no_server_would_take_raises_where_it_is_reported(wrong: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match="input_token" if "input_token" in wrong else next(iter(wrong))):
        entry(**wrong)


@pytest.mark.parametrize(
    "right",
    [
        *({name: most} for name, most in COUNTS.items()),
        *({name: "x" * most} for name, most in LENGTHS.items()),
        *({"cost": cost} for cost in (0, 10**6, "0.0041", 1e-10, Decimal("0.1"), 0.1 + 0.2)),
    ],
    ids=lambda right: next(iter(right)),
)
def test_what_is_within_the_bounds_is_taken_by_the_server(right: dict[str, Any]) -> None:
    made = entry(**right)

    assert Entry.model_validate(made, strict=True).report_id


def test_a_run_has_a_parameter_for_each_field_of_an_entry() -> None:
    assert set(signature(Run.usage).parameters) - {"self"} == set(Entry.model_fields) - {"occurred_at"}
