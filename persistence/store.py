"""The store: what the actors know of the disk.

Two ways in. ``commit`` appends to a thread's rollout through the one writer thread. Everything else reads:
in a worker thread, on a read-only connection, in one short transaction, with the bytes of the items taken
from the rollout itself. A read first makes sure that the thread's index matches its file, so it is right
even while the background rebuild is still on its way; only listing has to wait for that.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import trio

from persistence.errors import StoreError
from persistence.facts import UNSET, Goal, GoalStatus, ReadState, Unset, read_goal, read_states_of
from persistence.fault_points import reach
from persistence.history import History
from persistence.home import Home
from persistence.indexer import RolloutState
from persistence.jobs import Append, Batch, Job, Release
from persistence.queue import StartedRow, StoredQueue, find_started, read_queue, recovered
from persistence.readers import Readers, snapshot
from persistence.rebuild import rebuild
from persistence.resume import ResumeState, read_resume_state
from persistence.rollout_copy import find_cut, write_fork, write_reverted
from persistence.rollout_files import active_path, reverted_path, rollout_path
from persistence.scan import up_to_date
from persistence.search import SearchPage, expression, find_threads, list_threads
from persistence.stoppable import run_stoppable
from persistence.thread_list import (
    ThreadQuery,
    ThreadRecord,
    ThreadsPage,
    read_descendants,
    read_record,
)
from persistence.writer import Writer, load_state
from protocol.errors import InvalidRequest, NotSupported
from protocol.runtime import Runtime
from protocol.thread_methods import ItemsPage, TurnsPage
from protocol.threads import ItemsView, SortDirection, ThreadSortKey, Turn

__all__ = [
    "UNSET",
    "Batch",
    "Goal",
    "GoalStatus",
    "ReadState",
    "ResumeState",
    "SearchPage",
    "Store",
    "StoreError",
    "ThreadQuery",
    "ThreadRecord",
    "ThreadsPage",
    "Unset",
]

log = logging.getLogger(__name__)

_CLOSING_SECONDS = 5.0

T = TypeVar("T")


class Store:
    """Threads on disk. ``run`` must be running; every method waits until it has opened the database.

    All methods raise ``StoreError`` when the disk or the database fails them, or the store is closed.
    Reads may be cancelled at any point and leave nothing behind.
    """

    def __init__(self, home: Home, runtime: Runtime) -> None:
        self._home = home
        self._runtime = runtime
        self._writer = Writer(home)
        self._readers = Readers(home.database)
        self._opened = trio.Event()
        self._rebuilt = trio.Event()
        # Invariant: set before the event it explains.
        self._open_failure: StoreError | None = None
        self._rebuild_failure: StoreError | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open the database, bring the index up to date in the background, serve until cancelled.

        A database that cannot be opened does not end this task: the methods raise why. Cancelled: commits
        that were accepted are finished (for at most 5 seconds), then everything is closed.
        """
        stopped = threading.Event()
        try:
            await self._open()
            task_status.started()
            async with trio.open_nursery() as nursery:
                if self._open_failure is None:
                    nursery.start_soon(self._rebuild, stopped)
                try:
                    await trio.sleep_forever()
                finally:
                    # The rebuild's thread cannot be cancelled, only asked.
                    stopped.set()
        finally:
            self._writer.stop()
            # The writer leaves a clean file behind only if it is the last to close it.
            self._readers.close()
            with trio.CancelScope(shield=True):
                if not await trio.to_thread.run_sync(self._writer.join, _CLOSING_SECONDS):
                    log.error("the store was closed before the writer had finished")

    def rollout_path(self, thread_id: str, at_ms: int) -> Path:
        """Where the file of a thread that starts at ``at_ms`` goes. Nothing on disk is touched."""
        return rollout_path(self._home, self._runtime.local_time(at_ms), thread_id)

    def active_path(self, archived: Path) -> Path:
        """Where an archived rollout goes when it is brought back. Nothing on disk is touched."""
        return active_path(self._home, archived)

    async def commit(self, batch: Batch) -> None:
        """Write a batch; on return all of it has happened.

        With ``batch.fsync`` the lines are on the disk itself; facts, goals, read states and moved files
        always are. Cancelled before the batch was handed to the writer: nothing happened. From then on the
        outcome is waited for, cancelled or not.

        Raises:
            StoreError: the batch was not written; the caller may try again. Where the database alone failed
                a batch that has lines and more, the lines were appended.
            ValueError: a fact of the batch is none.
        """
        await self._ready()
        batch.fact_operations()
        if not batch.now_ms and (batch.facts or batch.relocate):
            batch = replace(batch, now_ms=self._runtime.now_ms())
        token, finished = trio.lowlevel.current_trio_token(), trio.Event()
        outcome: list[StoreError | None] = []

        def done(error: StoreError | None) -> None:
            outcome.append(error)
            try:
                token.run_sync_soon(finished.set)
            except trio.RunFinishedError:
                log.warning("a commit ended after the program's event loop did")

        if batch.queue:
            reach("before a queue's commit")
        self._writer.submit(Append(done=done, batch=batch))
        with trio.CancelScope(shield=True):
            await finished.wait()
        if batch.queue:
            reach("after a queue's commit")
        if outcome[0] is not None:
            raise outcome[0]

    def release(self, thread_id: str) -> None:
        """Forget what is held in memory for a thread that is written to no more. It may be again."""
        if self._opened.is_set():
            self._writer.submit(Release(thread_id=thread_id))

    async def thread(self, thread_id: str) -> ThreadRecord | None:
        """One thread, archived or not; None where there is no rollout of it."""

        def read(connection: sqlite3.Connection) -> ThreadRecord | None:
            if up_to_date(connection, self._writer, self._home, thread_id) is None:
                return None
            return read_record(connection, self._home, thread_id)

        return await self._read(read)

    async def descendants(self, thread_id: str) -> list[str]:
        """The threads that this one spawned, those that they spawned, and so on, in the order of their ids.

        Ids grow with time, so parents come first.

        Waits for the background rebuild, so that none is left out.
        """
        await self._whole_index()

        def read(connection: sqlite3.Connection) -> list[str]:
            return read_descendants(connection, thread_id)

        return await self._read(read)

    async def read_state(self, thread_id: str) -> ReadState | None:
        """What the user has read of the thread, or None where nobody ever said."""
        return (await self.read_states([thread_id])).get(thread_id)

    async def read_states(self, thread_ids: Sequence[str]) -> dict[str, ReadState]:
        """The read states of those of the threads that have one."""
        return await self._read(lambda connection: read_states_of(connection, thread_ids))

    async def goal(self, thread_id: str) -> Goal | None:
        """The thread's goal, or None."""
        return await self._read(lambda connection: read_goal(connection, thread_id))

    async def queue(self, thread_id: str) -> StoredQueue:
        """The thread's queue, as a crash left it: claimed rows are settled by what the rollout says."""
        now_ms = self._runtime.now_ms()

        def read(connection: sqlite3.Connection) -> StoredQueue:
            stored = read_queue(connection, thread_id)
            if not stored.claimed:
                return stored
            up_to_date(connection, self._writer, self._home, thread_id)
            settled, operations = recovered(connection, thread_id, stored, now_ms)
            reach("before a claim is settled")
            self._writer.call(Job(operations=operations))
            reach("after a claim is settled")
            return settled

        return await self._read(read)

    async def queued_turn_started(
        self, thread_id: str, *, row_id: str | None = None, client_id: str | None = None
    ) -> StartedRow | None:
        """The row of that id, or of that client id, if it has become a turn."""
        return await self._read(
            lambda connection: find_started(connection, thread_id, row_id=row_id, client_id=client_id)
        )

    async def threads_page(self, query: ThreadQuery) -> ThreadsPage:
        """A page of the list. Waits for the background rebuild, so that nothing is left out.

        Raises:
            InvalidRequest: the cursor is none of ours, or the sort key needs a section.
        """
        await self._whole_index()
        return await self._read(lambda connection: list_threads(connection, self._writer, self._home, query))

    async def search(
        self,
        term: str,
        cursor: str | None = None,
        limit: int | None = None,
        *,
        archived: bool = False,
        source_kinds: Sequence[str] | None = None,
        sort_key: ThreadSortKey = "recency_at",
        direction: SortDirection = "desc",
    ) -> SearchPage:
        """A page of the threads in which the term was said, by user or agent; see ``persistence.search``.

        ``archived`` looks among the archived ones only. A term without letters and digits finds nothing.
        Waits for the background rebuild.

        Raises:
            InvalidRequest: the cursor is none of ours, or the sort key needs a section.
        """
        await self._whole_index()
        query = ThreadQuery(
            cursor=cursor,
            limit=limit,
            sort_key=sort_key,
            direction=direction,
            source_kinds=source_kinds,
            archived=archived,
            matching=expression(term),
        )
        return await self._read(lambda connection: find_threads(connection, self._writer, self._home, query))

    async def turns_page(
        self,
        thread_id: str,
        *,
        cursor: str | None,
        limit: int | None,
        direction: SortDirection,
        view: ItemsView,
        live_turn_id: str | None = None,
    ) -> TurnsPage:
        """A page of turns; ``live_turn_id`` is the turn that runs now, other open ones were cut off.

        Raises:
            InvalidRequest: the thread has no rollout, or the cursor is none of ours.
        """
        return await self._history(
            thread_id, live_turn_id, lambda history: history.turns(cursor, limit, direction, view)
        )

    async def has_turn(self, thread_id: str, turn_id: str) -> bool:
        """Whether the turn is in the thread's history.

        Raises:
            InvalidRequest: the thread has no rollout.
        """
        unknown = InvalidRequest(f"thread not loaded: {thread_id}")

        def read(connection: sqlite3.Connection) -> bool:
            self._state(connection, thread_id, unknown)
            found = "SELECT 1 FROM turns WHERE thread_id=? AND turn_id=?"
            return connection.execute(found, (thread_id, turn_id)).fetchone() is not None

        return await self._read(read)

    async def all_turns(self, thread_id: str, *, live_turn_id: str | None = None) -> list[Turn]:
        """Every turn with all its items, oldest first.

        Raises:
            InvalidRequest: the thread has no rollout.
        """
        return await self._history(thread_id, live_turn_id, History.all_turns)

    async def items_page(
        self,
        thread_id: str,
        *,
        turn_id: str | None,
        cursor: str | None,
        limit: int | None,
        direction: SortDirection,
    ) -> ItemsPage:
        """A page of items, of the whole thread or of one turn.

        Raises:
            NotSupported: the thread has no rollout, or its history is legacy.
            InvalidRequest: the cursor is none of ours.
        """
        missing = NotSupported("thread/items/list is not supported yet")
        return await self._history(
            thread_id, None, lambda history: history.items(turn_id, cursor, limit, direction), missing
        )

    async def history_cursors(self, thread_id: str) -> tuple[str | None, str | None]:
        """Cursors at the newest turn and at the newest item; None where there is none, or legacy history.

        Raises:
            InvalidRequest: the thread has no rollout.
        """
        return await self._history(thread_id, None, History.newest_cursors)

    async def resume_state(self, thread_id: str, *, with_context: bool = True) -> ResumeState:
        """What the thread needs to go on; without the model context it costs the same for any length.

        Raises:
            InvalidRequest: the thread has no rollout.
        """

        def read(connection: sqlite3.Connection) -> ResumeState:
            state = self._state(
                connection, thread_id, InvalidRequest(f"no rollout found for thread id {thread_id}")
            )
            path = self._home.root / state.path
            return read_resume_state(connection, state, path, with_context=with_context)

        return await self._read(read)

    async def fork(
        self,
        source_id: str,
        record: ThreadRecord,
        *,
        last_turn_id: str | None = None,
        before_turn_id: str | None = None,
        exclude_open_turn: bool = False,
        at_ms: int,
    ) -> None:
        """Make a thread from the beginning of another one, which may be running.

        ``record`` is the new thread's: its id, path (see ``rollout_path``) and what its first line says; its
        preview and history mode are the source's. It ends behind ``last_turn_id``, before ``before_turn_id``,
        or where the source ends. An open turn at its end is left out, or shown as interrupted. Cancelled: the
        thread was made or nothing is left of it.

        Raises:
            InvalidRequest: the source has no rollout, or no such turn.
            StoreError: the thread was not made.
        """
        missing = InvalidRequest(f"no rollout found for thread id {source_id}")

        def copy(stopped: threading.Event) -> None:
            with self._readers.connection() as connection:
                self._state(connection, source_id, missing)
                with snapshot(connection):
                    state = _stored_state(connection, source_id, missing)
                    cut = find_cut(
                        connection,
                        state,
                        last_turn_id=last_turn_id,
                        before_turn_id=before_turn_id,
                        exclude_open_turn=exclude_open_turn,
                    )
            write_fork(self._writer, self._home, state, cut, record, at_ms, stopped)

        await self._copy(copy)

    async def revert(self, thread_id: str, before_turn_id: str, at_ms: int) -> None:
        """Take back the turn and all after it. The file so far is kept, a new one takes its place.

        The caller sees to it that nothing is written to the thread meanwhile. Cancelled: it was done or the
        thread is as it was.

        Raises:
            InvalidRequest: the thread has no rollout, or no such turn.
            StoreError: the thread is as it was.
        """
        missing = InvalidRequest(f"no rollout found for thread id {thread_id}")
        revision = self._runtime.new_id()

        def copy(stopped: threading.Event) -> None:
            with self._readers.connection() as connection:
                self._state(connection, thread_id, missing)
                with snapshot(connection):
                    state = _stored_state(connection, thread_id, missing)
                    cut = find_cut(connection, state, before_turn_id=before_turn_id)
            target = reverted_path(self._home.root / state.path, revision)
            write_reverted(self._writer, self._home, state, cut, target, at_ms, stopped)

        await self._copy(copy)

    async def _open(self) -> None:
        token, opened = trio.lowlevel.current_trio_token(), trio.Event()

        def done(error: StoreError | None) -> None:
            self._open_failure = error
            try:
                token.run_sync_soon(opened.set)
            except trio.RunFinishedError:
                log.warning("the database was opened after the program's event loop had ended")

        self._writer.start(self._runtime.now_ms(), done)
        await opened.wait()
        self._opened.set()

    async def _rebuild(self, stopped: threading.Event) -> None:
        try:
            result = await trio.to_thread.run_sync(rebuild, self._writer, self._readers, self._home, stopped)
        except StoreError as error:
            self._rebuild_failure = error
            if error.fault != "closed":
                log.exception("the thread index could not be brought up to date")
        else:
            log.info(
                "thread index: %d files, %d indexed, %d dropped", result.found, result.indexed, result.dropped
            )
        self._rebuilt.set()

    async def _ready(self) -> None:
        await self._opened.wait()
        if self._open_failure is not None:
            raise self._open_failure

    async def _whole_index(self) -> None:
        await self._ready()
        await self._rebuilt.wait()
        if self._rebuild_failure is not None:
            raise self._rebuild_failure

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        await self._ready()

        def work() -> T:
            with self._readers.connection() as connection:
                return read(connection)

        return await trio.to_thread.run_sync(work, limiter=self._readers.limiter, abandon_on_cancel=True)

    async def _copy(self, copy: Callable[[threading.Event], None]) -> None:
        await self._ready()
        await run_stoppable(copy)

    def _state(self, connection: sqlite3.Connection, thread_id: str, missing: Exception) -> RolloutState:
        state = up_to_date(connection, self._writer, self._home, thread_id)
        if state is None or not state.recognised:
            raise missing
        return state

    async def _history(
        self,
        thread_id: str,
        live_turn_id: str | None,
        take: Callable[[History], T],
        missing: Exception | None = None,
    ) -> T:
        unknown = missing or InvalidRequest(f"thread not loaded: {thread_id}")

        def read(connection: sqlite3.Connection) -> T:
            self._state(connection, thread_id, unknown)
            with snapshot(connection):
                state = _stored_state(connection, thread_id, unknown)
                return take(History(connection, state, self._home.root / state.path, live_turn_id))

        return await self._read(read)


def _stored_state(connection: sqlite3.Connection, thread_id: str, missing: Exception) -> RolloutState:
    state = load_state(connection, thread_id)
    if state is None:
        raise missing
    return state
