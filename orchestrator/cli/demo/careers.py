"""What the simulated agents go through: the same for the same seed, and every kind of step for every type of agent."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Any

KINDS = ("researcher", "coder", "reviewer")

CAREERS = (
    "work report wait report resume!",
    "work report wait work report",
    "work report rest work report kill work report",
    "work report pause report resume",
    "work report pause pause! resume deaf stop report",
    "work wait report pause resume work report rest",
    "work report terminate report",
    "pause resume work report pause terminate resume!",
)
"""Steps; one with a ! must be refused. So few that the default limits delay a demo by about a minute, no more."""

TASKS = ("read the papers", "fix the flaky test", "review the change", "draft the summary", "sort the inbox")
MODELS = (("anvil", "anvil-large"), ("anvil", "anvil-small"), ("brook", "brook-2"))

TWICE = 0.15
"""How often a request is sent again as if its answer had been lost."""


@dataclass(frozen=True)
class Role:
    """One agent's part: its name, its type, its steps, and its own source of chance."""

    name: str
    kind: str
    steps: Sequence[str]
    chance: Random

    def task(self) -> str:
        """Something to work on."""
        return self.chance.choice(TASKS)

    def twice(self) -> bool:
        """Whether to send a request again."""
        return self.chance.random() < TWICE

    def pause(self) -> float:
        """Seconds to think before the next step."""
        return self.chance.uniform(0.02, 0.2)

    def entries(self, first: int) -> list[dict[str, Any]]:
        """Usage of a few model calls, numbered from `first`."""
        return [self._entry(first + i) for i in range(self.chance.randint(1, 4))]

    def _entry(self, number: int) -> dict[str, Any]:
        provider, model = self.chance.choice(MODELS)
        return {
            "report_id": f"{self.name}/{number}",
            "provider": provider,
            "model": model,
            "input_tokens": self.chance.randint(0, 20_000),
            "output_tokens": self.chance.randint(0, 4_000),
            "cache_read_tokens": self.chance.randint(0, 1_000),
            "cost": self._cost(),
            "tasks_completed": self.chance.choice((0, 0, 1)),
        }

    def _cost(self) -> str:
        """At most a dollar, in as many decimals as a price may have."""
        decimals = self.chance.choice((2, 6, 10))
        return f"{Decimal(self.chance.randint(1, 10**decimals)).scaleb(-decimals):f}"


def cast(seed: int) -> list[Role]:
    """Everybody's part, in an order of the seed's making."""
    parts = [(kind, number, career) for number, career in enumerate(CAREERS, 1) for kind in KINDS]
    Random(seed).shuffle(parts)  # noqa: S311  # chance that can be repeated is what is wanted
    return [
        Role(f"{kind}-{number}", kind, career.split(), Random(f"{seed}/{kind}/{number}"))  # noqa: S311
        for kind, number, career in parts
    ]
