"""What the store runs on: the writer, the readers, and an index that is brought up to date.

Opening may fail, because the disk is full or somebody locks the database, and is then tried again: what was
asked meanwhile has failed, with the reason. The same goes for the rebuild of the index.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import trio

from persistence.errors import StoreError
from persistence.health import DiskHealth, probe
from persistence.home import Home
from persistence.readers import Readers
from persistence.rebuild import rebuild
from persistence.stoppable import run_stoppable
from persistence.writer import Writer
from protocol.runtime import Runtime

log = logging.getLogger(__name__)

OPEN_AGAIN_SECONDS = 2.0
"""Between two attempts to open a database that cannot be opened."""

_CLOSING_SECONDS = 5.0


class Engine:
    """``run`` must be running.

    Attributes:
        writer: the one that writes; another one after a failed opening. Invariant: open, once ``ready`` has
            returned.
        readers: those that read.
        health: whether the home can be written.
    """

    def __init__(self, home: Home, runtime: Runtime, new_writer: Callable[[Home], Writer] = Writer) -> None:
        self._home = home
        self._runtime = runtime
        self._new_writer = new_writer
        self.writer = new_writer(home)
        self.readers = Readers(home.database)
        self.health = DiskHealth()
        self._opened = trio.Event()
        self._rebuilt = trio.Event()
        # Invariant: set before the event it explains.
        self._open_failure: StoreError | None = None
        self._rebuild_failure: StoreError | None = None

    @property
    def is_open(self) -> bool:
        """Whether opening has been tried."""
        return self._opened.is_set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See ``Store.run``."""
        stopped = threading.Event()
        try:
            await self._open()
            task_status.started()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._bring_up, stopped)
                try:
                    await trio.sleep_forever()
                finally:
                    # The rebuild's thread cannot be cancelled, only asked.
                    stopped.set()
        finally:
            self.writer.stop()
            # The writer leaves a clean file behind only if it is the last to close it.
            self.readers.close()
            with trio.CancelScope(shield=True):
                if not await trio.to_thread.run_sync(self.writer.join, _CLOSING_SECONDS):
                    log.error("the store was closed before the writer had finished")

    async def ready(self) -> None:
        """Wait until the database is open.

        Raises:
            StoreError: it cannot be opened.
        """
        await self._opened.wait()
        if self._open_failure is not None:
            raise self._open_failure

    async def whole_index(self) -> None:
        """Wait until the index was brought up to date.

        Raises:
            StoreError: it could not be.
        """
        await self.ready()
        await self._rebuilt.wait()
        if self._rebuild_failure is not None:
            raise self._rebuild_failure

    async def probe(self) -> None:
        """See ``Store.probe``."""
        trouble = self.health.trouble
        if trouble is None or trouble.damaged or self._open_failure is not None:
            return
        try:
            await run_stoppable(lambda _: probe(self.writer, self._home, trouble))
        except StoreError as error:
            log.debug("the disk is not well yet: %s", error)
            self.health.met(error)
        else:
            self.health.mended()

    async def _open(self) -> None:
        token, opened = trio.lowlevel.current_trio_token(), trio.Event()

        def done(error: StoreError | None) -> None:
            self._open_failure = error
            try:
                token.run_sync_soon(opened.set)
            except trio.RunFinishedError:
                log.warning("the database was opened after the program's event loop had ended")

        self.writer.start(self._runtime.now_ms(), done)
        await opened.wait()
        for notice in self.writer.notices:
            self.health.notice(notice)
        if self._open_failure is not None:
            self.health.met(self._open_failure)
        self._opened.set()

    async def _bring_up(self, stopped: threading.Event) -> None:
        """Open the database if that has failed, and bring the index up to date, until both is done."""
        while self._open_failure is not None:
            await trio.sleep(OPEN_AGAIN_SECONDS)
            self.writer = self._new_writer(self._home)
            await self._open()
        if (trouble := self.health.trouble) is not None and trouble.path == self._home.database:
            self.health.mended()
        while not await self._rebuild(stopped):
            await self.health.well()

    async def _rebuild(self, stopped: threading.Event) -> bool:
        """Whether it is done, as far as it can be without a restart."""
        try:
            result = await trio.to_thread.run_sync(rebuild, self.writer, self.readers, self._home, stopped)
        except StoreError as error:
            self._rebuild_failure = error
            self._rebuilt.set()
            if error.fault != "closed":
                log.exception("the thread index could not be brought up to date")
            self.health.met(error)
            return not error.lasting or error.damaged
        log.info(
            "thread index: %d files, %d indexed, %d dropped", result.found, result.indexed, result.dropped
        )
        self._rebuild_failure = None
        self._rebuilt.set()
        return True
