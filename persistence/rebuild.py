"""Bringing the whole index up to date with the files, in the background of a start.

Runs in one worker thread: lists the rollout files, indexes those whose row is missing or stale, drops
rows whose file is gone, and reads the names of renamed threads.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from persistence.appender import load_state
from persistence.errors import StoreError
from persistence.facts import name_operations
from persistence.home import Home
from persistence.jobs import Apply, Job
from persistence.readers import Readers
from persistence.rollout_files import FoundFile, find_all
from persistence.scan import index_file, up_to_date
from persistence.writer import Writer

log = logging.getLogger(__name__)

_UNDER_WAY = 128
"""Pieces the writer may hold unfinished."""

_Row = tuple[str, int, int]
"""A file as its row knows it: path in the home, size, time of change."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild did, in files."""

    found: int
    indexed: int
    dropped: int


class _Pipeline:
    """Hands pieces to the writer without waiting for each, so that many files share one transaction.

    Attributes:
        refused: threads whose row or file somebody else has moved meanwhile. Complete after ``flush``.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._free = threading.Semaphore(_UNDER_WAY)
        self._failure: StoreError | None = None
        self.refused: set[str] = set()

    def put(self, job: Apply) -> None:
        """Wait for room, then hand over.

        Raises:
            StoreError: an earlier piece could not be stored.
        """
        self._free.acquire()
        if self._failure is not None:
            raise self._failure
        job.done = partial(self._done, job)
        self._writer.submit(job)

    def flush(self) -> None:
        """Wait until everything is stored.

        Raises:
            StoreError: something could not be.
        """
        self._writer.call(Job())
        if self._failure is not None:
            raise self._failure

    def _done(self, job: Apply, error: StoreError | None) -> None:
        self._failure = self._failure or error
        if job.state is not None and not job.applied:
            self.refused.add(job.state.thread_id)
        job.operations = []  # it is held by its own ``done``
        self._free.release()


def rebuild(writer: Writer, readers: Readers, home: Home, stopped: threading.Event) -> Rebuilt:
    """Bring the index up to date. A file that cannot be read is logged and left out.

    Ends early, without harm, once ``stopped`` is set.

    Raises:
        StoreError: the index itself cannot be read or written.
    """
    pipeline = _Pipeline(writer)
    with readers.connection() as connection:
        known: dict[str, _Row] = {
            row["thread_id"]: (row["path"], row["file_size"], row["file_mtime_ns"])
            for row in connection.execute("SELECT thread_id, path, file_size, file_mtime_ns FROM rollouts")
        }
        seen: set[str] = set()
        indexed = dropped = 0
        for found in find_all(home):
            if stopped.is_set():
                return Rebuilt(len(seen), indexed, dropped)
            seen.add(found.thread_id)
            if known.get(found.thread_id) != _row_of(home, found):
                indexed += 1
                # An index from nothing may be of thousands of files that were written long ago.
                _index(connection, writer, home, found, stopped, pipeline, flush=bool(known))
        pipeline.flush()
        for thread_id in (known.keys() - seen) | pipeline.refused:
            if stopped.is_set():
                break
            with _whatever_it_holds(thread_id):
                dropped += up_to_date(connection, writer, home, thread_id) is None
        if names := name_operations(connection, home):
            writer.call(Job(operations=names))
    return Rebuilt(len(seen), indexed, dropped)


def _row_of(home: Home, found: FoundFile) -> _Row:
    return str(found.path.relative_to(home.root)), found.size, found.mtime_ns


def _index(
    connection: sqlite3.Connection,
    writer: Writer,
    home: Home,
    found: FoundFile,
    stopped: threading.Event,
    pipeline: _Pipeline,
    *,
    flush: bool,
) -> None:
    with _whatever_it_holds(found.thread_id), writer.scans.of(found.thread_id, stopped) as ours:
        base = load_state(connection, found.thread_id)
        known = None if base is None else (base.path, base.file_size, base.file_mtime_ns)
        if not ours or known == _row_of(home, found):
            return
        if not index_file(writer, home, found, base, stopped, pipeline.put, flush=flush):
            pipeline.refused.add(found.thread_id)


@contextmanager
def _whatever_it_holds(thread_id: str) -> Iterator[None]:
    """One file that cannot be read, or trips the indexer, must not hide all the others."""
    try:
        yield
    except sqlite3.Error:
        raise  # the index is what cannot be read
    except StoreError as error:
        if error.fault != "disk":
            raise
        log.warning("a rollout cannot be indexed: %s", error)
    except Exception:
        log.exception("the rollout of thread %s cannot be indexed", thread_id)
