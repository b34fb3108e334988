"""Trying one mutant: a copy of the tree with the bug in it, the tests that shall notice, and a verdict.

A failing test counts. A test run that could not begin does not: a mutant that cannot be imported would
otherwise be killed by everything and prove nothing. A run that does not come to an end within the limit
counts, too, and is called what it is.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.mutants.mutant import Mutant

Outcome = Literal["killed", "timed out", "survived", "not tried"]

COPIED = (
    "spoold",
    "transport",
    "actors",
    "agent",
    "persistence",
    "protocol",
    "tests",
    "docs",
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
)
"""What of the working tree a test run needs."""

WHOLE_SUITE = ("-m", "not conformance", "tests", "--deselect", "tests/mutants")
"""pytest's arguments for everything that could notice. The list's own test notices every mutant."""

_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+\.py::\w+)", re.MULTILINE)
_TESTS_FAILED = 1
_LAST_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant.

    Attributes:
        by: the test or command that has noticed; of one that was not tried, why.
        seconds: how long that took, with the start of the interpreter.
    """

    mutant: Mutant
    outcome: Outcome
    by: str
    seconds: float

    @property
    def noticed(self) -> bool:
        """Whether the tests are good enough for it."""
        return self.outcome in ("killed", "timed out")


def copy_tree(source: Path, target: Path) -> None:
    """Copy what tests need, with the compiled files, whose times must go on to fit."""
    target.mkdir()
    for name in COPIED:
        path = source / name
        if path.is_dir():
            shutil.copytree(path, target / name)
        elif path.exists():
            shutil.copy2(path, target / name)


def run(tree: Path, arguments: Sequence[str], limit: float) -> tuple[int | None, str]:
    """Run the interpreter in a tree, on that tree's own modules.

    Returns:
        The exit code and what was printed; None where it had to be killed after ``limit`` seconds.
    """
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=tree,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        code: int | None
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                _end(process)
        output.seek(0)
        return code, output.read().decode("utf-8", "replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a run that hangs: first so that it can still end the daemons that it has started."""
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(_LAST_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def pytest_arguments(tests: Sequence[str], scratch: Path, *, stop: bool = True) -> list[str]:
    """How the tests are run; with ``stop`` up to the first that fails."""
    options = ("-q", "--tb=no", "-p", "no:cacheprovider", f"--basetemp={scratch}")
    return ["-m", "pytest", *options, *(["-x"] if stop else []), *tests]


def failed_tests(said: str) -> set[str]:
    """The tests that failed, as node ids without parameters, by what pytest has said."""
    return set(_FAILED.findall(said))


def try_mutant(pristine: Path, mutant: Mutant, limit: float, tests: Sequence[str] | None = None) -> Verdict:
    """Try a mutant on a copy of its own.

    Args:
        pristine: a tree without a mutant. Only read.
        limit: seconds.
        tests: arguments for pytest, instead of the killers that the mutant names.
    """
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        tree = Path(folder, "tree")
        copy_tree(pristine, tree)
        mutant.apply(tree)
        by_command = bool(mutant.command) and tests is None
        chosen = mutant.killers if tests is None else tests
        arguments = mutant.command if by_command else pytest_arguments(chosen, Path(folder, "t"))
        begun = time.monotonic()
        code, said = run(tree, arguments, limit)
        seconds = time.monotonic() - begun
    failed = _FAILED.search(said)
    command = " ".join(("python", *mutant.command))
    by = command if by_command else ", ".join(chosen)
    if code is None:
        return Verdict(mutant, "timed out", by, seconds)
    if code == 0:
        return Verdict(mutant, "survived", by, seconds)
    if code == _TESTS_FAILED and (by_command or failed is not None):
        return Verdict(mutant, "killed", by if by_command or failed is None else failed[1], seconds)
    return Verdict(mutant, "not tried", f"exit code {code}: {said[-2000:]}", seconds)
