"""``python -m benchmarks``: spoold beside the reference server, in one run, taking turns.

The exit code says whether it could be measured, not whether a target was met; that stands in the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import trio

from benchmarks.measure_list import thread_list
from benchmarks.measure_memory import memory
from benchmarks.measure_queue import long_queues, queued_turns
from benchmarks.measure_start import cold_start, thread_start
from benchmarks.measure_turns import burst, many_threads, round_trip
from benchmarks.processes import CpuClock
from benchmarks.reference import VERSION, NoReference, install_reference
from benchmarks.report import Row, table
from benchmarks.servers import Bench, Program, reference_program, scripted_model, spoold_program

MEASURES: dict[str, Callable[[Bench], Awaitable[list[Row]]]] = {
    "start": cold_start,
    "thread": thread_start,
    "turn": round_trip,
    "threads": many_threads,
    "burst": burst,
    "memory": memory,
    "list": thread_list,
    "queue": queued_turns,
    "long-queue": long_queues,
}

_DISTURBED = 0.1
"""Share of the machine; more than that in other programs' hands is said to disturb."""


async def _measure(programs: list[Program], names: list[str], folder: Path, quick: bool) -> list[Row]:
    rows: list[Row] = []
    async with scripted_model() as model_url:
        for name in names:
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            rows += await MEASURES[name](Bench(programs, folder / name, model_url, quick))
    return rows


def _machine() -> dict[str, Any]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=MEASURES, metavar="NAME", help=", ".join(MEASURES))
    parser.add_argument("--quick", action="store_true", help="fewer repetitions; figures that tell less")
    parser.add_argument("--alone", action="store_true", help="leave the reference out: no ratios")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    options = parser.parse_args()

    programs = [spoold_program()]
    if not options.alone:
        try:
            programs.append(reference_program(install_reference()))
        except NoReference as error:
            print(f"Error: no reference server: {error} (--alone measures without it)", file=sys.stderr)
            return 1
    machine = _machine()
    names = options.only or list(MEASURES)
    began, cpu = time.monotonic(), CpuClock.now()
    with tempfile.TemporaryDirectory(prefix="spoold-bench-", ignore_cleanup_errors=True) as folder:
        rows = trio.run(partial(_measure, programs, names, Path(folder), options.quick))
    others = cpu.taken_by_others(time.monotonic() - began, machine["cores"])
    machine["taken_by_others"] = round(others, 3)

    print(
        f"{machine['cores']} cores, {machine['system']}, Python {machine['python']}, "
        f"{others:.0%} of it used by other programs; reference: codex {VERSION}; ratio: spoold / reference"
    )
    if others > _DISTURBED:
        print("the machine was not quiet: neither the figures nor the ratios are to be relied on")
    print(table(rows))
    missed = [row for row in rows if row.missed]
    for row in missed:
        print(f"target missed: {row.name.strip()}: ratio {row.ratio:.3f}, wanted at most {row.target:g}")
    if not missed and any(row.target is not None and row.ratio is not None for row in rows):
        print("every target met")
    if options.json is not None:
        result = {"machine": machine, "reference": VERSION, "rows": [row.as_json() for row in rows]}
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
