"""Every schedule of a race up to a bound, one after another: the opposite of a seed, which samples them.

What is enumerated. Trio switches tasks only where they wait, so a schedule says which of the tasks that can
run does. While the window of a race is open, one task runs per pass of Trio's loop. By default it is the one
that ran last, then those that it has woken: what the first message causes is over before the second one is
read. At each step of a task that has a rival it may instead be *put off*: it goes on when nothing else can.
That is the packet that comes late, the commit that takes long, the thread that does not get the processor.
Everything in the world goes through this one choice. A message that a client has sent is a connection's task
that can run. The disk works, and tells its callers, in steps of a task of its own, and worker calls begin
and end in steps of their callers. The model gives each event in a step of the turn's task. A deadline that
has passed, and a cancellation, make a task runnable.

The bound. All schedules are far too many, so they are taken by the number of times that a task is put off:
never, once, twice. This is the iterative context bounding of CHESS (Musuvathi and Qadeer, PLDI 2007, who
found that most races show with two preemptions), as delay bounding for programs made of tasks that come and
go (Emmi, Qadeer and Rakamaric, POPL 2011). Who begins costs nothing, as there. So with the bound 1 each comes
at every step of the other, after as many runs as they have steps. A bug that needs D things to be late is
found with the bound D, after at most (steps)^D runs.

No state is stored: a schedule is run from the start. It is named by the numbers of the steps at which a task
is put off, and every later step of its run is the end of a schedule that puts off one more.

What is not enumerated: when a client reads and a connection writes (nothing comes back from there), that
time passes while a task can run, what happens before and after the window, and points within a step, which
threads would have and Trio has not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import trio
import trio._core._run as scheduler

from spoold.testing.runtime import Chance

ONLOOKERS = ("SimulatedClient._read", "_run_writer", "watch_overflow", "run_seeded")
"""Parts of the names of tasks that decide nothing: they are never put off, and are nobody's rivals."""


class Diverged(AssertionError):
    """A run met other choices than the one that it continues: the program does not repeat."""


class Steady(Chance):
    """Chance of a world in which only the schedule decides: every wait is one switch, never time."""

    def random(self) -> float:
        """The least."""
        return 0.0

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        """One, or the nearest to it."""
        low, high = (0, start) if stop is None else (start, stop)
        return max(low, min(1, high - 1))


class Schedule:
    """Where tasks are put off in one run.

    Attributes:
        late: the numbers of the steps at which a task is put off, ascending.
        cost: how many of these count: all but those before the first task has run.
        steps: the names of the tasks that could be put off, so far.
        diverged: where the run of which this one differs only later had another task.
    """

    def __init__(self, late: Sequence[int] = (), cost: int = 0, expected: Sequence[str] = ()) -> None:
        self.late = tuple(late)
        self.cost = cost
        self.steps: list[str] = []
        self.diverged: str | None = None
        self._late = frozenset(late)
        # How many of the steps are before the first task has run.
        self._beginning: int | None = None
        self._expected = expected

    def puts_off(self, task: str) -> bool:
        """Whether the task, which could run now, waits until nothing else can."""
        number = len(self.steps)
        if self.diverged is None and number < len(self._expected) and self._expected[number] != task:
            # Trio asks, and would not survive an exception.
            self.diverged = f"step {number} was {self._expected[number]}, and is {task}"
        self.steps.append(task)
        return number in self._late

    def begins(self) -> None:
        """The first task runs."""
        if self._beginning is None:
            self._beginning = len(self.steps)

    def check(self) -> None:
        """To be called after its run.

        Raises:
            Diverged: it was not the run that it was meant to be.
        """
        if self.diverged is not None:
            raise Diverged(f"schedule={self}: {self.diverged}")
        if self.late and self.late[-1] >= len(self.steps):
            raise Diverged(f"schedule={self} had {len(self.steps)} steps only")

    def longer(self) -> Iterator[Schedule]:
        """After its run: those that do the same and then put off one more."""
        first = self.late[-1] + 1 if self.late else 0
        for number in range(first, len(self.steps)):
            price = 0 if self._beginning is None or number < self._beginning else 1
            yield Schedule((*self.late, number), self.cost + price, self.steps[: number + 1])

    def told(self) -> str:
        """In words."""
        met = [f"{number} ({self.steps[number]})" for number in self.late if number < len(self.steps)]
        return f"of {len(self.steps)} steps these are put off: {', '.join(met) or 'none'}"

    def __repr__(self) -> str:
        """What makes it again."""
        return repr(list(self.late))


