"""One seed, one schedule: everything in which two runs of the same program may differ, decided by a seed.

What makes a Trio program differ from run to run, and what is done about it here:

* the order in which tasks that are ready run: Trio sorts and shuffles them with its own generator, which is
  seeded (this is what pytest-trio does for hypothesis);
* time: a ``MockClock`` that jumps to the next deadline when nothing else can happen;
* worker threads: there are none. What would run in one runs in the caller's task, between a few switches to
  other tasks whose number the seed decides;
* the collector, which may end an async generator at any moment: it is off meanwhile.

A run that would never end is ended, too: ``Stuck``, ``Spinning``.

The order of sets of text depends on ``PYTHONHASHSEED``, and the program must not let it be seen.
"""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import trio
import trio._core._run as scheduler
import trio.testing

from spoold.testing.runtime import Chance

T = TypeVar("T")

MOST_STEPS = 2_000_000
"""Switches between tasks after which a run counts as spinning."""

_FRAMES = 4
_NOBODYS_CODE = (str(Path(trio.__file__).parent), str(contextlib.__file__))
"""What tasks wait in when they wait; who made them wait called it."""


class Spinning(AssertionError):
    """The program goes on without end while time stands still, or the scenario is far too long.

    Seen only of a program that switches between tasks: a loop without a checkpoint ends no test.
    """


class Stuck(AssertionError):
    """Nothing can happen any more, or the time is up. The message says where every task waits."""


class _Guard(trio.abc.Instrument):
    """Ends a run that would not end by itself: where time stands still, no timeout of its own does.

    Attributes:
        scope: all of the run is in it.
        verdict: why the run was ended.
    """

    def __init__(self, most_steps: int, seconds: float) -> None:
        self.scope = trio.CancelScope()
        self.verdict: AssertionError | None = None
        self._most_steps = most_steps
        self._seconds = seconds
        self._steps = 0
        self._stuck_at = -1

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count."""
        self._steps += 1
        if self._steps % self._most_steps == 0:
            self._end(Spinning(f"more than {self._most_steps} steps"))

    def clock(self) -> trio.testing.MockClock:
        """A clock that jumps to the next deadline when nothing can run, if there is one in time."""
        clock = trio.testing.MockClock(autojump_threshold=0)
        jump = clock._autojump

        def jump_in_time() -> None:
            after = trio.lowlevel.current_statistics().seconds_to_next_deadline
            if after == math.inf:
                self._stuck("nothing can happen any more")
            elif self.verdict is None and clock.current_time() + after > self._seconds:
                self._stuck(f"after {self._seconds:.0f} seconds it still waits")
            else:
                jump()

        clock._autojump = jump_in_time  # type: ignore[method-assign]
        return clock

    def _stuck(self, why: str) -> None:
        if self._steps == self._stuck_at:
            raise self.verdict or AssertionError  # what waits cannot be cancelled: Trio itself has to end
        self._stuck_at = self._steps
        self._end(Stuck(f"{why}. Where each task waits:\n{_who_waits()}"))

    def _end(self, verdict: AssertionError) -> None:
        self.verdict = self.verdict or verdict
        # A shield would keep what has to end from hearing of it.
        below = [self.scope._cancel_status]
        while below:
            if (status := below.pop()) is not None:
                status._scope.shield = False
                below.extend(status.children)
        self.scope.cancel()


def _tasks() -> list[trio.lowlevel.Task]:
    """All there are, the oldest first."""
    found: list[trio.lowlevel.Task] = []
    waiting = [trio.lowlevel.current_root_task()]
    while waiting:
        if (task := waiting.pop()) is not None:
            found.append(task)
            waiting.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
    return sorted(found, key=lambda task: task._counter)


def _who_waits() -> str:
    """A line per task: its name, and where in it somebody's code waits, the innermost place last."""
    lines = []
    for task in _tasks():
        places = [
            f"{Path(frame.f_code.co_filename).name}:{line} {frame.f_code.co_name}"
            for frame, line in task.iter_await_frames()
            if not frame.f_code.co_filename.startswith(_NOBODYS_CODE)
        ]
        if places:
            name = ".".join(task.name.replace("<locals>.", "").split(".")[-2:])
            lines.append(f"  {name}: {' > '.join(places[-_FRAMES:])}")
    return "\n".join(lines)


def run_seeded(
    work: Callable[[], Awaitable[T]],
    seed: int,
    most_steps: int = MOST_STEPS,
    workers: Chance | None = None,
    seconds: float = math.inf,
) -> T:
    """Run an async function in a Trio of its own in which the seed decides the schedule.

    ``workers``: decides instead how long worker calls take. ``seconds``: of the clock; it may take no longer.

    Raises:
        Spinning: it goes on and on.
        Stuck: it waits for what never comes.
        Exception: what ``work`` raised; alone in a group, the exception itself.
    """
    guard = _Guard(most_steps, seconds)

    async def main() -> T:
        try:
            with guard.scope:
                return await work()
        except Exception as error:
            if guard.verdict is None:
                raise
            raise guard.verdict from error  # which it may be the cause of, or what it met on its way out
        assert guard.verdict is not None
        raise guard.verdict

    with _seeded(seed, workers or Chance(f"workers {seed}")):
        return trio.run(main, clock=guard.clock(), instruments=[guard], strict_exception_groups=True)


@contextlib.contextmanager
def _seeded(seed: int, chance: Chance) -> Iterator[None]:
    async def in_turn(
        sync_fn: Callable[..., Any],
        *args: Any,
        thread_name: str | None = None,
        abandon_on_cancel: bool = False,
        limiter: trio.CapacityLimiter | None = None,
    ) -> Any:
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            await _switches(chance.randrange(4), shield=not abandon_on_cancel)
        except trio.Cancelled:
            # The caller has gone; its thread would do the work all the same.
            with contextlib.suppress(Exception):
                sync_fn(*args)
            raise
        result = sync_fn(*args)
        await _switches(chance.randrange(3), shield=not abandon_on_cancel)
        return result

    names = vars(scheduler)
    before = names["_ALLOW_DETERMINISTIC_SCHEDULING"], names["_r"].getstate(), trio.to_thread.run_sync
    collecting = gc.isenabled()
    gc.disable()
    names["_ALLOW_DETERMINISTIC_SCHEDULING"] = True
    names["_r"].seed(seed)
    trio.to_thread.run_sync = in_turn  # type: ignore[assignment]
    try:
        yield
    finally:
        names["_ALLOW_DETERMINISTIC_SCHEDULING"] = before[0]
        names["_r"].setstate(before[1])
        trio.to_thread.run_sync = before[2]
        if collecting:
            gc.enable()


async def _switches(count: int, *, shield: bool) -> None:
    with trio.CancelScope(shield=shield):
        for _ in range(count):
            await trio.lowlevel.checkpoint()
