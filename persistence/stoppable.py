"""Long work in a worker thread that is told to stop when its caller is cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable

import trio


async def run_stoppable(work: Callable[[threading.Event], None]) -> None:
    """Run it in a worker thread; cancelled, tell it to stop and wait until it has cleaned up.

    Raises:
        Exception: what ``work`` raised.
    """
    stopped, finished = threading.Event(), trio.Event()
    failure: list[Exception] = []

    async def run() -> None:
        with trio.CancelScope(shield=True):
            try:
                await trio.to_thread.run_sync(work, stopped)
            except Exception as error:
                failure.append(error)
        finished.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        try:
            await finished.wait()
        finally:
            stopped.set()
    if failure:
        raise failure[0]
