"""`python -m bench [--quick] [--json FILE]`: measure everything, or only the ratios to the yardsticks."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from bench import backlog, beats, bulk, pages, reads, singles, streams, usage, yardsticks
from bench.report import RATIOS, TARGETS, Report
from bench.stack import Stack, memory, stack
from bench.world import Fleet, fleet, tidy, violations

REPETITIONS = 3


@click.command()
@click.option("--quick", is_flag=True, help="Only the ratios to the yardsticks, in less than a minute.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Where to write all figures.")
def main(quick: bool, file: Path | None) -> None:
    """Measure; exit 1 where a target is missed or the books do not balance."""
    report, targets = Report(), RATIOS if quick else TARGETS
    with stack() as running:
        (_quick if quick else _everything)(running, report)
    met = report.show(targets)
    if file is not None:
        report.write(file, targets)
    sys.exit(0 if met else 1)


def _quick(stack: Stack, report: Report) -> None:
    with _part("yardsticks"):
        report.add(yardsticks.pgbench(stack, (16,)))
        report.add(yardsticks.plain(stack, 3, (2,)))
    small, large = fleet("small", 4_000), fleet("large", 30_000)
    with _part("ours"):
        with stack.workers(2), stack.web() as url:
            report.add(singles.throughput(stack, url, small, 3))
            report.add(bulk.lists(stack, url, small, 16))
        with stack.web() as url:
            for processes, verb in ((1, "pause"), (2, "resume")):
                report.add({f"alone, {processes}": bulk.alone(stack, url, large, verb, processes)})
    _check_books()


def _everything(stack: Stack, report: Report) -> None:
    with _part("yardsticks"):
        yardsticks.plain(stack, 2, (2,))  # warm-up
        for _ in range(REPETITIONS):
            report.add(yardsticks.pgbench(stack))
            report.add(yardsticks.plain(stack, 3))
    small, large = fleet("small", 10_000), fleet("large", 100_000)
    with _part("one by one"), stack.workers(2), stack.web() as url:
        singles.throughput(stack, url, small, 2)  # warm-up
        for _ in range(REPETITIONS):
            report.add(singles.throughput(stack, url, small, 4))
        report.add(singles.idle(stack, url, small, 100))
        for rate in (100, 300):
            report.add(singles.latency(stack, url, small, rate, 6))
        report.add(streams.listened(stack, url, small, 6))
    with _part("the console"), stack.workers(2), stack.web() as url:
        report.add(pages.pages(stack, url, large))
    _bulk(stack, report, small, large)
    _usage(stack, report, small)
    _beats(stack, report)
    _check_books()
    _million(stack, report)
    _check_books()


def _bulk(stack: Stack, report: Report, small: Fleet, large: Fleet) -> None:
    with _part("in bulk"), stack.workers(2), stack.web() as url:
        for _ in range(REPETITIONS):
            report.add(bulk.lists(stack, url, small, 24))
        for verb in ("pause", "resume", "pause"):
            tidy()
            report.add(bulk.by_filter(stack, url, large, verb))
        report.add(bulk.interactive(stack, url, small, large, "resume"))
    middle = fleet("middle", 40_000)  # for one process, which takes twice as long
    tidy()
    with _part("a backlog alone"), stack.web() as url:
        for verb in ("pause", "resume", "pause"):
            report.add({"alone, 1": bulk.alone(stack, url, middle, verb, 1)})
            report.add({"alone, 2": bulk.alone(stack, url, large, verb, 2)})


def _usage(stack: Stack, report: Report, small: Fleet) -> None:
    with _part("usage"), stack.workers(2), stack.web() as url:
        usage.counted(stack, url, small, 100, 10)  # warm-up
        for _ in range(REPETITIONS):
            report.add({"usage, one agent": usage.counted(stack, url, small, 1, 60)})
            report.add({"usage, spread": usage.counted(stack, url, small, small.size, 60)})


def _beats(stack: Stack, report: Report) -> None:
    agents = fleet("beating", beats.LEASED)
    with _part("beats"), stack.workers(2), stack.web() as url:
        leases = beats.grant(stack, url, agents)
        report.add(beats.idle(3))
        beats.one_by_one(url, agents, leases, 4)  # warm-up
        report.add(beats.one_by_one(url, agents, leases, 10))
        report.add(beats.together(stack, url, agents, leases, 10))
        with stack.web("bench.hollow:create_app()") as nowhere:
            beats.one_by_one(nowhere, agents, leases, 2)  # warm-up
            report.add(beats.hollow(nowhere, agents, leases, 6))


def _million(stack: Stack, report: Report) -> None:
    with _part("a million"):
        agents = fleet("million", 1_000_000)
        with stack.workers(2), stack.web() as url:
            report.add({f"memory, {name}, at the start": value for name, value in memory().items()})
            report.add(
                {f"backlog: {name}": value for name, value in backlog.drained(stack, url, agents, "pause").items()}
            )
            tidy()
            report.add(reads.reads(agents))
            report.add(reads.totals(agents))
            with backlog.old_snapshot():
                found = backlog.drained(stack, url, agents, "resume")
            report.add({f"backlog, snapshot: {name}": value for name, value in found.items()})
            report.add({f"memory, {name}, at the end": value for name, value in memory().items()})


@contextmanager
def _part(name: str) -> Iterator[None]:
    began = time.monotonic()
    print(f"{name}:", flush=True)
    yield
    print(f"  ({time.monotonic() - began:.0f} s)", flush=True)


def _check_books() -> None:
    found = violations()
    if found:
        raise SystemExit(f"the books do not balance: {found}")
    print("  the books balance", flush=True)


if __name__ == "__main__":
    main()
