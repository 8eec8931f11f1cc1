"""The operations on a project's work items; the first argument of each is the project's id."""

from typing import Any

from orchestrator.sdk import shapes
from orchestrator.sdk.calls import Call
from orchestrator.sdk.documents import Listing, get, listing, send


def list_issues(
    project_id: str, /, *, status: str | None = None, assigned_agent_id: str | None = None
) -> Listing[shapes.Issue]:
    """The project's work items."""
    path = f"/projects/{project_id}/issues"
    return listing(path, shapes.Issue, status=status, assigned_agent_id=assigned_agent_id)


def create_issue(project_id: str, /, title: str, **fields: Any) -> Call[shapes.Issue]:
    """A new work item; fields are body, status and assigned_agent_id."""
    return send("POST", f"/projects/{project_id}/issues", shapes.Issue, title=title, **fields)


def get_issue(project_id: str, /, issue_id: str) -> Call[shapes.Issue]:
    """One work item."""
    return get(f"/projects/{project_id}/issues/{issue_id}", shapes.Issue)


def change_issue(project_id: str, /, issue_id: str, **fields: Any) -> Call[shapes.Issue]:
    """Change a work item's title, body, status or assigned_agent_id; None clears the last."""
    path = f"/projects/{project_id}/issues/{issue_id}"
    return Call("PATCH", path, lambda document: shapes.Issue(**document), fields)
