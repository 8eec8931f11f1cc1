"""The operations on many of a project's agents at once; the first argument of each is the project's id."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from orchestrator.sdk.bulk_shapes import BatchProgress, BatchSent, BulkAccepted
from orchestrator.sdk.calls import Call
from orchestrator.sdk.documents import get, plain, send

MANY_SECONDS = 90.0
"""How long it may take to accept a command for each of a million agents."""


def send_commands(project_id: str, /, commands: Sequence[dict[str, Any]]) -> Call[BulkAccepted]:
    """Up to 1,000 commands, each with its `verb`, `agent_id` (but for a spawn) and what the verb takes; one that is
    wrong is refused alone."""
    given = [{name: plain(value) for name, value in command.items()} for command in commands]
    return send("POST", f"/projects/{project_id}/commands", BulkAccepted, commands=given)


def send_matching(
    project_id: str,
    /,
    verb: str,
    *,
    status: str | None = None,
    type: str | None = None,  # noqa: A002  # the field's word
    q: str | None = None,
    batch: str | None = None,
    reason: str | None = None,
    expect_count: int | None = None,
    owner: str | None = None,
    until: datetime | None = None,
    mode: str | None = None,
    deadline: int | None = None,
) -> Call[BatchSent]:
    """pause, resume or terminate each living agent that matches; of a `batch`, those that it was applied to. Terminate
    demands `expect_count`: where it is another number, nothing is sent."""
    order = {"reason": reason, "owner": owner, "until": plain(until), "mode": mode, "deadline": deadline}
    body = _given({"verb": verb, "filter": _filter(status, type, q, batch), "expect_count": expect_count, **order})
    path = f"/projects/{project_id}/commands/by-filter"
    return Call("POST", path, lambda found: BatchSent(**found), body, patience=MANY_SECONDS)


def count_matching(
    project_id: str,
    /,
    verb: str,
    *,
    status: str | None = None,
    type: str | None = None,  # noqa: A002  # the field's word
    q: str | None = None,
    batch: str | None = None,
) -> Call[int]:
    """How many living agents match: a dry run of `send_matching`."""
    body = {"verb": verb, "filter": _filter(status, type, q, batch), "dry_run": True}
    return Call("POST", f"/projects/{project_id}/commands/by-filter", lambda found: int(found["count"]), body)


def get_batch(project_id: str, /, batch_id: str) -> Call[BatchProgress]:
    """How far a batch has come."""
    return get(f"/projects/{project_id}/batches/{batch_id}", BatchProgress)


def _filter(status: str | None, kind: str | None, q: str | None, batch: str | None) -> dict[str, Any]:
    return _given({"status": status, "type": kind, "q": q, "batch": batch})


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
