"""What a shift has done: counted for Flower, told to those who wait, and logged."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from uuid import UUID

from orchestrator import logs
from orchestrator.decide import Outcome
from orchestrator.drain import Batch
from orchestrator.link import CLOSED_CHANNEL, tell

log = logs.logger("worker")


class Report:
    """The report of one shift."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter(applied=0, rejected=0, dead=0, folded=0, batches=0)

    def committed(self, batch: Batch) -> None:
        """What this batch did is done."""
        if batch.empty:
            return
        tell(CLOSED_CHANNEL, [*batch.closed, *batch.claim.usage])
        self.done["batches"] += 1
        self.done["folded"] += batch.folded
        self.done.update(outcome.state.value for outcome in batch.outcomes)
        _log(batch.outcomes)

    def buried(self, command_id: UUID) -> None:
        """This command was given up."""
        self.done["dead"] += 1
        log.error("command_closed", command_id=str(command_id), state="dead")
        tell(CLOSED_CHANNEL, [command_id])


def _log(outcomes: Iterable[Outcome]) -> None:
    """A line for each command, and one for all that came in bulk: a line takes as long as a third of a command."""
    in_bulk: dict[str, list[UUID]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.command.batch_id is None:
            log.info("command_closed", command_id=str(outcome.command.id), state=outcome.state.value)
        else:
            in_bulk[outcome.state.value].append(outcome.command.id)
    for state, ids in in_bulk.items():
        log.info("commands_closed", state=state, command_ids=[str(id_) for id_ in ids])
