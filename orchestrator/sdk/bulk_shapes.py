"""What the API answers to commands in bulk."""

from orchestrator.sdk.shapes import Shape


class ItemError(Shape):
    """Why an item of a list was not accepted."""

    code: str
    message: str
    field: str | None


class BulkItem(Shape):
    """What became of one item of a list."""

    index: int
    command_id: str | None
    agent_id: str | None
    error: ItemError | None


class BulkAccepted(Shape):
    """What became of a list of commands."""

    batch_id: str
    accepted: int
    refused: int
    items: list[BulkItem]


class BatchSent(Shape):
    """How many agents were sent a command."""

    batch_id: str
    count: int


class BatchProgress(Shape):
    """How far a batch has come: its commands by state."""

    id: str
    total: int
    states: dict[str, int]
    done: bool
