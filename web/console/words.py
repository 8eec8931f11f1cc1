"""How the pages write things down: times, money, tokens, and the sign of each status."""

import json
from datetime import UTC, datetime
from decimal import Context, Decimal
from typing import Any
from unicodedata import category, normalize

from markupsafe import Markup

from orchestrator.errors import PreconditionFailed, Refused
from orchestrator.lifecycle import Status, sendable

SIGNS = {
    Status.IDLE: "○",
    Status.WORKING: "▶",
    Status.WAITING: "◷",
    Status.PAUSED: "‖",
    Status.TERMINATED: "■",
}
"""Never colour alone says what an agent is doing."""

_STEPS = (("ms", 1e-3, 1000), ("s", 1.0, 60), ("min", 60.0, 60), ("h", 3_600.0, 24))
"""Units, their seconds, and how many of them are one of the next."""

_LEAST = Context(prec=2)
"""How exactly less than a cent is told: what is a share of something has no end."""


_FIELDS = {
    "agent_type_id": "type",
    "confirm": "name",
    "count": "number",
    "current_task": "task",
    "expect_count": "number",
}
"""What the pages call a field, where the API or a form has another name for it."""


def sign(status: str) -> str:
    """The sign of a status; a question mark for an agent that is not born."""
    return SIGNS[Status(status)] if status else "?"


def duration(seconds: float | None) -> str:
    """As in 12 ms, 3.4 s, 5 min, 2 h, 3 d; a dash for None."""
    if seconds is None or seconds != seconds:  # noqa: PLR0124  # not a number
        return "–"
    for unit, size, most in _STEPS:
        number = max(0.0, seconds) / size
        if round(number) < most:  # what would be rounded to 60 s is 1 min
            has_tenth = unit == "s" and round(number, 1) < 10  # noqa: PLR2004
            return f"{number:.1f} {unit}" if has_tenth else f"{number:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def milliseconds(value: float | None) -> str:
    """The same, of milliseconds."""
    return duration(None if value is None else value / 1000)


def ago(moment: datetime | None) -> str:
    """How long ago that was; a dash for never."""
    return "–" if moment is None else duration((datetime.now(UTC) - moment).total_seconds())


def money(value: Any) -> str:
    """USD; less than a cent with two digits that tell it from nothing; a dash for None."""
    if value is None:
        return "–"
    amount = Decimal(value)
    cent = Decimal("0.01")
    return f"${amount:,.2f}" if amount == 0 or amount >= cent else f"${amount.normalize(_LEAST):f}"


def number(value: Any) -> str:
    """Thousands apart: 12,345; from a million on, shortened: 1.2M."""
    if abs(value) < 10**6:
        return f"{int(value):,}"
    shown = {unit: round(float(value) / least, 1) for least, unit in ((10**6, "M"), (10**9, "G"), (10**12, "T"))}
    unit = next((unit for unit, rounded in shown.items() if abs(rounded) < 1000), "T")  # noqa: PLR2004  # 1000.0M is 1.0G
    return f"{shown[unit]:.1f}{unit}"


def counted(value: Any, noun: str, one: str = "", many: str = "") -> str:
    """So many of them, and what is said of one, or of many: 1 command was, 12 commands were."""
    is_one = value == 1
    return " ".join(filter(None, (number(value), noun if is_one else f"{noun}s", one if is_one else many)))


def clock(moment: datetime | None) -> str:
    """The time in UTC, to the second."""
    return "–" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def document(value: Any) -> str:
    """JSON as people read it."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def cut(text: str | None, most: int = 200) -> str:
    """The text, or its beginning and an ellipsis; its lines as one."""
    one = " ".join((text or "")[: 2 * most].split())
    return one if len(one) <= most else f"{one[: most - 1]}…"


def field(name: str) -> str:
    """What the pages call a field that something is wrong with."""
    return _FIELDS.get(name, name)


def changes(changed: dict[str, Any]) -> list[tuple[str, str]]:
    """The new values of an event by field, each cut to what fits into a line of a table; at most six of them."""
    found = [(name, _value(_owners(value) if name == "holds" else value)) for name, value in [*changed.items()][:6]]
    return found if len(changed) == len(found) else [*found, ("…", "")]


def who(row: Any) -> str:
    """Who has done it: a user's e-mail address, the agent itself, or the system."""
    if row.actor_type == "user":
        return str(row.actor_email or row.actor_id)
    return "the agent" if row.actor_type == "agent" else "the system"


def visible(text: Any) -> str:
    """With every control and format character written out, as `orch` does it: none hides, or turns what follows it."""
    return "".join(repr(c)[1:-1] if _is_hidden(c) and c != "\n" else c for c in str(text or ""))


def said(text: Any) -> Markup:
    """What somebody else has written, apart from the page's own words: right-to-left text moves none of them."""
    return Markup("<bdi>{}</bdi>").format(visible(text)) if text else Markup()


def is_said(typed: str, text: str) -> bool:
    """Whether somebody has typed a text as the page shows it, however keyboards make accents, blanks and what cannot be
    seen; a text of nothing that can be seen, as it is written out."""
    return _typed(typed) in {_typed(text), _typed(visible(text))} - {""}


def _typed(text: str) -> str:
    """What of a text can be typed."""
    return " ".join("".join(c for c in normalize("NFKC", text) if c.isspace() or not _is_hidden(c)).split())


def _is_hidden(character: str) -> bool:
    return category(character) in ("Cc", "Cf")


def refusal(error: dict[str, Any]) -> str:
    """What a command's error says to people: what can be done now as verbs, where the API names statuses; and what a
    changed version means."""
    message = str(error["message"])
    if error["code"] == PreconditionFailed.code:
        return f"nothing was done, for the agent has changed meanwhile: {message}"
    why, possible, _ = message.partition("; possible now: ")
    if error["code"] == Refused.code and possible:
        status = error.get("current_status")
        return f"{why}{possible}{', '.join(sendable(status and Status(status)))}"
    return message


def _owners(holds: Any) -> Any:
    """Of an agent's holds, those whose they are: the rest is in the event's reason, and on the agent's page."""
    return [hold["owner"] for hold in holds] or None


def _value(value: Any) -> str:
    if value is None:
        return "–"
    return f"“{cut(value, 80)}”" if isinstance(value, str) else cut(json.dumps(value, ensure_ascii=False), 80)


_ALL = (
    sign, duration, milliseconds, ago, money, number, counted, clock, document, cut, field, changes, who, refusal,
    visible, said,
)  # fmt: skip
FILTERS = {each.__name__: each for each in _ALL}
"""What templates may call."""
