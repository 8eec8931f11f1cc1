"""The kinds of values a request may carry, each with its rule; pydantic types, used by every body and query."""

import json
import re
from datetime import UTC, datetime
from decimal import Context, Decimal
from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from orchestrator.errors import Violation

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")
_TIME = re.compile(
    r"\d{4}-\d\d-\d\dT([01]\d|2[0-3])(:[0-5]\d){2}(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)", re.ASCII | re.IGNORECASE
)
"""As in RFC 3339; Python's own parser takes most of ISO 8601, such as days of weeks. No leap seconds: it has none."""

MEMORY_BYTES = 16 * 1024
DECIMALS = 10
"""Of a cost in USD."""

_EXACT = Context(prec=100)
"""More digits than a cost can be written with: the default of 28 would round a finer one until it fits."""


class Body(BaseModel):
    """A request body: unknown fields are refused, nothing is coerced."""

    model_config = ConfigDict(extra="forbid", strict=True)


def wrong(message: str) -> PydanticCustomError:
    """A violation whose message is ours, word for word."""
    return PydanticCustomError("rule", message)


SLUG = r"^[a-z0-9]+(-[a-z0-9]+)*$"
OWNER = r"^[a-z0-9]+([._:-][a-z0-9]+)*$"

_WORDS = {
    "extra_forbidden": "is not a field of this request",
    "missing": "is required",
    "model_type": "a JSON object is needed",
    "string_too_long": "can have at most {max_length} characters",
    "string_too_short": "must have {min_length} or more characters",
    "enum": "can be {expected}",
    "literal_error": "can be {expected}",
}
"""Where pydantic's own words say less than a caller needs."""

_SHAPES = {
    SLUG: "must be lower-case letters (a-z) and digits, with single hyphens between them",
    OWNER: "must be lower-case letters (a-z) and digits, with single dots, hyphens, colons or underscores between them",
}
"""What a pattern means."""


def violations(error: ValidationError) -> list[Violation]:
    """What pydantic found, one each, with its field dotted."""
    return [Violation(_sentence(e), ".".join(map(str, e["loc"])) or None) for e in error.errors()]


def _sentence(e: Any) -> str:
    about = e.get("ctx", {})
    said = _WORDS.get(e["type"]) or _SHAPES.get(about.get("pattern")) or str(e["msg"])
    return said.format_map(about) if e["type"] in _WORDS else said


def is_uuid(text: str) -> bool:
    """Whether it reads as an id."""
    return _UUID.fullmatch(text) is not None


def parse_uuid(value: Any) -> UUID:
    """A UUID in its canonical form, in any case; raises a ValueError for any other spelling."""
    if isinstance(value, UUID):
        return value
    if isinstance(value, str) and is_uuid(value):
        return UUID(value)
    raise wrong("must be a UUID in the form 8-4-4-4-12")


def _no_control(value: str) -> str:
    if _CONTROL.search(value):
        raise wrong("must not contain control characters")
    return value


def _small(value: dict[str, Any]) -> dict[str, Any]:
    size = len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()) + _written_out(value)
    if size > MEMORY_BYTES:
        raise wrong(f"must be at most {MEMORY_BYTES} bytes as compact JSON with numbers written out, not {size}")
    return value


def _written_out(value: Any) -> int:
    """How many bytes more the numbers take without exponents: so the database writes them, 1e308 with 309 digits."""
    if isinstance(value, float):
        return len(format(Decimal(repr(value)), "f")) - len(repr(value))
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(map(_written_out, inside))


class Written(float):
    """A number of a JSON document that remembers how it was written: as a float it may be another one."""

    text: str

    @classmethod
    def of(cls, text: str) -> "Written":
        """The number, and its text."""
        made = cls(text)
        made.text = text
        return made


def _parse_money(value: Any) -> Any:
    """A number or a decimal string, exactly as it is written; a float that was not read from JSON stands for the
    shortest decimal that reads back as it."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise wrong("must be a number or a decimal string")
    text = value.text if isinstance(value, Written) else str(value)
    if not re.fullmatch(r"-?\d{1,20}(\.\d{1,30})?([eE][+-]?\d{1,3})?", text, re.ASCII):
        raise wrong("must be a number or a decimal string")
    return Decimal(text)


def _ten_decimals(value: Decimal) -> Decimal:
    exact = value.normalize(_EXACT)
    exponent = exact.as_tuple().exponent
    if isinstance(exponent, int) and -exponent > DECIMALS:
        raise wrong(f"must have at most {DECIMALS} decimals")
    return exact


def _parse_time(value: Any) -> Any:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise wrong("must be a time as in RFC 3339, such as 2026-01-31T12:00:00Z")
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise wrong("must be a time as in RFC 3339, such as 2026-01-31T12:00:00Z") from None


def _lower_email(value: str) -> str:
    if not _EMAIL.fullmatch(value):
        raise wrong("must be an e-mail address")
    return value.lower()


def _no_id(value: str) -> str:
    if is_uuid(value):
        raise wrong("must not read as an id: what names a project or type by slug or id could not tell them apart")
    return value


def _refuse_null(value: Any) -> Any:
    if value is None:
        raise wrong("cannot be null; leave the field out to keep its value")
    return value


def _text(most: int, least: int = 0) -> StringConstraints:
    return StringConstraints(strip_whitespace=True, min_length=least, max_length=most)


NOT_NULL = BeforeValidator(_refuse_null)
"""For an optional field of a PATCH that cannot be cleared: absent is fine, null is not."""
LAX = Field(strict=False)
"""For an enum: JSON brings its value as a string, which strict validation of Python objects would refuse."""

Id = Annotated[UUID, BeforeValidator(parse_uuid)]
Name = Annotated[str, _text(100, least=1), AfterValidator(_no_control)]
Slug = Annotated[str, StringConstraints(pattern=SLUG, max_length=100), AfterValidator(_no_id)]
Email = Annotated[str, _text(254, least=3), AfterValidator(_no_control), AfterValidator(_lower_email)]
Task = Annotated[str, _text(2000)]
Reference = Annotated[str, _text(500)]
Session = Annotated[str, _text(255)]
Reason = Annotated[str, _text(500)]
Owner = Annotated[str, StringConstraints(pattern=OWNER, max_length=100)]
Title = Annotated[str, _text(300, least=1), AfterValidator(_no_control)]
Prose = Annotated[str, _text(20_000)]
Memory = Annotated[dict[str, Any], AfterValidator(_small)]
Time = Annotated[AwareDatetime, BeforeValidator(_parse_time)]
Money = Annotated[Decimal, BeforeValidator(_parse_money), Field(ge=0, le=1_000_000), AfterValidator(_ten_decimals)]
Tokens = Annotated[int, Field(ge=0, le=10**12)]
Tasks = Annotated[int, Field(ge=0, le=10**6)]
