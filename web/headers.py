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
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _KEY.fullmatch(key):
        raise Invalid(Violation("must be 1 to 255 printable ASCII characters", "Idempotency-Key"))
    return key


def refuse_key(why: str) -> None:
    """Raises Invalid where there is a key that could not be honoured, since `why`."""
    if "Idempotency-Key" in request.headers:
        raise Invalid(Violation(f"is not taken here: {why}", "Idempotency-Key"))


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


def path_id(value: str, name: str) -> UUID:
    """An id from the address; raises NotFound where it is none."""
    try:
        return parse_uuid(value)
    except ValueError:
        raise NotFound(f"there is no {name.removesuffix('_id')} {value}") from None
