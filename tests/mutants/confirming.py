"""Whether what has noticed a mutant holds without it: else its failing says nothing."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from tests.mutants.trial import Verdict, failed_tests, pytest_arguments, run


def confirmed(pristine: Path, verdicts: Sequence[Verdict], limit: float, jobs: int) -> list[Verdict]:
    """The verdicts, with "not tried" where what has noticed the mutant fails without any, too."""
    killed = [verdict for verdict in verdicts if verdict.outcome == "killed"]
    tests = sorted({verdict.by for verdict in killed if not verdict.mutant.command})
    commands = {verdict.by: verdict.mutant.command for verdict in killed if verdict.mutant.command}

    def failing_tests(number: int) -> set[str]:
        chosen = tests[number::jobs]
        if not chosen:
            return set()
        arguments = pytest_arguments(chosen, pristine / f"t{number}", stop=False)
        code, said = run(pristine, arguments, limit * len(chosen))
        return failed_tests(said) if code in (0, 1) else set(chosen)

    def failing_command(by: str) -> set[str]:
        return set() if run(pristine, commands[by], limit)[0] == 0 else {by}

    with ThreadPoolExecutor(jobs) as pool:
        wrong = set().union(*pool.map(failing_tests, range(jobs)), *pool.map(failing_command, commands))
    return [
        replace(verdict, outcome="not tried", by=f"{verdict.by} fails without it, too")
        if verdict.by in wrong
        else verdict
        for verdict in verdicts
    ]
