"""The one thread that writes: rollout files and the database.

Jobs wait in a queue; the thread takes all that are waiting and works them off as one group: first every
append, then one fsync per file that needs it, then one database transaction for all index rows, then the
callers are woken. Under load many commits share one fsync of the database; alone, a commit costs one.
A job that moves files ends its group, as does one that drops a row: it is done after all before it and before
all behind it.

The rollout is the truth and the index is derived from it. That decides every failure:

* An append or a flush that fails is taken back (``persistence.appender``) and fails its caller alone.
* A transaction that fails is tried again job by job, unless what failed it would fail every other. A job
  whose rows cannot be stored has not happened: what it has appended is taken back, too.
* Only where the database is damaged do mere lines stay: the rollout is whole without its index, and the
  next start makes another. The stale row (its size differs from the file's) shows what is missing.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from persistence.appender import Appender, load_state
from persistence.database import note_damage, open_for_writing, transact
from persistence.errors import StoreError, fails_everything, is_damage
from persistence.facts import append_name
from persistence.fault_points import reach
from persistence.home import Home
from persistence.indexer import RolloutState, distrust_unflushed
from persistence.jobs import NO_ROW, Append, Apply, Batch, Drop, Job, Release
from persistence.relocation import finish, relocate
from persistence.rollout_files import rank
from persistence.single_flight import SingleFlight

log = logging.getLogger(__name__)

_GROUP = 256


class _Stop:
    pass


class Writer:
    """Owns the writer thread. Methods other than ``start`` and ``join`` may be called from any thread.

    Attributes:
        notices: what was found at the opening that users should know. Invariant: complete when the database
            has been opened.
        scans: the ids of the threads whose files are being indexed, each by one thread. Two at one file would
            undo each other's pieces.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._jobs: queue.SimpleQueue[Job | _Stop] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False  # Invariant: guarded by _lock; once True nothing is put but the stop mark.
        self._thread: threading.Thread | None = None
        self._appender = Appender(home)
        self.notices: list[str] = []
        self.scans = SingleFlight()

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
        connection = self._open(now_ms, opened)
        if connection is None:
            return
        try:
            while self._work(connection, self._take()):
                pass
        finally:
            self._close(connection)

    def _open(self, now_ms: int, opened: Callable[[StoreError | None], None]) -> sqlite3.Connection | None:
        path = self._home.database
        try:
            connection = open_for_writing(path, now_ms, self.notices)
            finish(connection, self._home)
            transact(connection, [distrust_unflushed()])
        except Exception as error:
            log.exception("the database cannot be opened")
            failure = StoreError.from_sqlite(f"open {path}", path, error)
            if isinstance(error, OSError):
                failure = StoreError.from_os("open", path, error)
            self.stop()
            self._refuse_waiting(failure)
            opened(failure)
            return None
        opened(None)
        return connection

    def _close(self, connection: sqlite3.Connection) -> None:
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
        for _ in self._stages(connection, group):
            pass
        return not any(isinstance(job, _Stop) for job in group)

    def _stages(self, connection: sqlite3.Connection, group: list[Job | _Stop]) -> Iterator[None]:
        """Work the group off. Where it yields, others see what is done so far; the thread goes on at once."""
        finished: set[int] = set()
        try:
            part: list[Job] = []
            for job in group:
                if isinstance(job, Job):
                    part.append(job)
                    if _ends_its_group(job):
                        yield from self._work_part(connection, part, finished)
                        part = []
            yield from self._work_part(connection, part, finished)
        except Exception as error:
            # A bug of ours. Whoever waits must hear of it, and the next group starts from the files.
            log.exception("the writer failed unexpectedly")
            self._appender.live.clear()
            failure = StoreError(f"the writer failed unexpectedly: {error!r}", "database")
            for job in group:
                if isinstance(job, Job) and id(job) not in finished:
                    job.done(failure)

    def _work_part(
        self, connection: sqlite3.Connection, part: list[Job], finished: set[int]
    ) -> Iterator[None]:
        failures: dict[int, StoreError] = {}
        self._appender.begin()
        for job in part:
            match job:
                case Append():
                    if (failure := self._append(connection, job)) is not None:
                        failures[id(job)] = failure
                case Apply():
                    self._check_apply(connection, job, part)
                case Drop():
                    self._check_drop(connection, job)
                case Release():
                    self._appender.release(job.thread_id)
        yield
        reach("before the flush")
        failures.update(self._appender.flush())
        yield
        reach("before the transaction")
        to_store = [job for job in part if job.operations and id(job) not in failures]
        failures.update(self._transact(connection, to_store))
        reach("after COMMIT")
        yield
        for job in part:
            error = failures.get(id(job))
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
            self._appender.live.pop(thread_id, None)
        failure: StoreError | None = None
        try:
            relocate(connection, self._home, batch.relocate, thread_ids, batch.now_ms)
        except StoreError as error:
            failure = error
        except sqlite3.Error as error:
            doing = f"{batch.relocate} thread {batch.thread_id}"
            failure = StoreError.from_sqlite(doing, self._home.database, error)
        except OSError as error:
            failure = StoreError.from_os(batch.relocate, self._home.root, error)
        if failure is not None:
            failure.appended = bool(batch.lines)
        return failure

    def _append(self, connection: sqlite3.Connection, job: Append) -> StoreError | None:
        assert job.batch is not None
        thread_id = job.batch.thread_id
        try:
            more = job.batch.fact_operations()
            if job.batch.lines:
                self._appender.append(connection, job)
            elif job.batch.fsync:
                self._appender.make_sure(connection, job)
            job.operations += more
        except StoreError as error:
            return error
        except sqlite3.Error as error:
            self._appender.live.pop(thread_id, None)
            return StoreError.from_sqlite("read the index", self._home.database, error)
        except Exception as error:
            log.exception("an append failed unexpectedly")
            self._appender.live.pop(thread_id, None)
            return StoreError(f"could not append to thread {thread_id}: {error!r}", "disk")
        return None

    def _check_apply(self, connection: sqlite3.Connection, job: Apply, group: Iterable[Job]) -> None:
        assert job.state is not None
        thread_id = job.state.thread_id
        # Rows of this thread that the group has not stored yet are newer than what the scan began with.
        pending = any(_moves(other, thread_id) for other in group)
        current = self._appender.live.get(thread_id) or load_state(connection, thread_id)
        at = NO_ROW if current is None else current.indexed_bytes
        if pending or at != job.expected or self._is_superseded(current, job.state):
            job.operations = []
            return
        self._appender.live.pop(thread_id, None)
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

    def _check_drop(self, connection: sqlite3.Connection, job: Drop) -> None:
        current = self._appender.live.get(job.thread_id) or load_state(connection, job.thread_id)
        # We move no file without its row. So where the row is another one now, the file has moved.
        if current is None or current.path != job.path or not _is_gone(self._home.root / job.path):
            job.operations = []
            return
        self._appender.release(job.thread_id)
        job.dropped = True

    def _transact(self, connection: sqlite3.Connection, jobs: Sequence[Job]) -> dict[int, StoreError]:
        """Store the operations of the jobs; the failures, by the id of the job."""
        if not jobs:
            return {}
        try:
            transact(connection, [operation for job in jobs for operation in job.operations])
        except Exception as error:
            if isinstance(error, sqlite3.Error):
                note_damage(self._home.database, error)
            if len(jobs) == 1 or fails_everything(error):
                return self._not_stored(jobs, error)
            failures: dict[int, StoreError] = {}
            for job in jobs:
                # It may have been taken back with one before it.
                if id(job) not in failures:
                    failures.update(self._transact(connection, [job]))
            return failures
        return {}

    def _not_stored(self, jobs: Sequence[Job], error: Exception) -> dict[int, StoreError]:
        failures: dict[int, StoreError] = {}
        for job in jobs:
            if id(job) in failures:
                continue
            failure = StoreError.from_sqlite(f"write {self._home.database}", self._home.database, error)
            failures[id(job)] = failure
            if not isinstance(job, Append) or job.batch is None or not job.batch.lines:
                continue
            if is_damage(error) and not job.batch.fact_operations():
                log.error("thread %s is written but not indexed: %s", job.batch.thread_id, error)
                self._appender.live.pop(job.batch.thread_id, None)
                del failures[id(job)]
                continue
            failures.update(self._appender.take_back(job, failure))
        return failures


def _ends_its_group(job: Job) -> bool:
    match job:
        case Append():
            return job.batch is not None and job.batch.relocate is not None
        case Drop():
            return True
    return False


def _is_gone(path: Path) -> bool:
    """Whether there certainly is no such file."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError as error:
        log.warning("could not look at %s: %s", path, error)
    return False


def _moves(job: Job, thread_id: str) -> bool:
    match job:
        case Append():
            return job.batch is not None and job.batch.thread_id == thread_id and bool(job.batch.lines)
        case Apply():
            return job.applied and job.state is not None and job.state.thread_id == thread_id
    return False
