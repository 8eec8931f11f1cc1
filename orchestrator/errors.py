"""Every expected failure; the class carries HTTP status and code, its docstring is the sentence."""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple
from uuid import UUID


class Violation(NamedTuple):
    """One thing that was wrong with a request."""

    message: str
    field: str | None = None


class Problem(Exception):
    """Something went wrong on our side."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str | None = None, *, field: str | None = None, **extra: Any) -> None:
        """`extra` becomes members of the problem document beside the standard ones (RFC 9457, 3.2)."""
        self.detail = detail or type(self).__doc__ or self.title
        self.field = field
        self.extra = extra
        super().__init__(self.detail)

    @property
    def violations(self) -> Sequence[Violation]:
        """What was wrong, one entry each; most problems have exactly one."""
        return (Violation(self.detail, self.field),)

    def as_record(self) -> dict[str, Any]:
        """The form in which a closed command keeps it; `recall` reads it back."""
        return {"code": self.code, "message": self.detail, "field": self.field, **self.extra}


class MalformedJson(Problem):
    """The body is not JSON; send a JSON object."""

    status, code, title = 400, "malformed_json", "Malformed JSON"


class Unauthenticated(Problem):
    """No valid API key; send it as `Authorization: Bearer <key>`."""

    status, code, title = 401, "unauthenticated", "Unauthenticated"


class Forbidden(Problem):
    """This key's user may not do that."""

    status, code, title = 403, "insufficient_permissions", "Insufficient permissions"


class NotFound(Problem):
    """There is nothing at this address."""

    status, code, title = 404, "not_found", "Not found"


def no_agent(agent_id: UUID) -> NotFound:
    """What is said of an agent that is not there, not yet, or another project's: the same, whichever it is."""
    return NotFound(f"there is no agent {agent_id} in this project")


class MethodNotAllowed(Problem):
    """This address does not take that method; see the Allow header."""

    status, code, title = 405, "method_not_allowed", "Method not allowed"


class Conflict(Problem):
    """The request does not fit the present state of things."""

    status, code, title = 409, "conflict", "Conflict"


class Refused(Problem):
    """The lifecycle has no such move."""

    status, code, title = 409, "invalid_transition", "Invalid transition"


class Held(Problem):
    """Others have holds on the agent; only they can lift them."""

    status, code, title = 409, "held", "Held"


class LeaseHeld(Problem):
    """Another process holds the agent's lease."""

    status, code, title = 409, "lease_held", "Lease held"


class Fenced(Problem):
    """This lease is over; whoever held it may not write any more."""

    status, code, title = 409, "fenced", "Fenced"


class Gone(Problem):
    """What this cursor goes on from is not there any more; read the agents anew and go on without it."""

    status, code, title = 410, "resync", "Gone"


class PreconditionFailed(Problem):
    """The agent has another version than If-Match names."""

    status, code, title = 412, "precondition_failed", "Precondition failed"


class TooLarge(Problem):
    """The body is too large."""

    status, code, title = 413, "payload_too_large", "Payload too large"


class UnsupportedMediaType(Problem):
    """The body must be JSON; send `Content-Type: application/json`."""

    status, code, title = 415, "unsupported_media_type", "Unsupported media type"


class Invalid(Problem):
    """The request breaks a rule of the protocol."""

    status, code, title = 422, "validation_error", "Validation error"

    def __init__(self, *violations: Violation) -> None:
        self._violations = violations
        super().__init__("; ".join(f"{v.field}: {v.message}" if v.field else v.message for v in violations))

    @property
    def violations(self) -> Sequence[Violation]:
        return self._violations


class KeyReused(Problem):
    """This Idempotency-Key was used for another request; choose a new one."""

    status, code, title = 422, "idempotency_key_reused", "Idempotency key reused"


class RateLimited(Problem):
    """Too many requests; wait as long as Retry-After says."""

    status, code, title = 429, "rate_limited", "Rate limited"


class Dead(Problem):
    """The command failed each time it was tried and was given up; its agent was not changed by it."""


class Unavailable(Problem):
    """The database cannot be reached or is busy; try again."""

    status, code, title = 503, "unavailable", "Unavailable"


_BY_CODE: dict[str, type[Problem]] = {
    kind.code: kind for kind in (Problem, NotFound, Conflict, Refused, Held, Fenced, PreconditionFailed, Forbidden)
}


def recall(record: dict[str, Any], **extra: Any) -> Problem:
    """The problem that `as_record` wrote down, ready to be raised; `extra` joins its members."""
    known = {"code", "message", "field"}
    kind = _BY_CODE[record["code"]]
    members = {name: value for name, value in record.items() if name not in known}
    return kind(record["message"], field=record["field"], **members, **extra)
