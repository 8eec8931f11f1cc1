"""What an address and a query may hold: the paths and the query parameters of all routes."""

from functools import cache
from typing import Annotated, Any, Literal

from flask import request
from pydantic import AfterValidator, BaseModel, Field, model_validator

from orchestrator.errors import Invalid, Violation
from orchestrator.fields import LAX, Id, Time, wrong
from orchestrator.lifecycle import COMMANDS, SYSTEM_COMMANDS, Status, Verb
from orchestrator.states import IssueStatus, State


class ProjectPath(BaseModel):
    """The project in the address."""

    project_id: Id


class AgentPath(ProjectPath):
    """Project and agent in the address."""

    agent_id: Id


class CommandPath(ProjectPath):
    """Project and command in the address."""

    command_id: Id


class BatchPath(ProjectPath):
    """Project and batch in the address."""

    batch_id: Id


class IssuePath(ProjectPath):
    """Project and issue in the address."""

    issue_id: Id


class UserPath(BaseModel):
    """The user in the address."""

    user_id: Id


class KeyPath(BaseModel):
    """The key in the address."""

    key_id: Id


class TypePath(BaseModel):
    """The agent type in the address."""

    type_id: Id


class Query(BaseModel):
    """Query parameters: unknown ones are ignored, a known one is given once and not empty."""

    @model_validator(mode="before")
    @classmethod
    def _once_and_not_empty(cls, given: dict[str, Any]) -> dict[str, Any]:
        for name in cls.model_fields:
            values = request.args.getlist(name)
            if len(values) > 1:
                raise Invalid(Violation("must be given at most once", name))
            if values == [""]:
                raise Invalid(Violation("must not be empty; leave it out", name))
            if "\0" in "".join(values):
                raise Invalid(Violation("must not contain a NUL character", name))
        return given

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The same schema, made once: the framework asks for it at every request."""
        return _schema_of(cls) if not (args or kwargs) else super().model_json_schema(*args, **kwargs)


@cache
def _schema_of(query: type[Query]) -> dict[str, Any]:
    return super(Query, query).model_json_schema()


Limit = Annotated[int, Field(ge=1, le=100)]
Text = Annotated[str, Field(max_length=1000)]


class StageQuery(Query):
    """Which stage of a stop is waited for: that it is applied, or that the agent's process stands still as well."""

    until: Literal["applied", "quiesced"] = "applied"


class ListQuery(Query):
    """A page by cursor."""

    cursor: Text | None = None
    limit: Limit = 20


class AgentQuery(ListQuery):
    """A page of agents, by number or by cursor, and which."""

    page: Annotated[int, Field(ge=1)] = 1
    status: Annotated[Status | None, LAX] = None
    type: Text | None = None
    q: Annotated[str | None, Field(max_length=100)] = None


def _sendable(verb: Verb | None) -> Verb | None:
    if verb is not None and verb not in (*COMMANDS, *SYSTEM_COMMANDS):
        raise wrong(f"must be one of {', '.join((*COMMANDS, *SYSTEM_COMMANDS))}")
    return verb


class CommandQuery(ListQuery):
    """A page of commands, and which."""

    state: Annotated[State | None, LAX] = None
    agent_id: Id | None = None
    batch_id: Id | None = None
    verb: Annotated[Verb | None, LAX, AfterValidator(_sendable)] = None


class KeyQuery(ListQuery):
    """A page of keys; a superuser may ask for another user's."""

    user_id: Id | None = None


class IssueQuery(ListQuery):
    """A page of work items, and which."""

    status: Annotated[IssueStatus | None, LAX] = None
    assigned_agent_id: Id | None = None


class AgentEventQuery(Query):
    """An agent's events after a version."""

    after_version: Annotated[int, Field(ge=0, lt=2**63)] = 0
    limit: Limit = 20


class EventQuery(Query):
    """Events after a cursor, and which: of an agent, with a verb, that left the agent in a status."""

    after: Text | None = None
    limit: Limit = 20
    agent_id: Id | None = None
    verb: Annotated[Verb | None, LAX] = None
    status: Annotated[Status | None, LAX] = None


class UsageQuery(Query):
    """What to sum by, and over which time."""

    group_by: Literal["model", "agent", "agent_type", "hour", "day"] = "model"
    since: Time | None = None
    until: Time | None = None
