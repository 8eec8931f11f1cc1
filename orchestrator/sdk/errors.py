"""What can go wrong, by class. An error of the server's carries its code, status, request id and whole problem."""

from typing import Any, ClassVar


class OrchestratorError(Exception):
    """Whatever this package raises."""


class ConnectionFailed(OrchestratorError):
    """No answer from the server, however often it was asked."""


class NoServer(OrchestratorError):
    """What answers at this address is no orchestrator."""


class Timeout(OrchestratorError):
    """What was waited for has not come in time; it may still come."""


class Terminated(OrchestratorError):
    """The agent was terminated: its process must end."""


class Forked(OrchestratorError):
    """A run belongs to the process that has begun it, and this one is a fork of that."""


class ApiError(OrchestratorError):
    """The server has refused a request, or could not serve it."""

    code: ClassVar[str | None] = None

    def __init__(self, problem: dict[str, Any], retry_after: float | None = None) -> None:
        self.problem = problem
        self.status: int = problem["status"]
        self.request_id: str | None = problem.get("request_id")
        self.codes: list[str] = [entry["code"] for entry in problem["errors"]]
        self.retry_after = retry_after
        super().__init__(problem.get("detail") or problem.get("title", "the request failed"))


class Unauthenticated(ApiError):
    """No valid API key."""

    code = "unauthenticated"


class Forbidden(ApiError):
    """The key's user may not do that."""

    code = "insufficient_permissions"


class NotFound(ApiError):
    """There is no such thing, or it is another project's."""

    code = "not_found"


class Conflict(ApiError):
    """The request does not fit the present state of things."""

    code = "conflict"


class InvalidTransition(ApiError):
    """The lifecycle has no such move: `current_status`, and what is `allowed` from there."""

    code = "invalid_transition"

    @property
    def current_status(self) -> str | None:
        """The agent's status when it was refused."""
        status: str | None = self.problem.get("current_status")
        return status

    @property
    def allowed(self) -> list[str]:
        """The statuses that could be reached."""
        return list(self.problem.get("allowed", []))


class Held(ApiError):
    """Somebody holds the agent: it is paused, or about to be."""

    code = "held"


class LeaseHeld(ApiError):
    """Another process holds the agent's lease."""

    code = "lease_held"


class Fenced(ApiError):
    """The lease is over; its process may not write any more."""

    code = "fenced"


class Resync(ApiError):
    """The database was restored: what was read of the feed may never have happened. Read the agents anew, and follow it
    from `cursor` on (None where a page was asked for: from the first event on)."""

    code = "resync"

    def __init__(self, problem: dict[str, Any], retry_after: float | None = None, *, cursor: str | None = None) -> None:
        super().__init__(problem, retry_after)
        self.cursor = cursor


class PreconditionFailed(ApiError):
    """The agent has another version than was expected."""

    code = "precondition_failed"


class Invalid(ApiError):
    """The request breaks a rule of the protocol; `fields` are those that do."""

    code = "validation_error"

    @property
    def fields(self) -> list[str | None]:
        """What was complained about, in order."""
        return [entry.get("field") for entry in self.problem.get("errors", [])]


class RateLimited(ApiError):
    """Too many requests, even after waiting as long as the server had asked for."""

    code = "rate_limited"


class Unavailable(ApiError):
    """The server could not serve just then."""

    code = "unavailable"


_STATUS = {"internal": 500, "not_found": 404, "precondition_failed": 412}
"""Of a command's error, where it is not 409."""

_BY_CODE = {kind.code: kind for kind in ApiError.__subclasses__()}


def from_problem(problem: dict[str, Any], retry_after: float | None = None) -> ApiError:
    """The error for a problem document (RFC 9457); KeyError or TypeError where it is none of ours."""
    codes = [entry["code"] for entry in problem["errors"]]
    kind = _BY_CODE.get(codes[0] if codes else None, ApiError)
    return kind(problem, retry_after)


def unsendable(why: ValueError) -> Invalid:
    """The error for a request that is no JSON in UTF-8: it has half a character, or a number that is none."""
    message = f"the request cannot be written as JSON: {why}"
    entry = {"code": Invalid.code, "message": message, "field": None}
    return Invalid({"status": 422, "detail": message, "errors": [entry]})


def from_command(command_id: str, state: str, error: dict[str, Any] | None) -> ApiError:
    """The error for a command that was not applied, with the status its request would have had."""
    found = error or {"code": "conflict", "message": f"the command was {state}", "field": None}
    extra = {name: value for name, value in found.items() if name not in ("code", "message", "field")}
    entry = {name: found.get(name) for name in ("code", "message", "field")}
    status = _STATUS.get(found["code"], 409)
    return from_problem(
        {"status": status, "detail": found["message"], "errors": [entry], "command_id": command_id, **extra}
    )
