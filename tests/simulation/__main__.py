"""``python -m tests.simulation``: explore for some seconds, or replay a seed.

explore [--seconds S] [--first SEED] [--schedules N]   run schedules; a failing one is made shorter and shown
replay SEED [--trace]                                  run the schedule of one seed
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback

from tests.simulation.explorer import Coverage, make_schedule, run_schedule, shorten


def explore(seconds: float, first: int, schedules: int | None) -> int:
    """Run schedules of one seed after another; the number of failures."""
    coverage, failures, begun, seed = Coverage(), 0, time.monotonic(), first
    while time.monotonic() - begun < seconds and (schedules is None or seed < first + schedules):
        try:
            run_schedule(seed, make_schedule(seed), coverage)
        except Exception as error:
            failures += 1
            short = shorten(seed, make_schedule(seed))
            print(f"seed={seed} fails: {type(error).__name__}: {str(error)[:1500]}")
            print(f"  shortened to {len(short)} steps: schedule={short}", flush=True)
        seed += 1
    took = time.monotonic() - begun
    print(coverage.report())
    print(f"{coverage.schedules / took:.1f} schedules per second, {failures} failures")
    return failures


def replay(seed: int, trace: bool) -> int:
    """Run the schedule of one seed."""
    try:
        text = run_schedule(seed, make_schedule(seed))
    except Exception:
        traceback.print_exc()
        return 1
    print(text if trace else f"seed={seed} holds")
    return 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    exploring = commands.add_parser("explore")
    exploring.add_argument("--seconds", type=float, default=60)
    exploring.add_argument("--first", type=int, default=0)
    exploring.add_argument("--schedules", type=int)
    replaying = commands.add_parser("replay")
    replaying.add_argument("seed", type=int)
    replaying.add_argument("--trace", action="store_true")
    chosen = parser.parse_args()
    if chosen.command == "replay":
        return replay(chosen.seed, chosen.trace)
    return min(explore(chosen.seconds, chosen.first, chosen.schedules), 1)


if __name__ == "__main__":
    sys.exit(main())
