"""What was measured: medians of the repetitions, against what is asked for, as a table and as JSON."""

import json
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil

from orchestrator import __version__

Figures = dict[str, float]


@dataclass(frozen=True)
class Target:
    """What a figure must be, worked out from all of them."""

    name: str
    figure: Callable[[Mapping[str, float]], float]
    least: float | None = None
    most: float | None = None

    def met(self, value: float) -> bool:
        """Whether it is."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    @property
    def wanted(self) -> str:
        """In words."""
        return f"≥ {self.least:,g}" if self.least is not None else f"≤ {self.most:,g}"


def _ratio(ours: str, theirs: str) -> Callable[[Mapping[str, float]], float]:
    return lambda found: found[ours] / found[theirs]


def _itself(name: str) -> Callable[[Mapping[str, float]], float]:
    return lambda found: found[name]


RATIOS = (
    Target("single commands / plain", _ratio("ours", "plain"), least=2),
    Target("bulk lists / plain", _ratio("bulk lists", "plain"), least=25),
    Target("drain alone, two workers / pgbench, 16 clients", _ratio("alone, 2", "pgbench, 16 clients"), least=4),
    Target("drain alone, two workers / one", _ratio("alone, 2", "alone, 1"), least=1.3),
)
TARGETS = (
    *RATIOS,
    Target("by filter, 100,000 accepted, s", _itself("by filter, accepted, s"), most=2),
    Target("by filter, 100,000 applied, s", _itself("by filter, applied, s"), most=10),
    Target("usage entries/s, spread", _itself("usage, spread"), least=15_000),
    Target("usage entries/s, one agent", _itself("usage, one agent"), least=15_000),
    Target("idle, request to applied, p50 ms", _itself("idle, request to applied, p50 ms"), most=15),
    Target("accepted → applied at 300/s, p50 ms", _itself("p50 at 300/s, ms"), most=10),
    Target("accepted → applied at 300/s, p99 ms", _itself("p99 at 300/s, ms"), most=50),
    Target("interactive beside 100,000, p99 ms", _itself("p99 beside a backlog, ms"), most=250),
    Target("1,000 beating agents, % of a core", _itself("1,000 beating agents, % of a core"), most=25),
    Target("a beat, p99 ms", _itself("a beat, p99 ms"), most=25),
    Target("1,000 beating together, % of a core", _itself("1,000 agents beating together, % of a core"), most=5),
    Target("an answer beside 200 streams, p99 ms", _itself("an answer beside 200 streams, p99 ms"), most=100),
    Target("events lost or doubled on 200 streams", _itself("events lost or doubled on 200 streams"), most=0),
    Target(
        "a page of the console at 100,000, p95 ms",
        lambda found: max(v for k, v in found.items() if k.startswith("console")),
        most=50,
    ),
    Target("first page at 1,000,000, p99 ms", _itself("first page, p99 ms"), most=20),
    Target("deep cursor at 1,000,000, p99 ms", _itself("deep cursor, p99 ms"), most=20),
    Target("metrics at 1,000,000, p99 ms", _itself("metrics, p99 ms"), most=20),
    Target("totals at 1,000,000, off by", lambda found: sum(v for k, v in found.items() if "off by" in k), most=0),
    Target("backlog of 1,000,000, last tenth / first", _itself("backlog: last tenth / first"), least=0.8),
    Target("the same with an old snapshot", _itself("backlog, snapshot: last tenth / first"), least=0.8),
    Target("a worker has grown by, MiB", lambda found: max(v for k, v in found.items() if "grown" in k), most=20),
)


@dataclass
class Report:
    """All figures, each with its repetitions."""

    runs: dict[str, list[float]] = field(default_factory=dict)

    def add(self, figures: Mapping[str, float]) -> None:
        """One more repetition of these."""
        for name, value in figures.items():
            self.runs.setdefault(name, []).append(value)
            print(f"  {name}: {value:,.4g}", flush=True)

    @property
    def medians(self) -> Figures:
        """The median of each figure's repetitions."""
        return {name: median(values) for name, values in self.runs.items()}

    def judge(self, targets: tuple[Target, ...]) -> list[tuple[str, float, str, bool]]:
        """Name, figure, what is asked for and whether it is met, of each target whose figures were measured."""
        found = self.medians
        return [(t.name, t.figure(found), t.wanted, t.met(t.figure(found))) for t in targets]

    def show(self, targets: tuple[Target, ...]) -> bool:
        """Print the table; whether every target is met."""
        rows = self.judge(targets)
        print(f"\n{machine()}\n")
        for name, value, wanted, met in rows:
            print(f"  {name:<50} {value:>12,.4g}   {wanted:<10} {'met' if met else 'NOT MET'}")
        return all(met for *_, met in rows)

    def write(self, path: Path, targets: tuple[Target, ...]) -> None:
        """Everything as JSON."""
        judged = [dict(zip(("name", "figure", "wanted", "met"), row, strict=True)) for row in self.judge(targets)]
        document = {"version": __version__, "machine": machine(), "targets": judged, "runs": self.runs}
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def machine() -> str:
    """Where this was measured."""
    memory = psutil.virtual_memory().total / 2**30
    kind = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {kind}"
