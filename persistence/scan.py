"""Indexing a rollout file from its first byte, in a worker thread, beside the live writer.

A file of any size goes through in pieces: each piece is a prefix of the file with its rows, stored only
if the thread's index still stands where the piece before left it. Whoever else moved it (the live writer, a
file that took its place) has newer knowledge and wins; the loser stops. Two scans of one file would stop each
other for ever, so whoever begins one has the thread in ``Writer.scans``.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from persistence.appender import load_state
from persistence.appending import sync
from persistence.errors import StoreError
from persistence.home import Home
from persistence.indexer import Indexer, RolloutState, begin, forget, parse_line, save
from persistence.jobs import NO_ROW, Apply, Drop, Job
from persistence.rollout_files import FoundFile, find_one, read_lines
from persistence.writer import Writer

log = logging.getLogger(__name__)

_PIECE = 2_000
"""Operations; a piece this large is stored before the scan goes on."""
_ATTEMPTS = 8


def index_file(
    writer: Writer,
    home: Home,
    found: FoundFile,
    base: RolloutState | None,
    stopped: threading.Event | None = None,
    hand_over: Callable[[Apply], None] | None = None,
    *,
    flush: bool = True,
) -> bool:
    """Index a file anew. ``base`` is the thread's row as it was when the file was found stale.

    The caller has the thread in ``Writer.scans``.

    What the index knows must not be lost in a power cut, and who wrote the file may have died before it was
    flushed: it is flushed here, unless ``flush`` is False.

    With ``hand_over`` the last piece (for most files the only one) is given to it instead of being waited
    for, and counts as stored.

    Returns:
        Whether the index now holds the file; False: something else moved the row, look again; or
        ``stopped`` was set.

    Raises:
        StoreError: the file cannot be read or the index cannot be written.
    """
    try:
        descriptor = os.open(found.path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreError.from_os("open", found.path, error) from error
    try:
        status = os.fstat(descriptor)
        state = RolloutState(found.thread_id, str(found.path.relative_to(home.root)), int(found.archived))
        indexer = Indexer(state, begin(state))
        expected = NO_ROW if base is None else base.indexed_bytes
        for offset, length, raw in read_lines(descriptor, 0):
            indexer.feed(offset, length, parse_line(raw) if raw is not None else None)
            if len(indexer.operations) >= _PIECE:
                if not _store(writer, indexer, expected):
                    return False
                expected = state.indexed_bytes
            if stopped is not None and stopped.is_set():
                return False
        state.file_size, state.file_mtime_ns = status.st_size, status.st_mtime_ns
        state.unflushed = int(flush and not _flushed(descriptor))
        if hand_over is not None:
            hand_over(_piece(indexer, expected))
            return True
        return _store(writer, indexer, expected)
    except OSError as error:
        raise StoreError.from_os("read", found.path, error) from error
    finally:
        os.close(descriptor)


def _flushed(descriptor: int) -> bool:
    try:
        sync(descriptor)
    except OSError as error:
        log.warning("a rollout is indexed that could not be flushed: %s", error)
        return False
    return True


def _piece(indexer: Indexer, expected: int) -> Apply:
    state = replace(indexer.state)
    job = Apply(operations=[*indexer.operations, save(state)], state=state, expected=expected)
    indexer.operations.clear()
    return job


def _store(writer: Writer, indexer: Indexer, expected: int) -> bool:
    job = _piece(indexer, expected)
    writer.call(job)
    return job.applied


def drop(writer: Writer, missed: RolloutState) -> bool:
    """Take a thread whose file was not found out of the index.

    Returns:
        Whether it was; False: the file was moved while it was looked for, or is back, look again.
    """
    thread_id = missed.thread_id
    operations = [*forget(thread_id), ("DELETE FROM threads WHERE thread_id=?", (thread_id,))]
    job = Drop(operations=operations, thread_id=thread_id, path=missed.path)
    writer.call(job)
    return job.dropped


def is_fresh(home: Home, state: RolloutState) -> bool:
    """Whether the file still is as it was when it was indexed."""
    try:
        status = (home.root / state.path).stat()
    except OSError:
        return False
    return (state.file_size, state.file_mtime_ns) == (status.st_size, status.st_mtime_ns)


def up_to_date(
    connection: sqlite3.Connection, writer: Writer, home: Home, thread_id: str
) -> RolloutState | None:
    """One thread's index state, after indexing its file if that is missing or stale.

    Returns:
        None where the thread has no rollout file.

    Raises:
        StoreError: the file or the index cannot be read or written.
    """
    state = load_state(connection, thread_id)
    if state is not None and is_fresh(home, state):
        return state
    if state is not None:
        # Usually a commit is on its way: written to the file, not yet to the index.
        writer.call(Job())
        state = load_state(connection, thread_id)
        if state is not None and is_fresh(home, state):
            return state
    with writer.scans.of(thread_id):
        for _ in range(_ATTEMPTS):
            state = load_state(connection, thread_id)
            if state is not None and is_fresh(home, state):
                return state
            found = _find(home, thread_id, state)
            if found is not None:
                index_file(writer, home, found, state)
            elif state is None or drop(writer, state):
                return None
    # The file grows faster than it can be read: what is indexed is a true prefix of it.
    return load_state(connection, thread_id)


def _find(home: Home, thread_id: str, state: RolloutState | None) -> FoundFile | None:
    if state is not None:
        path = Path(home.root / state.path)
        try:
            status = path.stat()
        except OSError:
            pass
        else:
            return FoundFile(thread_id, path, bool(state.archived), status.st_size, status.st_mtime_ns)
    return find_one(home, thread_id)
