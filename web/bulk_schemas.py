"""The shapes of answers to commands in bulk."""

from uuid import UUID

from orchestrator.states import State
from web.schemas import Shape


class ItemError(Shape):
    """Why an item was not accepted."""

    code: str
    message: str
    field: str | None


class BulkItem(Shape):
    """What became of one item, by its place in the list: a command, or what was wrong."""

    index: int
    command_id: UUID | None
    agent_id: UUID | None
    error: ItemError | None


class BulkAccepted(Shape):
    """What became of a list; `batch_id` leads to how far it has come."""

    batch_id: UUID
    accepted: int
    refused: int
    items: list[BulkItem]


class BatchSent(Shape):
    """How many agents were sent a command."""

    batch_id: UUID
    count: int


class Counted(Shape):
    """How many agents match."""

    count: int


class BatchProgress(Shape):
    """How far a batch has come: its commands by state; done when none is queued."""

    id: UUID
    total: int
    states: dict[State, int]
    done: bool
