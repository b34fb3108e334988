"""The one thread that writes: rollout files and the database.

Jobs wait in a queue; the thread takes all that are waiting and works them off as one group: first every
append, then one fsync per file that needs it, then one database transaction for all index rows, then the
callers are woken. Under load many commits share one fsync of the database; alone, a commit costs one.
A job that moves files ends its group: it is done after all before it and before all behind it.

The rollout is the truth and the index is derived from it. That decides every failure:

* An append that fails is cut off again and fails its caller alone; nothing of it is indexed.
* A transaction that fails is tried again job by job. An append whose rows still cannot be stored has
  happened nevertheless: its caller is told so, the stale row (its size differs from the file's) makes the
  next reader or writer index the file again.

``_live`` holds the index state of threads being written to: one row each, dropped by ``release``.
"""

from __future__ import annotations

import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from persistence.appending import encode_lines, make_folders, sync_path, write_all
from persistence.database import note_damage, open_for_writing, transact
from persistence.errors import StoreError
from persistence.facts import append_name
from persistence.fault_points import reach
from persistence.home import Home
from persistence.indexer import COLUMNS, Indexer, RolloutState, begin, parse_line, save
from persistence.jobs import NO_ROW, Append, Apply, Batch, Job, Release
from persistence.relocation import finish, relocate
from persistence.rollout_files import find_one, rank, read_lines

log = logging.getLogger(__name__)

_GROUP = 256
_SELECT_STATE = f"SELECT {', '.join(COLUMNS)} FROM rollouts WHERE thread_id=?"  # noqa: S608


class _Stop:
    pass


def load_state(connection: sqlite3.Connection, thread_id: str) -> RolloutState | None:
    """The thread's index state as stored, or None where it has none."""
    row = connection.execute(_SELECT_STATE, (thread_id,)).fetchone()
    return RolloutState(*row) if row is not None else None


