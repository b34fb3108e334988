"""The store: what the actors know of the disk.

Two ways in. ``commit`` appends to a thread's rollout through the one writer thread. Everything else reads:
in a worker thread, on a read-only connection, in one short transaction, with the bytes of the items taken
from the rollout itself. A read first makes sure that the thread's index matches its file, so it is right
even while the background rebuild is still on its way; only listing has to wait for that.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from persistence.copies import Copies
from persistence.engine import Engine
from persistence.errors import StoreError
from persistence.facts import UNSET, Goal, GoalStatus, ReadState, Unset, read_goal, read_states_of
from persistence.fault_points import reach
from persistence.history import History
from persistence.home import Home
from persistence.jobs import Append, Batch, Job, Release
from persistence.open_rollout import OpenRollout, open_rollout
from persistence.queue import StartedRow, StoredQueue, find_started, read_queue, recovered
from persistence.resume import ResumeState, read_resume_state
from persistence.rollout_files import active_path, rollout_path
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
from persistence.writer import Writer
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

T = TypeVar("T")


class Store:
    """Threads on disk. ``run`` must be running; every method waits until it has opened the database.

    All methods raise ``StoreError`` when the disk or the database fails them, or the store is closed.
    Reads may be cancelled at any point and leave nothing behind.

    Attributes:
        health: whether the home can be written.

    Args:
        home: where the threads are.
        runtime: clock and ids.
        new_writer: makes what writes; by default with a thread of its own.
    """

    def __init__(self, home: Home, runtime: Runtime, new_writer: Callable[[Home], Writer] = Writer) -> None:
        self._home = home
        self._runtime = runtime
        self._engine = Engine(home, runtime, new_writer)
        self._copies = Copies(home, self._engine.readers)
        self.health = self._engine.health

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open the database, bring the index up to date in the background, serve until cancelled.

        A database that cannot be opened does not end this task: the methods raise why, and it is tried again.
        Cancelled: commits that were accepted are finished (for at most 5 seconds), then everything is closed.
        """
        await self._engine.run(task_status=task_status)

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
            StoreError: the batch was not written; the caller may try again. ``appended`` tells if its lines
                were and could not be taken back.
            ValueError: a fact of the batch is none.
        """
        try:
            await self._write(batch)
        except StoreError as error:
            self.health.met(error)
            raise

    async def probe(self) -> None:
        """See whether the disk takes something now; ``health`` says what came of it.

        Waits for the writer. Cancelled: the probe's file is removed all the same.
        """
        await self._engine.probe()

    async def _write(self, batch: Batch) -> None:
        await self._engine.ready()
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
        self._engine.writer.submit(Append(done=done, batch=batch))
        with trio.CancelScope(shield=True):
            await finished.wait()
        if batch.queue:
            reach("after a queue's commit")
        if outcome[0] is not None:
            raise outcome[0]

    def release(self, thread_id: str) -> None:
        """Forget what is held in memory for a thread that is written to no more. It may be again."""
        if self._engine.is_open:
            self._engine.writer.submit(Release(thread_id=thread_id))

    async def thread(self, thread_id: str) -> ThreadRecord | None:
        """One thread, archived or not; None where there is no rollout of it."""

        def read(connection: sqlite3.Connection) -> ThreadRecord | None:
            if up_to_date(connection, self._engine.writer, self._home, thread_id) is None:
                return None
            return read_record(connection, self._home, thread_id)

        return await self._read(read)

    async def descendants(self, thread_id: str) -> list[str]:
        """The threads that this one spawned, those that they spawned, and so on, in the order of their ids.

        Ids grow with time, so parents come first.

        Waits for the background rebuild, so that none is left out.
        """
        await self._engine.whole_index()

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
        """The thread's queue, as a crash left it: claimed rows are settled by what the rollout says.

        Raises:
            InvalidRequest: rows are claimed, and there is no rollout that could settle them.
        """
        now_ms = self._runtime.now_ms()
        missing = InvalidRequest(f"no rollout found for thread id {thread_id}")

        def read(connection: sqlite3.Connection) -> StoredQueue:
            stored = read_queue(connection, thread_id)
            if not stored.claimed:
                return stored
            with open_rollout(connection, self._engine.writer, self._home, thread_id, missing):
                stored = read_queue(connection, thread_id)
                settled, operations = recovered(connection, thread_id, stored, now_ms)
            reach("before a claim is settled")
            try:
                self._engine.writer.call(Job(operations=operations))
            except StoreError as error:
                # It is settled all the same, and will be again by who loads the thread next.
                log.warning("thread %s: a settled claim was not stored: %s", thread_id, error)
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
        await self._engine.whole_index()
        return await self._read(
            lambda connection: list_threads(connection, self._engine.writer, self._home, query)
        )

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
        await self._engine.whole_index()
        query = ThreadQuery(
            cursor=cursor,
            limit=limit,
            sort_key=sort_key,
            direction=direction,
            source_kinds=source_kinds,
            archived=archived,
            matching=expression(term),
        )
        return await self._read(
            lambda connection: find_threads(connection, self._engine.writer, self._home, query)
        )

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

        def read(connection: sqlite3.Connection, _: OpenRollout) -> bool:
            found = "SELECT 1 FROM turns WHERE thread_id=? AND turn_id=?"
            return connection.execute(found, (thread_id, turn_id)).fetchone() is not None

        return await self._read_rollout(thread_id, unknown, read)

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
        missing = InvalidRequest(f"no rollout found for thread id {thread_id}")
        return await self._read_rollout(
            thread_id, missing, partial(read_resume_state, with_context=with_context)
        )

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
        await self._engine.ready()
        copy = self._copies.fork(
            self._engine.writer,
            source_id,
            record,
            last_turn_id=last_turn_id,
            before_turn_id=before_turn_id,
            exclude_open_turn=exclude_open_turn,
            at_ms=at_ms,
        )
        await run_stoppable(copy)

    async def revert(self, thread_id: str, before_turn_id: str, at_ms: int) -> None:
        """Take back the turn and all after it. The file so far is kept, a new one takes its place.

        The caller sees to it that nothing is written to the thread meanwhile. Cancelled: it was done or the
        thread is as it was.

        Raises:
            InvalidRequest: the thread has no rollout, or no such turn.
            StoreError: the thread is as it was.
        """
        await self._engine.ready()
        revision = self._runtime.new_id()
        await run_stoppable(
            self._copies.revert(self._engine.writer, thread_id, before_turn_id, revision, at_ms)
        )

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        await self._engine.ready()

        def work() -> T:
            with self._engine.readers.connection() as connection:
                return read(connection)

        limiter = self._engine.readers.limiter
        try:
            return await trio.to_thread.run_sync(work, limiter=limiter, abandon_on_cancel=True)
        except StoreError as error:
            if error.damaged:
                self.health.met(error)
            raise

    async def _history(
        self,
        thread_id: str,
        live_turn_id: str | None,
        take: Callable[[History], T],
        missing: Exception | None = None,
    ) -> T:
        def read(connection: sqlite3.Connection, rollout: OpenRollout) -> T:
            return take(History(connection, rollout, live_turn_id))

        unknown = missing or InvalidRequest(f"thread not loaded: {thread_id}")
        return await self._read_rollout(thread_id, unknown, read)

    async def _read_rollout(
        self, thread_id: str, missing: Exception, read: Callable[[sqlite3.Connection, OpenRollout], T]
    ) -> T:
        """Read of one thread, in one transaction; ``missing`` is raised where it has no rollout."""

        def work(connection: sqlite3.Connection) -> T:
            with open_rollout(connection, self._engine.writer, self._home, thread_id, missing) as rollout:
                return read(connection, rollout)

        return await self._read(work)
