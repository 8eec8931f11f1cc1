"""Projects, agent types and work items."""

from typing import Annotated

from flask import Response, g
from flask_openapi3 import APIBlueprint, Tag

from orchestrator import access, directory
from orchestrator.db import autocommit, begin
from orchestrator.fields import LAX, NOT_NULL, Body, Id, Name, Prose, Slug, Title
from orchestrator.models import agent_types, issues, projects
from orchestrator.states import IssueStatus, ProjectStatus
from web import answers, gate, headers, params
from web import directory_schemas as schemas
from web.docs import OPERATION_ID, responses

bp = APIBlueprint(
    "projects",
    __name__,
    url_prefix=gate.PREFIX,
    abp_tags=[Tag(name="projects", description="Projects, agent types and work items.")],
    operation_id_callback=OPERATION_ID,
)


class NewProject(Body):
    """A project to be made."""

    name: Name
    slug: Slug | None = None
    owner_id: Id | None = None


class ProjectChanges(Body):
    """What can be changed about a project."""

    name: Annotated[Name | None, NOT_NULL] = None
    status: Annotated[ProjectStatus | None, LAX, NOT_NULL] = None
    owner_id: Annotated[Id | None, NOT_NULL] = None


class NewAgentType(Body):
    """An agent type to be made."""

    name: Name
    slug: Slug | None = None
    is_active: bool = True


class AgentTypeChanges(Body):
    """What can be changed about an agent type."""

    name: Annotated[Name | None, NOT_NULL] = None
    is_active: Annotated[bool | None, NOT_NULL] = None


class NewIssue(Body):
    """A work item to be made."""

    title: Title
    body: Prose | None = None
    status: Annotated[IssueStatus, LAX] = IssueStatus.OPEN
    assigned_agent_id: Id | None = None


class IssueChanges(Body):
    """What can be changed about a work item."""

    title: Annotated[Title | None, NOT_NULL] = None
    body: Prose | None = None
    status: Annotated[IssueStatus | None, LAX, NOT_NULL] = None
    assigned_agent_id: Id | None = None


@bp.post("/projects", responses=responses({201: schemas.Project}, 409, 422))
def create_project(body: NewProject) -> Response:
    """A new project, the caller's own."""
    once = headers.once(body.model_dump(mode="json"))
    with begin() as db:
        row, replayed = directory.create_project(db, g.caller, once, body.model_dump())
    return answers.replayable(answers.reply(schemas.Project.model_validate(row), 201), replayed)


@bp.get("/projects", responses=responses({200: schemas.ProjectPage}, 422))
def list_projects(query: params.ListQuery) -> Response:
    """The projects the caller may see."""
    condition = directory.own_projects(g.caller)
    with autocommit() as db:
        return answers.page(schemas.ProjectPage, *directory.listed(db, projects, condition, query.cursor, query.limit))


@bp.get("/projects/<project_id>", responses=responses({200: schemas.Project}, 404))
def get_project(path: params.ProjectPath) -> Response:
    """One project."""
    with autocommit() as db:
        return answers.reply(schemas.Project.model_validate(access.enter(db, g.caller, path.project_id)))


@bp.patch("/projects/<project_id>", responses=responses({200: schemas.Project}, 404, 422))
def change_project(path: params.ProjectPath, body: ProjectChanges) -> Response:
    """Rename, archive, or hand over a project."""
    once = headers.once(body.model_dump(mode="json", exclude_unset=True))
    with begin() as db:
        row, replayed = directory.change_project(
            db, g.caller, once, path.project_id, body.model_dump(exclude_unset=True)
        )
    return answers.replayable(answers.reply(schemas.Project.model_validate(row)), replayed)


@bp.post("/agent-types", responses=responses({201: schemas.AgentType}, 409, 422))
def create_agent_type(body: NewAgentType) -> Response:
    """A new agent type; a superuser's business."""
    once = headers.once(body.model_dump(mode="json"))
    with begin() as db:
        row, replayed = directory.create_type(db, g.caller, once, body.model_dump())
    return answers.replayable(answers.reply(schemas.AgentType.model_validate(row), 201), replayed)


@bp.get("/agent-types", responses=responses({200: schemas.AgentTypePage}, 422))
def list_agent_types(query: params.ListQuery) -> Response:
    """All agent types."""
    with autocommit() as db:
        return answers.page(schemas.AgentTypePage, *directory.listed(db, agent_types, True, query.cursor, query.limit))


@bp.get("/agent-types/<type_id>", responses=responses({200: schemas.AgentType}, 404))
def get_agent_type(path: params.TypePath) -> Response:
    """One agent type."""
    with autocommit() as db:
        return answers.reply(schemas.AgentType.model_validate(directory.agent_type(db, path.type_id)))


@bp.patch("/agent-types/<type_id>", responses=responses({200: schemas.AgentType}, 404, 422))
def change_agent_type(path: params.TypePath, body: AgentTypeChanges) -> Response:
    """Rename an agent type, or close it to new agents; a superuser's business."""
    once = headers.once(body.model_dump(mode="json", exclude_unset=True))
    with begin() as db:
        row, replayed = directory.change_type(db, g.caller, once, path.type_id, body.model_dump(exclude_unset=True))
    return answers.replayable(answers.reply(schemas.AgentType.model_validate(row)), replayed)


@bp.post("/projects/<project_id>/issues", responses=responses({201: schemas.Issue}, 404, 422))
def create_issue(path: params.ProjectPath, body: NewIssue) -> Response:
    """A new work item."""
    once = headers.once(body.model_dump(mode="json"))
    with begin() as db:
        row, replayed = directory.create_issue(db, g.caller, once, path.project_id, body.model_dump())
    return answers.replayable(answers.reply(schemas.Issue.model_validate(row), 201), replayed)


@bp.get("/projects/<project_id>/issues", responses=responses({200: schemas.IssuePage}, 404, 422))
def list_issues(path: params.ProjectPath, query: params.IssueQuery) -> Response:
    """The project's work items."""
    condition = issues.c.project_id == path.project_id
    if query.status is not None:
        condition &= issues.c.status == query.status
    if query.assigned_agent_id is not None:
        condition &= issues.c.assigned_agent_id == query.assigned_agent_id
    with autocommit() as db:
        access.enter(db, g.caller, path.project_id)
        return answers.page(schemas.IssuePage, *directory.listed(db, issues, condition, query.cursor, query.limit))


@bp.get("/projects/<project_id>/issues/<issue_id>", responses=responses({200: schemas.Issue}, 404))
def get_issue(path: params.IssuePath) -> Response:
    """One work item."""
    with autocommit() as db:
        row = directory.issue(db, g.caller, path.project_id, path.issue_id)
    return answers.reply(schemas.Issue.model_validate(row))


@bp.patch("/projects/<project_id>/issues/<issue_id>", responses=responses({200: schemas.Issue}, 404, 422))
def change_issue(path: params.IssuePath, body: IssueChanges) -> Response:
    """Change a work item, its assignment among the rest."""
    once = headers.once(body.model_dump(mode="json", exclude_unset=True))
    with begin() as db:
        row, replayed = directory.change_issue(
            db, g.caller, once, path.project_id, path.issue_id, body.model_dump(exclude_unset=True)
        )
    return answers.replayable(answers.reply(schemas.Issue.model_validate(row)), replayed)
