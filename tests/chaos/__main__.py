"""`python -m tests.chaos`: campaigns of faults, and what the checks say of them.

The exit code is 1 where a promise was broken, 2 where not everything happened that should have.
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from tests.chaos import campaign, checks, floors, history, report
from tests.chaos.checks import Limited
from tests.chaos.evidence import gather
from tests.chaos.faults import ALL, WIPES
from tests.chaos.plan import Plan
from tests.chaos.planted import BUGS
from tests.chaos.planting import Bug
from tests.chaos.stack import LIMITED_PER_SECOND

LIMITED = (Limited("agent_metrics", LIMITED_PER_SECOND, 1.0, WIPES),)

PLANTED_SECONDS = 12.0
"""A bug must show within so long."""

CLEAN_SECONDS = 8.0
"""For so long things go wrong in a campaign without a bug, of whatever kind."""


@click.group(help=__doc__)
def main() -> None:
    """Campaigns."""


@main.command()
@click.option("--seed", type=int, help="Which campaign; another one each time where it is not given.")
@click.option("--minutes", type=float, default=3.5, show_default=True, help="For how long things go wrong.")
@click.option("--least", type=int, default=1, show_default=True, help="How often each fault must hit somebody.")
@click.option("--kills", type=int, default=1, show_default=True, help="How often a process must die at each failpoint.")
@click.option("--commands", type=int, default=10_000, show_default=True, help="How many must be accepted at least.")
@click.option("--only", multiple=True, type=click.Choice([*ALL]), help="Only these faults.")
@click.option("--keep", type=click.Path(path_type=Path), help="Leave the history in this folder.")
def run(seed: int | None, minutes: float, only: tuple[str, ...], keep: Path | None, **demanded: int) -> None:
    """One campaign, and its report."""
    seed = time.time_ns() % 10**6 if seed is None else seed
    plan = Plan(seed, 60 * minutes, only or tuple(ALL), **demanded)
    click.echo(f"seed {plan.seed}")
    with TemporaryDirectory(prefix="orch-chaos-") as temporary:
        folder = keep or Path(temporary)
        campaign.run(plan, folder)
        sys.exit(_judge(folder))


@main.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
def judge(folder: Path) -> None:
    """Judge a history that was kept, and whether as much happened as was to happen."""
    sys.exit(_judge(folder))


@main.command()
@click.argument("names", nargs=-1, type=click.Choice([*BUGS]))
@click.option("--clean", type=int, default=5, show_default=True, help="So many campaigns without a bug come first.")
def planted(names: tuple[str, ...], clean: int) -> None:
    """Plant each bug (or these), and see that the checks find it; and that they find nothing where there is none."""
    accused = [seed for seed in range(1, clean + 1) if _found_by(f"no bug, seed {seed}", Plan(seed, CLEAN_SECONDS))]
    unfound = [name for name in names or BUGS if not _finds(name, BUGS[name])]
    click.echo(
        f"accused without a bug: {len(accused)} of {clean}" if accused else f"nothing was found in {clean} clean"
    )
    click.echo(f"not found: {', '.join(unfound)}" if unfound else "all were found")
    sys.exit(bool(accused or unfound))


def _judge(folder: Path) -> int:
    if not history.is_whole(folder):
        click.echo("MISSED there is no whole history")
        return 2
    with checks.uncollected():
        evidence = gather(history.read(folder))
        found = checks.judge(evidence, LIMITED)
    for line in report.lines(evidence, found):
        click.echo(line)
    missed = floors.missed(evidence, *history.read_aim(folder))
    for sentence in missed:
        click.echo(f"MISSED {sentence}")
    return 1 if found else 2 if missed else 0


def _finds(name: str, bug: Bug) -> bool:
    return bug.found_by in _found_by(name, Plan(1, PLANTED_SECONDS, bug.faults, planted=name, patience=15))


def _found_by(name: str, plan: Plan) -> list[str]:
    """The checks that find something wrong with a campaign."""
    began = time.monotonic()
    with TemporaryDirectory(prefix="orch-chaos-") as folder:
        campaign.run(plan, Path(folder))
        by = sorted({violation.check for violation in checks.check(history.read(Path(folder)), LIMITED)})
    click.echo(f"{name}: {', '.join(by) or 'nothing'} ({time.monotonic() - began:.0f} s)")
    return by


if __name__ == "__main__":
    main()