class Frontier:
    """The schedules up to a bound that have not been run.

    Attributes:
        bound: how many times a task may be put off.
        runs: how many schedules were run, by the number of times.
        longest: the most steps that one of them has had to choose at.
    """

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.runs = [0] * (bound + 1)
        self.longest = 0
        self._waiting: list[deque[Schedule]] = [deque() for _ in range(bound + 1)]
        self._waiting[0].append(Schedule())

    @property
    def complete(self) -> bool:
        """Whether nothing is left to run."""
        return not any(self._waiting)

    def next(self) -> Schedule | None:
        """The next one to run, of those that put off least; None when all have been run."""
        return next((waiting.popleft() for waiting in self._waiting if waiting), None)

    def ran(self, schedule: Schedule) -> None:
        """It was run to its end: those that do the same and then put off one more can be run."""
        self.runs[schedule.cost] += 1
        self.longest = max(self.longest, len(schedule.steps))
        for each in schedule.longer():
            if each.cost <= self.bound:
                self._waiting[each.cost].append(each)


class RunQueue:
    """Stands in for Trio's queue of runnable tasks: gives one per pass, the one that the schedule says.

    Outside of a race it is first come, first served. Tasks that one step has made runnable are in the order
    of their creation: Trio wakes some of them in the order of a set.
    """

    def __init__(self, runnable: Sequence[Any]) -> None:
        self._woken = list(runnable)
        # In the order in which they run by default.
        self._ready: deque[Any] = deque()
        self._ran: Any = None
        self._schedule: Schedule | None = None

    @contextmanager
    def deciding(self, schedule: Schedule) -> Iterator[None]:
        """Ask the schedule meanwhile."""
        assert self._schedule is None, "one race at a time"
        self._schedule, self._ran = schedule, None
        try:
            yield
        finally:
            self._schedule = None

    # -- what Trio calls --------------------------------------------------------------------------------

    def append(self, task: Any) -> None:
        """The task can run."""
        self._woken.append(task)

    def __len__(self) -> int:
        """How many can run."""
        return len(self._woken) + len(self._ready)

    def __iter__(self) -> Iterator[Any]:
        """The one that runs in this pass; it is in here no more."""
        woken, self._woken = sorted(self._woken, key=lambda task: task._counter), []
        if self._schedule is None:
            self._ready.extend(woken)
            if self._ready:
                yield self._ready.popleft()
            return
        woken.sort(key=lambda task: task is not self._ran)
        self._ready.extendleft(reversed(woken))
        if self._ready:
            self._ran = self._choose(self._schedule)
            yield self._ran

    def clear(self) -> None:
        """What was given has been taken out already."""

    def _choose(self, schedule: Schedule) -> Any:
        ready, put_off = self._ready, 0
        while True:
            task = ready.popleft()
            # Who was put off just now is no rival: all would be, and nothing would have changed.
            rivals = islice(ready, len(ready) - put_off)
            if _looks_on(task):
                return task
            if all(map(_looks_on, rivals)) or not schedule.puts_off(_name(task)):
                schedule.begins()
                return task
            ready.append(task)
            put_off += 1


def install() -> RunQueue:
    """Replace the queue of the Trio that runs; to be called in one of its tasks."""
    runner: Any = scheduler.GLOBAL_RUN_CONTEXT.runner
    queue = runner.runq = RunQueue(list(runner.runq))
    return queue


def _looks_on(task: trio.lowlevel.Task) -> bool:
    return any(part in task.name for part in ONLOOKERS)


def _name(task: trio.lowlevel.Task) -> str:
    """Without its package, and without what is of this run (the id of a thread)."""
    return ".".join(task.name.split()[0].split(".")[-2:])
