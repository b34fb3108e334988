"""``python -m tests.mutants``: try the mutants and write docs/mutants.md.

Exits with 1 if one survived, or was noticed only by a test that fails without it, too.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from compileall import compile_dir
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from tests.mutants.confirming import confirmed
from tests.mutants.every import EVERY, ROOMS
from tests.mutants.mutant import EXPLORATION, Mutant
from tests.mutants.page import FILE, page
from tests.mutants.trial import WHOLE_SUITE, Verdict, copy_tree, try_mutant

ROOT = Path(__file__).parents[2]
WHOLE_SUITE_SECONDS = 1200.0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", metavar="NAME", action="append", help="those whose name contains it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at once")
    parser.add_argument("--limit", type=float, default=180, metavar="SECONDS", help="for each (180)")
    parser.add_argument(
        "--search", action="store_true", help="for each survivor: let the whole suite look for it"
    )
    parser.add_argument(
        "--explore",
        action="store_true",
        help="let random schedules look for each, which know nothing of it; nothing is written",
    )
    chosen = parser.parse_args()
    mutants = [each for each in EVERY if not chosen.only or any(part in each.name for part in chosen.only)]
    if chosen.explore:
        mutants = [replace(each, command=EXPLORATION) for each in mutants]
    if not mutants:
        parser.error("no mutant has such a name")
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(chosen.jobs) as pool:
        pristine = Path(folder, "pristine")
        copy_tree(ROOT, pristine)
        compile_dir(pristine, quiet=2)

        def attempt(mutant: Mutant) -> Verdict:
            verdict = try_mutant(pristine, mutant, chosen.limit)
            print(f"{verdict.outcome:9}  {verdict.seconds:5.1f} s  {mutant.name}", flush=True)
            if verdict.outcome == "not tried":
                print(verdict.by, flush=True)
            if verdict.outcome == "survived" and chosen.search:
                found = try_mutant(pristine, mutant, WHOLE_SUITE_SECONDS, WHOLE_SUITE)
                print(f"  the whole suite: {found.outcome} {found.by}", flush=True)
            return verdict

        verdicts = list(pool.map(attempt, mutants))
        if not chosen.explore:
            verdicts = confirmed(pristine, verdicts, chosen.limit, chosen.jobs)
    if not (chosen.only or chosen.explore):
        (ROOT / FILE).write_text(page(ROOMS, verdicts), encoding="utf-8")
    noticed = sum(verdict.noticed for verdict in verdicts)
    print(f"{len(verdicts)} mutants, {noticed} killed")
    for verdict in verdicts:
        if not verdict.noticed:
            print(f"{verdict.outcome}: {verdict.mutant.name} ({verdict.by})", file=sys.stderr)
    return int(noticed < len(verdicts))


if __name__ == "__main__":
    sys.exit(main())
