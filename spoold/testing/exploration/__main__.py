"""``spoold-sim``: explore the daemon in simulated worlds, or replay what was found."""

from __future__ import annotations

import os
import sys
import traceback

import click

from spoold.testing.exploration.explorer import Plan, explore_on
from spoold.testing.exploration.schedules import make_schedule, read, run_schedule


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Random clients against the daemon in a simulated world in which a seed decides everything."""


@main.command("explore")
@click.option("--seconds", type=float, default=60, show_default=True, help="Begin nothing after so long.")
@click.option("--first", type=int, default=0, show_default=True, help="The first seed.")
@click.option("--schedules", type=int, help="At most so many.")
@click.option("--enough", type=click.IntRange(1), help="Stop after so many failures (in each process).")
@click.option("--jobs", type=click.IntRange(1), help="Processes; as many as there are processors.")
def explore_command(
    seconds: float, first: int, schedules: int | None, enough: int | None, jobs: int | None
) -> None:
    """Run the schedules of one seed after another; one that breaks a rule is made shorter and shown."""
    plan = Plan(first, schedules=schedules, seconds=seconds, enough=enough)
    findings = explore_on(jobs or os.cpu_count() or 1, plan)
    click.echo(findings.coverage.report())
    rate = findings.coverage.schedules / findings.seconds
    click.echo(f"{rate:.1f} schedules per second, {len(findings.failures)} failures")
    sys.exit(1 if findings.failures else 0)


@main.command()
@click.argument("seed", type=int)
@click.option("--schedule", metavar="STEPS", help="Instead of the seed's own schedule: one that was shown.")
@click.option("--trace", is_flag=True, help="Print everything that happens.")
def replay(seed: int, schedule: str | None, trace: bool) -> None:
    """Run the schedule of one seed again."""
    try:
        steps = make_schedule(seed) if schedule is None else read(schedule)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--schedule") from None
    try:
        text = run_schedule(seed, steps)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    click.echo(text if trace else f"seed={seed} holds")


if __name__ == "__main__":
    main()
