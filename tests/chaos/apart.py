"""Beats of many agents in one call, told apart: each is judged as if it had come alone."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from tests.chaos.history import Call

STATUSES = {"fenced": 409, "not_found": 404}
"""With what a beat that came alone would have been answered, by the code of its error."""


def told_apart(calls: Iterable[Call]) -> Iterator[Call]:
    """The same calls, and before each with many beats these one by one."""
    for call in calls:
        if call.op == "beats":
            yield from _beats(call)
        yield call


def _beats(call: Call) -> Iterator[Call]:
    """What became of them is known only where there is an item for each; of a call that failed nobody knows."""
    beats = call.sent["body"]["beats"]
    items = call.answer["data"] if call.outcome == "ok" else []
    for number, beat in enumerate(beats):
        said = {name: value for name, value in beat.items() if name != "agent_id"}
        alone = replace(call, op="beat", agent=beat["agent_id"], sent={"body": said}, t1=None, status=None, answer=None)
        known = len(items) == len(beats) and _answered(items[number])
        yield replace(alone, t1=call.t1, status=known[0], answer=known[1]) if known else alone


def _answered(item: dict[str, Any]) -> tuple[int, Any] | None:
    """Status and answer. A beat that is fenced was let in and judged, so that its usage is counted: one that came alone
    is then told the directive, and an item among many is not, so it stands for that here."""
    if item.get("told"):
        return 200, item["told"]
    code = (item.get("error") or {}).get("code")
    if code not in STATUSES:
        return None
    return STATUSES[code], {"errors": [item["error"]]} | ({"directive": None} if code == "fenced" else {})