class Writer:
    """Owns the writer thread. Methods other than ``start`` and ``join`` may be called from any thread."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._jobs: queue.SimpleQueue[Job | _Stop] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False  # Invariant: guarded by _lock; once True nothing is put but the stop mark.
        self._thread: threading.Thread | None = None
        self._live: dict[str, RolloutState] = {}
        self._unsynced_folders: dict[str, list[Path]] = {}

    def start(self, now_ms: int, opened: Callable[[StoreError | None], None]) -> None:
        """Start the thread; ``opened`` is called in it when the database is open or could not be."""
        self._thread = threading.Thread(
            target=self._run, args=(now_ms, opened), name="spoold-writer", daemon=True
        )
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job. Its ``done`` is called exactly once, perhaps before this returns."""
        with self._lock:
            closed = self._closed
            if not closed:
                self._jobs.put(job)
        if closed:
            job.done(StoreError("the store is closed", "closed"))

    def call(self, job: Job) -> None:
        """Submit from a worker thread and wait.

        Raises:
            StoreError: what the job failed with.
        """
        finished = threading.Event()
        outcome: list[StoreError | None] = []

        def done(error: StoreError | None) -> None:
            outcome.append(error)
            finished.set()

        job.done = done
        self.submit(job)
        finished.wait()
        if outcome[0] is not None:
            raise outcome[0]

    def stop(self) -> None:
        """Refuse new jobs; the thread ends when it has done those that wait."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._jobs.put(_Stop())

    def join(self, seconds: float) -> bool:
        """Wait for the thread's end; False if it is still at work."""
        if self._thread is None:
            return True
        self._thread.join(seconds)
        return not self._thread.is_alive()

    # Everything below runs in the writer thread.

    def _run(self, now_ms: int, opened: Callable[[StoreError | None], None]) -> None:
        path = self._home.database
        try:
            connection = open_for_writing(path, now_ms)
            finish(connection, self._home)
        except Exception as error:
            log.exception("the database cannot be opened")
            failure = StoreError(f"could not open {path}: {error}", "database", path=path)
            self.stop()
            self._refuse_waiting(failure)
            opened(failure)
            return
        opened(None)
        try:
            while self._work(connection, self._take()):
                pass
        finally:
            self.stop()
            self._refuse_waiting(StoreError("the writer has failed", "closed"))
            try:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.Error:
                log.warning("the database was closed without a checkpoint", exc_info=True)
            connection.close()

    def _refuse_waiting(self, failure: StoreError) -> None:
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            if isinstance(job, Job):
                job.done(failure)

    def _take(self) -> list[Job | _Stop]:
        group = [self._jobs.get()]
        try:
            while len(group) < _GROUP:
                group.append(self._jobs.get_nowait())
        except queue.Empty:
            pass
        return group

    def _work(self, connection: sqlite3.Connection, group: list[Job | _Stop]) -> bool:
        finished: set[int] = set()
        try:
            return self._work_off(connection, group, finished)
        except Exception as error:
            # A bug of ours. Whoever waits must hear of it, and the next group starts from the files.
            log.exception("the writer failed unexpectedly")
            self._live.clear()
            failure = StoreError(f"the writer failed unexpectedly: {error!r}", "database")
            for job in group:
                if isinstance(job, Job) and id(job) not in finished:
                    job.done(failure)
            return not any(isinstance(job, _Stop) for job in group)

    def _work_off(self, connection: sqlite3.Connection, group: list[Job | _Stop], finished: set[int]) -> bool:
        part: list[Job] = []
        for job in group:
            if isinstance(job, Job):
                part.append(job)
                if isinstance(job, Append) and job.batch is not None and job.batch.relocate is not None:
                    self._work_part(connection, part, finished)
                    part = []
        self._work_part(connection, part, finished)
        return not any(isinstance(job, _Stop) for job in group)

    def _work_part(self, connection: sqlite3.Connection, part: list[Job], finished: set[int]) -> None:
        outcomes: list[tuple[Job, StoreError | None]] = []
        to_sync: dict[Path, list[Append]] = {}
        for job in part:
            match job:
                case Append():
                    outcomes.append((job, self._guard(connection, job, to_sync)))
                case Apply():
                    self._check_apply(connection, job, part)
                    outcomes.append((job, None))
                case Release():
                    self._live.pop(job.thread_id, None)
                    outcomes.append((job, None))
                case Job():
                    outcomes.append((job, None))
        if to_sync:
            reach("before the flush")
        failures = self._sync(to_sync)
        reach("before the transaction")
        database_failures = self._transact(connection, [job for job, error in outcomes if job.operations])
        reach("after COMMIT")
        for job, failure in outcomes:
            error = failure or failures.get(id(job)) or database_failures.get(id(job))
            if error is None and isinstance(job, Append) and job.batch is not None:
                error = self._after_commit(connection, job.batch)
            finished.add(id(job))
            job.done(error)
        reach("after the callers are told")

    def _after_commit(self, connection: sqlite3.Connection, batch: Batch) -> StoreError | None:
        if "name" in batch.facts:
            append_name(self._home, batch.thread_id, batch.facts["name"], batch.now_ms)
        if batch.relocate is None:
            return None
        thread_ids = [batch.thread_id, *batch.also]
        for thread_id in thread_ids:
            self._live.pop(thread_id, None)
        try:
            relocate(connection, self._home, batch.relocate, thread_ids, batch.now_ms)
        except StoreError as error:
            return error
        except (sqlite3.Error, OSError) as error:
            what = f"could not {batch.relocate} thread {batch.thread_id}: {error}"
            return StoreError(what, "database", path=self._home.database)
        return None

    def _guard(
        self, connection: sqlite3.Connection, job: Append, to_sync: dict[Path, list[Append]]
    ) -> StoreError | None:
        assert job.batch is not None
        thread_id = job.batch.thread_id
        try:
            more = job.batch.fact_operations()
            path = self._append(connection, job, job.batch) if job.batch.lines else None
            job.operations += more
        except StoreError as error:
            return error
        except sqlite3.Error as error:
            self._live.pop(thread_id, None)
            return StoreError(f"could not read the index: {error}", "database", path=self._home.database)
        except Exception as error:
            log.exception("an append failed unexpectedly")
            self._live.pop(thread_id, None)
            return StoreError(f"could not append to thread {thread_id}: {error!r}", "disk")
        if job.batch.fsync and path is not None:
            to_sync.setdefault(path, []).append(job)
        return None

    def _append(self, connection: sqlite3.Connection, job: Append, batch: Batch) -> Path:
        path, flags = self._locate(connection, batch), os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
        if batch.create is not None:
            self._make_folders(batch.thread_id, path.parent)
            flags |= os.O_CREAT | os.O_EXCL
        try:
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise StoreError.from_os("open", path, error) from error
        try:
            indexer = self._indexer(connection, batch.thread_id, path, descriptor, batch.create is not None)
            base = replace(indexer.state)
            catching_up = len(indexer.operations)
            pieces = encode_lines(indexer, batch.lines)
            try:
                write_all(descriptor, b"".join(pieces))
                status = os.fstat(descriptor)
            except OSError as error:
                self._cut_off(job, indexer, base, catching_up, descriptor, path, batch.create is not None)
                raise StoreError.from_os("append to", path, error) from error
        finally:
            os.close(descriptor)
        indexer.state.file_size, indexer.state.file_mtime_ns = status.st_size, status.st_mtime_ns
        self._live[batch.thread_id] = indexer.state
        job.operations = [*indexer.operations, save(indexer.state)]
        return path

    def _locate(self, connection: sqlite3.Connection, batch: Batch) -> Path:
        if batch.create is not None:
            return batch.create
        state = self._live.get(batch.thread_id) or load_state(connection, batch.thread_id)
        if state is not None and (path := self._home.root / state.path).exists():
            return path
        self._live.pop(batch.thread_id, None)
        found = find_one(self._home, batch.thread_id)
        if found is None:
            raise StoreError(f"no rollout found for thread id {batch.thread_id}", "disk")
        return found.path

    def _make_folders(self, thread_id: str, folder: Path) -> None:
        try:
            # A new file is on the disk only when every folder that got a new name is.
            self._unsynced_folders[thread_id] = make_folders(folder)
        except OSError as error:
            raise StoreError.from_os("make", folder, error) from error

    def _indexer(
        self, connection: sqlite3.Connection, thread_id: str, path: Path, descriptor: int, new: bool
    ) -> Indexer:
        """The thread's indexer, caught up with the file, whose last byte then is a newline."""
        status = os.fstat(descriptor)
        state = None if new else self._live.get(thread_id) or load_state(connection, thread_id)
        relative = str(path.relative_to(self._home.root))
        known = state is not None and state.path == relative
        unchanged = known and state is not None and (
            (state.file_size, state.file_mtime_ns) == (status.st_size, status.st_mtime_ns)
        )  # fmt: skip
        if state is not None and unchanged:
            indexer = Indexer(replace(state))
        else:
            archived = int(path.is_relative_to(self._home.archived_sessions))
            state = RolloutState(thread_id, relative, archived)
            indexer = Indexer(state, begin(state))
        if indexer.state.indexed_bytes < status.st_size:
            if os.pread(descriptor, 1, status.st_size - 1) != b"\n":
                # A crash left half a line: end it, so that it spoils nothing but itself.
                try:
                    write_all(descriptor, b"\n")
                except OSError as error:
                    raise StoreError.from_os("append to", path, error) from error
            for offset, length, raw in read_lines(descriptor, indexer.state.indexed_bytes):
                indexer.feed(offset, length, parse_line(raw) if raw is not None else None)
        return indexer

    def _cut_off(
        self,
        job: Append,
        indexer: Indexer,
        base: RolloutState,
        catching_up: int,
        descriptor: int,
        path: Path,
        new: bool,
    ) -> None:
        """Take back a half-done append; what cannot be taken back is indexed by the next one."""
        self._live.pop(base.thread_id, None)
        try:
            if new:
                path.unlink()
                return
            os.ftruncate(descriptor, base.indexed_bytes)
            status = os.fstat(descriptor)
        except OSError:
            log.warning("could not cut off a failed append to %s", path, exc_info=True)
            return
        base.file_size, base.file_mtime_ns = status.st_size, status.st_mtime_ns
        self._live[base.thread_id] = base
        job.operations = [*indexer.operations[:catching_up], save(base)]

    def _check_apply(self, connection: sqlite3.Connection, job: Apply, group: Iterable[Job]) -> None:
        assert job.state is not None
        thread_id = job.state.thread_id
        # Rows of this thread that the group has not stored yet are newer than what the scan began with.
        pending = any(_moves(other, thread_id) for other in group)
        current = self._live.get(thread_id) or load_state(connection, thread_id)
        at = NO_ROW if current is None else current.indexed_bytes
        if pending or at != job.expected or self._is_superseded(current, job.state):
            job.operations = []
            return
        self._live.pop(thread_id, None)
        job.applied = True

    def _is_superseded(self, current: RolloutState | None, scanned: RolloutState) -> bool:
        """Whether the scanned file is the thread's rollout no more: moved, removed, or reverted meanwhile."""
        path = self._home.root / scanned.path
        if not path.exists():
            return True
        if current is None or current.path == scanned.path:
            return False
        other = self._home.root / current.path
        return rank(self._home, other) > rank(self._home, path) and other.exists()

    def _sync(self, to_sync: dict[Path, list[Append]]) -> dict[int, StoreError]:
        failures: dict[int, StoreError] = {}
        for path, jobs in to_sync.items():
            try:
                sync_path(path)
                for job in jobs:
                    assert job.batch is not None
                    for folder in self._unsynced_folders.get(job.batch.thread_id, ()):
                        sync_path(folder)
                    self._unsynced_folders.pop(job.batch.thread_id, None)
            except OSError as error:
                failure = StoreError.from_os("flush", path, error)
                failures.update({id(job): failure for job in jobs})
        return failures

    def _transact(self, connection: sqlite3.Connection, jobs: Sequence[Job]) -> dict[int, StoreError]:
        if not jobs:
            return {}
        try:
            transact(connection, [operation for job in jobs for operation in job.operations])
        except Exception as error:
            if isinstance(error, sqlite3.Error):
                note_damage(self._home.database, error)
            if len(jobs) == 1:
                return self._index_failed(jobs[0], error)
            failures: dict[int, StoreError] = {}
            behind: set[str] = set()
            for job in jobs:
                # Rows of a later append would claim that an earlier one of the thread is indexed.
                batch = job.batch if isinstance(job, Append) else None
                thread_id = batch.thread_id if batch is not None and batch.lines else ""
                if thread_id not in behind:
                    failed = self._transact(connection, [job])
                    failures.update(failed)
                    if thread_id and thread_id not in self._live:
                        behind.add(thread_id)
                elif batch is not None and batch.fact_operations():
                    failures[id(job)] = StoreError(f"could not write the index: {error}", "database")
            return failures
        return {}

    def _index_failed(self, job: Job, error: Exception) -> dict[int, StoreError]:
        if isinstance(job, Append) and job.batch is not None and job.batch.lines:
            log.error("thread %s is written but not indexed: %s", job.batch.thread_id, error)
            self._live.pop(job.batch.thread_id, None)
            if not job.batch.fact_operations():
                return {}
        failure = StoreError(f"could not write the index: {error}", "database", path=self._home.database)
        return {id(job): failure}


def _moves(job: Job, thread_id: str) -> bool:
    match job:
        case Append():
            return job.batch is not None and job.batch.thread_id == thread_id and bool(job.batch.lines)
        case Apply():
            return job.applied and job.state is not None and job.state.thread_id == thread_id
    return False
