"""What a campaign is to do."""

from dataclasses import dataclass

from tests.chaos.faults import ALL, KILLS, WITHOUT_BELLS


@dataclass(frozen=True)
class Plan:
    """What a campaign does, repeatable but for what the machine's own timing adds."""

    seed: int
    seconds: float
    kinds: tuple[str, ...] = tuple(ALL)
    least: int = 0
    """How often each kind must hit somebody."""
    kills: int = 0
    """How often a process must be killed at each failpoint, where that is more."""
    commands: int = 1
    """How many commands must be accepted."""
    planted: str | None = None
    patience: float = 60.0
    """Seconds in which all must be done, once all is quiet. What is not, the checks will find."""

    @property
    def wanted(self) -> dict[str, int]:
        """How often each kind must hit somebody; and the one with which each campaign ends."""
        return self.each | {WITHOUT_BELLS: 1}

    @property
    def each(self) -> dict[str, int]:
        """The same for those that come one after the other."""
        return {kind: max(self.least, self.kills if kind in KILLS else 0) for kind in self.kinds}
