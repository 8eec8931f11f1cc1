"""The operations on a project's agents; the first argument of each is the project's id."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from orchestrator.sdk import shapes
from orchestrator.sdk.calls import Call
from orchestrator.sdk.documents import LONGEST_WAIT, Listing, get, listing, plain, send
from orchestrator.sdk.following import Following


def spawn(
    project_id: str,
    /,
    name: str,
    *,
    agent_type_id: str,
    current_task: str | None = None,
    short_term_memory: dict[str, Any] | None = None,
    long_term_memory_ref: str | None = None,
    session_id: str | None = None,
    unique_name: bool | None = None,
    reason: str | None = None,
) -> Call[shapes.Command]:
    """Bring an agent to life; the id is in the command at once."""
    return send(
        "POST",
        f"/projects/{project_id}/agents",
        shapes.Command,
        name=name,
        agent_type_id=agent_type_id,
        current_task=current_task,
        short_term_memory=short_term_memory,
        long_term_memory_ref=long_term_memory_ref,
        session_id=session_id,
        unique_name=unique_name,
        reason=reason,
    )


def list_agents(
    project_id: str,
    /,
    *,
    status: str | None = None,
    type: str | None = None,  # noqa: A002  # the field's word
    q: str | None = None,
) -> Listing[shapes.Agent]:
    """The project's agents, newest first."""
    return listing(f"/projects/{project_id}/agents", shapes.Agent, status=status, type=type, q=q)


def get_agent(project_id: str, /, agent_id: str) -> Call[shapes.Agent]:
    """One agent."""
    return get(f"/projects/{project_id}/agents/{agent_id}", shapes.Agent)


def update(project_id: str, /, agent_id: str, *, if_version: int | None = None, **fields: Any) -> Call[shapes.Command]:
    """Change an agent's fields: status, name, current_task, short_term_memory, long_term_memory_ref, session_id; None
    clears one. With `reason`, and only if it has the version named."""
    path, headers = f"/projects/{project_id}/agents/{agent_id}", _if_match(if_version)
    return Call("PATCH", path, lambda document: shapes.Command(**document), fields, headers=headers)


def pause(
    project_id: str,
    /,
    agent_id: str,
    *,
    reason: str | None = None,
    owner: str | None = None,
    until: datetime | None = None,
    mode: str | None = None,
    deadline: int | None = None,
) -> Call[shapes.Command]:
    """Stop an agent: `mode` is drain, checkpoint or immediate; at `deadline` (seconds) its process is fenced."""
    path = f"/projects/{project_id}/agents/{agent_id}/pause"
    return send("POST", path, shapes.Command, reason=reason, owner=owner, until=until, mode=mode, deadline=deadline)


def resume(
    project_id: str, /, agent_id: str, *, reason: str | None = None, owner: str | None = None
) -> Call[shapes.Command]:
    """Lift one owner's hold."""
    return send("POST", f"/projects/{project_id}/agents/{agent_id}/resume", shapes.Command, reason=reason, owner=owner)


def terminate(
    project_id: str,
    /,
    agent_id: str,
    *,
    reason: str | None = None,
    mode: str | None = None,
    deadline: int | None = None,
) -> Call[shapes.Command]:
    """End an agent for good."""
    path = f"/projects/{project_id}/agents/{agent_id}"
    return send("DELETE", path, shapes.Command, reason=reason, mode=mode, deadline=deadline)


def explain(project_id: str, /, agent_id: str) -> Call[dict[str, Any]]:
    """Why an agent is not working right now, and what would change it."""
    return get(f"/projects/{project_id}/agents/{agent_id}/explain", dict)


def agent_metrics(project_id: str, /, agent_id: str) -> Call[shapes.Metrics]:
    """One agent's sums."""
    return get(f"/projects/{project_id}/agents/{agent_id}/metrics", shapes.Metrics)


def metrics(project_id: str, /) -> Call[shapes.Metrics]:
    """Sums over the project's agents."""
    return get(f"/projects/{project_id}/agents/metrics", shapes.Metrics)


def history(project_id: str, /, agent_id: str) -> Listing[shapes.Event]:
    """What happened to an agent, oldest first."""
    return listing(f"/projects/{project_id}/agents/{agent_id}/events", shapes.Event, cursor="after_version")


def events(
    project_id: str, /, *, agent_id: str | None = None, verb: str | None = None, status: str | None = None
) -> Listing[shapes.Event]:
    """What happened in the project, oldest first: to an agent, by a verb, with a status as its end."""
    path = f"/projects/{project_id}/events"
    return listing(path, shapes.Event, cursor="after", agent_id=agent_id, verb=verb, status=status)


def follow(
    project_id: str,
    /,
    *,
    after: str | None = None,
    agent_id: str | None = None,
    verb: str | None = None,
    status: str | None = None,
) -> Following:
    """What happens in the project, as it happens: from now on, or from an event's cursor on."""
    params = {"agent_id": agent_id, "verb": verb, "status": status}
    return Following(f"/projects/{project_id}/events", params, after)


def get_command(
    project_id: str, /, command_id: str, *, wait: float = 0, until: str | None = None
) -> Call[shapes.Command]:
    """One command; held by the server, for at most `wait` seconds, until it is closed (or `until="quiesced"`)."""
    path = f"/projects/{project_id}/commands/{command_id}"
    wait = min(wait, LONGEST_WAIT)
    return Call("GET", path, lambda document: shapes.Command(**document), params={"until": until}, wait=wait)


def list_commands(
    project_id: str, /, *, state: str | None = None, verb: str | None = None, agent_id: str | None = None
) -> Listing[shapes.Command]:
    """The project's commands, newest first."""
    path = f"/projects/{project_id}/commands"
    return listing(path, shapes.Command, state=state, verb=verb, agent_id=agent_id)


def cancel(project_id: str, /, command_id: str) -> Call[shapes.Command]:
    """Take a queued command back."""
    return send("POST", f"/projects/{project_id}/commands/{command_id}/cancel", shapes.Command)


def report(project_id: str, /, entries: Sequence[dict[str, Any]]) -> Call[shapes.UsageTaken]:
    """Usage of any agents of the project: each entry names its `agent_id` and has a `report_id` of its own."""
    return send("POST", f"/projects/{project_id}/usage", shapes.UsageTaken, entries=list(entries))


def usage(
    project_id: str, /, *, group_by: str = "model", since: datetime | None = None, until: datetime | None = None
) -> Call[list[shapes.UsageGroup]]:
    """Counted usage, summed by model, agent, agent_type, hour or day."""
    params = {"group_by": group_by, "since": plain(since), "until": plain(until)}
    path = f"/projects/{project_id}/usage"
    return Call("GET", path, lambda found: [shapes.UsageGroup(**group) for group in found["data"]], params=params)


def _if_match(version: int | None) -> dict[str, str]:
    return {} if version is None else {"If-Match": f'"{version}"'}
