"""What requests say in headers: Prefer, Idempotency-Key, If-Match, Lease-Epoch, X-Reason."""

import json
import re
from hashlib import sha256
from typing import Any
from uuid import UUID

from flask import request

from orchestrator.accept import Conditions
from orchestrator.errors import Invalid, NotFound, Violation
from orchestrator.fields import parse_uuid
from orchestrator.idempotency import Once
from orchestrator.settings import settings

LONGEST_WAIT = 30.0

_CHANGING = frozenset({"update_agent", "pause_agent", "resume_agent", "terminate_agent"})

KEY = "Idempotency-Key"
KEYED = ("POST", "PATCH", "DELETE")
"""The methods at which a key means something."""

SAYINGS: dict[str, tuple[str, frozenset[str]]] = {
    "Prefer": (
        "`wait=N`: hold the answer until what was asked is done, for N seconds at most; more than 30 count as 30.",
        _CHANGING | {"spawn_agent", "get_command", "report_agent_usage", "report_project_usage"},
    ),
    "If-Match": (
        'The `ETag` of the agent, such as `"7"`: refused with 412 when applied, where it has another by then.',
        _CHANGING,
    ),
    "Lease-Epoch": ("Refused with 409 when applied, where this epoch of the agent's lease is over by then.", _CHANGING),
    "X-Reason": ("As `reason` in a body, for clients that send none.", frozenset({"terminate_agent"})),
}
"""What requests may say in headers, beside a key, and the operations that heed it: for the API's description."""

KEY_SAYS = (
    "1 to 255 printable characters of the client's choice. The same request under the same key is done once, however"
    " often it is sent within 24 hours; another one is refused."
)
KEY_DONE_AGAIN = "Taken, though the same request under the same key is done again; another one is refused."

UNLIKE_OTHERS = {"create_key": None, **dict.fromkeys(("lease_agent", "beat", "beat_many"), KEY_DONE_AGAIN)}
"""What is said of a key where its request is not done once; None where no key is taken."""

_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d+(?:\.\d+)?)\"?\s*(?=$|[,;])", re.IGNORECASE)
_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_EPOCH = re.compile(r"[1-9]\d{0,17}", re.ASCII)
_ETAG = re.compile(r'"(\d{1,18})"')


def preferred_wait() -> float | None:
    """Seconds of `Prefer: wait=N`, at most 30; None where it is absent or malformed."""
    match = _WAIT.search(",".join(request.headers.getlist("Prefer")))
    return min(float(match[1]), LONGEST_WAIT) if match else None


def wait() -> float:
    """Seconds this request is willing to wait."""
    preferred = preferred_wait()
    return settings().default_wait if preferred is None else preferred


def idempotency_key() -> str | None:
    """The client's key; raises Invalid where it is not 1 to 255 printable characters."""
    key = request.headers.get(KEY)
    if key is not None and not _KEY.fullmatch(key):
        raise Invalid(Violation("must be 1 to 255 printable ASCII characters", KEY))
    return key


def refuse_key(why: str) -> None:
    """Raises Invalid where there is a key that could not be honoured, since `why`."""
    if KEY in request.headers:
        raise Invalid(Violation(f"is not taken here: {why}", KEY))


def once(order: dict[str, Any]) -> Once | None:
    """The client's key with the fingerprint of this request: method, path (ids in any case), order, If-Match,
    Lease-Epoch."""
    key = idempotency_key()
    if key is None:
        return None
    parts = [request.method, request.path.lower(), order, request.headers.get("If-Match")]
    if (epoch := request.headers.get("Lease-Epoch")) is not None:
        parts.append(epoch)
    return Once(key, sha256(json.dumps(parts, sort_keys=True).encode()).digest())


def conditions() -> Conditions:
    """What must hold when the command is applied; raises Invalid for a malformed header."""
    return Conditions(precondition(), lease_epoch())


def lease_epoch() -> int | None:
    """The epoch in Lease-Epoch: only whoever holds the agent's lease may do this."""
    given = request.headers.get("Lease-Epoch")
    if given is None:
        return None
    if not _EPOCH.fullmatch(given.strip()):
        raise Invalid(Violation("must be the epoch of a lease, such as 7", "Lease-Epoch"))
    return int(given)


def precondition() -> int | None:
    """The version in If-Match; raises Invalid for anything but one strong ETag of ours, `"7"`."""
    given = request.headers.get("If-Match")
    if given is None or given.strip() == "*":
        return None
    match = _ETAG.fullmatch(given.strip())
    if match is None:
        raise Invalid(Violation('must be a version in quotes, such as "7"', "If-Match"))
    return int(match[1])


def heeded(operation: str, method: str) -> dict[str, str]:
    """The headers that an operation heeds, and what each says."""
    key = UNLIKE_OTHERS.get(operation, KEY_SAYS) if method in KEYED else None
    others = {name: says for name, (says, operations) in SAYINGS.items() if operation in operations}
    return ({KEY: key} if key else {}) | others


def path_id(value: str, name: str) -> UUID:
    """An id from the address; raises NotFound where it is none."""
    try:
        return parse_uuid(value)
    except ValueError:
        raise NotFound(f"there is no {name.removesuffix('_id')} {value}") from None
