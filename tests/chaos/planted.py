"""The bugs that can be planted into a campaign, each with the check that is to find it."""

from tests.chaos import planting
from tests.chaos.planted_doors import BUGS as AT_THE_DOORS
from tests.chaos.planted_silent import BUGS as SILENT
from tests.chaos.planted_views import BUGS as OF_VIEWS
from tests.chaos.planted_workers import BUGS as OF_WORKERS
from tests.chaos.planting import Bug

BUGS: dict[str, Bug] = OF_WORKERS | AT_THE_DOORS | OF_VIEWS | SILENT


def plant(name: str) -> None:
    """From now on, in this process."""
    planting.plant(BUGS[name])
