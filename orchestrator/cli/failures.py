"""How a command can end, and the one way to say that it failed."""

from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    """The exit codes. 2 is click's own: the command line itself was wrong."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    REFUSED = 5
    TOO_LONG = 6
    NO_SERVER = 7
    INTERRUPTED = 130


BY_STATUS = {
    401: Exit.NOT_ALLOWED,
    403: Exit.NOT_ALLOWED,
    404: Exit.NOT_FOUND,
    409: Exit.REFUSED,
    412: Exit.REFUSED,
}
"""An HTTP status as an exit code; every other error is FAILED."""

BY_CODE = {
    "invalid_transition": Exit.REFUSED,
    "conflict": Exit.REFUSED,
    "held": Exit.REFUSED,
    "fenced": Exit.REFUSED,
    "precondition_failed": Exit.REFUSED,
    "not_found": Exit.NOT_FOUND,
    "insufficient_permissions": Exit.NOT_ALLOWED,
}
"""The same for the error a closed command keeps."""

ADVICE = {
    401: "Set ORCH_API_KEY to a valid key, or ORCH_HOME to the folder where `orch up` keeps admin.key.",
    403: "Use the key of a user who may, such as a superuser's.",
    412: "Read the agent again and repeat with the version it has now.",
    503: "Try again in a moment; `orch doctor` says what is wrong.",
}
"""What to do about an HTTP status, where its sentence does not say so already."""


class Failure(Exception):
    """A command failed as commands may: one sentence, an exit code, and what the server said about it."""

    def __init__(
        self,
        sentence: str,
        code: Exit = Exit.FAILED,
        *,
        problem: dict[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.sentence = sentence
        self.code = code
        self.problem = problem
        self.retry_after = retry_after
        super().__init__(sentence)

    @property
    def status(self) -> int | None:
        """The HTTP status, where the server answered."""
        return self.problem["status"] if self.problem else None


def refusal(problem: dict[str, Any], retry_after: float | None = None) -> Failure:
    """The failure that a problem document (RFC 9457) tells of."""
    status, detail = problem["status"], str(problem.get("detail", "the server failed"))  # a 500 keeps its detail
    advice = ADVICE.get(status, "")
    if status == 500:  # noqa: PLR2004  # as in the table above
        advice = f"Its logs have more under the request id {problem.get('request_id')}."
    sentence = f"{detail} {advice}" if detail.endswith((".", "!", "?")) or not advice else f"{detail}. {advice}"
    return Failure(sentence.strip(), BY_STATUS.get(status, Exit.FAILED), problem=problem, retry_after=retry_after)
