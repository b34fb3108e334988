"""One seed, one schedule: everything in which two runs of the same program may differ, decided by a seed.

What makes a Trio program differ from run to run, and what is done about it here:

* the order in which tasks that are ready run: Trio sorts and shuffles them with its own generator, which is
  seeded (this is what pytest-trio does for hypothesis);
* time: a ``MockClock`` that jumps to the next deadline when nothing else can happen;
* worker threads: there are none. What would run in one runs in the caller's task, between a few switches to
  other tasks whose number the seed decides;
* the collector, which may end an async generator at any moment: it is off meanwhile.

The order of sets of text depends on ``PYTHONHASHSEED``, and the program must not let it be seen.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import trio
import trio._core._run as scheduler
import trio.testing

from spoold.testing.runtime import Chance

T = TypeVar("T")

MOST_STEPS = 2_000_000
"""Switches between tasks after which a run counts as spinning."""


class Spinning(AssertionError):
    """The program goes on without end while time stands still, or the scenario is far too long."""


class _StepLimit(trio.abc.Instrument):
    """Ends a run that never comes to rest, which no timeout would: the clock waits for rest."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.scope = trio.CancelScope()
        self.steps = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count."""
        self.steps += 1
        if self.steps > self.most:
            self.scope.cancel()


def run_seeded(
    work: Callable[[], Awaitable[T]], seed: int, most_steps: int = MOST_STEPS, workers: Chance | None = None
) -> T:
    """Run an async function in a Trio of its own in which the seed decides the schedule.

    ``workers``: decides instead how long worker calls take.

    Raises:
        Spinning: it does not end.
        Exception: what ``work`` raised; alone in a group, the exception itself.
    """
    limit = _StepLimit(most_steps)

    async def limited() -> T:
        with limit.scope:
            return await work()
        raise Spinning(f"more than {most_steps} steps")

    with _seeded(seed, workers or Chance(f"workers {seed}")):
        return trio.run(
            limited,
            clock=trio.testing.MockClock(autojump_threshold=0),
            instruments=[limit],
            strict_exception_groups=True,
        )


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
