"""Many schedules: of one seed after another, in this process or in several."""

from __future__ import annotations

import math
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace

from spoold.testing.exploration.coverage import Coverage
from spoold.testing.exploration.schedules import (
    Schedule,
    make_schedule,
    replayed_by,
    run_schedule,
    shorten,
)


@dataclass(frozen=True)
class Failure:
    """A schedule that has broken a rule.

    Attributes:
        seed: of it.
        error: how it fails.
        schedule: a shorter one that fails in the same way.
    """

    seed: int
    error: str
    schedule: Schedule

    def __str__(self) -> str:
        """For people."""
        return (
            f"seed={self.seed} fails: {self.error}\n"
            f"  shortened to {len(self.schedule)} steps, replayed by: {replayed_by(self.seed, self.schedule)}"
        )


@dataclass(frozen=True)
class Plan:
    """What to explore.

    Attributes:
        first, stride: the seeds: ``first``, ``first + stride``...
        schedules: at most so many; None: as many as fit into the time.
        seconds: nothing is begun later.
        tries: how often a failing schedule is run to make it shorter.
        enough: failures after which to stop.
    """

    first: int = 0
    stride: int = 1
    schedules: int | None = None
    seconds: float = 60.0
    tries: int = 400
    enough: int | None = None


@dataclass
class Findings:
    """What was explored, what was found, and how many seconds that took."""

    coverage: Coverage = field(default_factory=Coverage)
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0


def explore(plan: Plan) -> Findings:
    """Run schedules in this process; a failing one is printed as it is found."""
    findings, begun, seed = Findings(), time.monotonic(), plan.first
    most, enough = plan.schedules or math.inf, plan.enough or math.inf
    while (
        time.monotonic() - begun < plan.seconds
        and findings.coverage.schedules < most
        and len(findings.failures) < enough
    ):
        schedule = make_schedule(seed)
        try:
            run_schedule(seed, schedule, findings.coverage)
        except Exception as error:
            said = f"{type(error).__name__}: {str(error)[:1500]}"
            failure = Failure(seed, said, shorten(seed, schedule, plan.tries))
            findings.failures.append(failure)
            print(failure, flush=True)
        seed += plan.stride
    findings.seconds = time.monotonic() - begun
    return findings


def explore_on(jobs: int, plan: Plan) -> Findings:
    """Run schedules in as many processes: the same seeds, whatever the number of processes."""
    if jobs == 1:
        return explore(plan)
    plans = [
        replace(
            plan,
            first=plan.first + number * plan.stride,
            stride=plan.stride * jobs,
            schedules=None if plan.schedules is None else (plan.schedules + jobs - 1 - number) // jobs,
        )
        for number in range(jobs)
    ]
    whole = Findings()
    # A fresh interpreter each: Trio's state must not be inherited.
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for findings in pool.map(explore, plans):
            whole.coverage.add(findings.coverage)
            whole.failures.extend(findings.failures)
            whole.seconds = max(whole.seconds, findings.seconds)
    return whole
