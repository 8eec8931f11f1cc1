"""What each verb may carry: one validated order per verb, in one table."""

from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, model_validator

from orchestrator.fields import LAX, NOT_NULL, Body, Id, Memory, Name, Owner, Reason, Reference, Session, Task, Time
from orchestrator.holds import MANUAL
from orchestrator.lifecycle import Status, Verb
from orchestrator.stops import Mode

Deadline = Annotated[int, Field(ge=1, le=86_400)]
"""Seconds until a stop becomes an immediate one."""


class Order(Body):
    """What a caller asks of one agent. `reason` goes to the event, the rest is the verb's payload."""

    verb: ClassVar[Verb]
    reason: Reason | None = None

    def payload(self) -> dict[str, Any]:
        """The fields that were given, as JSON; what the drain will read."""
        return self.model_dump(mode="json", exclude_unset=True, exclude={"reason"})

    @property
    def fences(self) -> bool:
        """Whether its acceptance ends the agent's lease."""
        return False


class _Bare(Order):
    """An order that needs no body at all."""

    model_config = ConfigDict(openapi_extra={"required": False})  # type: ignore[typeddict-unknown-key]

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_fine(cls, value: Any) -> Any:
        return {} if value is None else value


class _Stop(_Bare):
    """What pause and terminate share: how soon the process must stand still, and after how many seconds the stop
    becomes an immediate one."""

    mode: Annotated[Mode, LAX] = Mode.CHECKPOINT
    deadline: Deadline | None = None

    @property
    def fences(self) -> bool:
        return self.mode is Mode.IMMEDIATE


class Pause(_Stop):
    """Stop an agent: put a hold of this owner on it, until it is lifted or its time is over."""

    verb = Verb.PAUSE

    owner: Owner = MANUAL
    until: Time | None = None


class Resume(_Bare):
    """Lift this owner's hold; where it was the last one the agent goes on, as idle."""

    verb = Verb.RESUME

    owner: Owner = MANUAL


class Terminate(_Stop):
    """End an agent for good."""

    verb = Verb.TERMINATE


class Spawn(Order):
    """Bring an agent to life, as idle."""

    verb = Verb.SPAWN
    model_config = ConfigDict(json_schema_extra={"example": {"agent_type_id": "…", "name": "scout-03"}})

    agent_type_id: Id
    name: Name
    project_id: Id | None = None
    current_task: Task | None = None
    short_term_memory: Memory | None = None
    long_term_memory_ref: Reference | None = None
    session_id: Session | None = None
    unique_name: bool = False

    def payload(self) -> dict[str, Any]:
        """What the agent is born with."""
        return self.model_dump(mode="json", exclude_none=True, exclude={"reason", "project_id", "unique_name"})


class Update(Order):
    """Change an agent's fields, its status among them; what is not named stays."""

    verb = Verb.UPDATE

    status: Annotated[Status | None, LAX, NOT_NULL] = None
    name: Annotated[Name | None, NOT_NULL] = None
    current_task: Task | None = None
    short_term_memory: Memory | None = None
    long_term_memory_ref: Reference | None = None
    session_id: Session | None = None


ORDERS: dict[Verb, type[Order]] = {kind.verb: kind for kind in (Spawn, Update, Pause, Resume, Terminate)}
