"""Appending to rollouts, and taking an append back.

The writer works off groups of commits. Between ``begin`` and the next one the appender remembers what each
append of the group found, so that a commit that fails in its second half, when its lines are flushed or its
rows stored, leaves the file as it was: a caller that is told "not written" must find nothing written. What
was appended to the same file behind it goes with it.

Taking back restores the file's time of change, too: the index, which may not be writable just then, fits
again. What was flushed is on the disk, so its end is flushed as well: else a power cut would bring back what
was answered with an error. What can neither be written nor taken back is indexed by whoever reads or appends
next.

``live`` holds the index state of the threads that are written to.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from dataclasses import dataclass, replace
from pathlib import Path

from persistence.appending import made, remove, sync_path, write_all
from persistence.errors import StoreError
from persistence.home import Home, make_folders
from persistence.indexer import COLUMNS, Indexer, Line, RolloutState, begin, parse_line, save
from persistence.jobs import Append, Batch
from persistence.rollout_files import find_one, read_lines
from persistence.rollout_lines import RolloutLine, as_legacy, encode_line

log = logging.getLogger(__name__)

_SELECT_STATE = f"SELECT {', '.join(COLUMNS)} FROM rollouts WHERE thread_id=?"  # noqa: S608


def load_state(connection: sqlite3.Connection, thread_id: str) -> RolloutState | None:
    """The thread's index state as stored, or None where it has none."""
    row = connection.execute(_SELECT_STATE, (thread_id,)).fetchone()
    return RolloutState(*row) if row is not None else None


@dataclass(slots=True)
class _Appended:
    """One append of the group, and what the file was before it.

    Attributes:
        before: the thread's state with the file's size and time as they were; None where they cannot be had
            again because the index had to catch up with the file first.
        size, mtime_ns: the file's; -1 where this append has made it.
    """

    job: Append
    before: RolloutState | None
    size: int
    mtime_ns: int


class Appender:
    """Used by the writer thread alone.

    Attributes:
        live: by thread id. Invariant: each describes its rollout as all appends have left it.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self.live: dict[str, RolloutState] = {}
        # By thread id the file whose name is on the disk; and the folders whose own names are.
        self._named: dict[str, Path] = {}
        self._named_folders: set[Path] = set()
        # Invariant: of each file in the order in which the group has appended to it.
        self._group: dict[Path, list[_Appended]] = {}
        # The files that the group has flushed, or tried to: what it has appended to them may be on the disk.
        self._flushed: set[Path] = set()

    def begin(self) -> None:
        """A new group: nothing that was appended before can be taken back any more."""
        self._group.clear()
        self._flushed.clear()

    def append(self, connection: sqlite3.Connection, job: Append) -> None:
        """Append the job's lines and put the rows they make into its operations.

        Raises:
            StoreError: the file is as it was.
            sqlite3.Error: the index cannot be read; the file is as it was.
        """
        batch = job.batch
        assert batch is not None
        path, flags = self._locate(connection, batch), os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
        if batch.create is not None:
            self._make_folders(path.parent)
            flags |= os.O_CREAT | os.O_EXCL
        try:
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise StoreError.from_os("open", path, error) from error
        if batch.create is not None:
            made(path)
        try:
            indexer = self._indexer(connection, batch.thread_id, path, descriptor, batch.create is not None)
            status = os.fstat(descriptor)
            before = replace(indexer.state, file_size=status.st_size, file_mtime_ns=status.st_mtime_ns)
            appended = _Appended(
                job,
                None if indexer.operations or batch.create is not None else before,
                status.st_size if batch.create is None else -1,
                status.st_mtime_ns,
            )
            pieces = _encode_lines(indexer, batch.lines)
            try:
                write_all(descriptor, b"".join(pieces))
                status = os.fstat(descriptor)
            except OSError as error:
                failure = StoreError.from_os("append to", path, error)
                failure.appended = not self._undo(path, appended)
                raise failure from error
        finally:
            os.close(descriptor)
        self._group.setdefault(path, []).append(appended)
        indexer.state.file_size, indexer.state.file_mtime_ns = status.st_size, status.st_mtime_ns
        indexer.state.unflushed = int(not batch.fsync)
        self.live[batch.thread_id] = indexer.state
        job.operations = [*indexer.operations, save(indexer.state)]

    def make_sure(self, connection: sqlite3.Connection, job: Append) -> None:
        """Put the thread's rollout on the disk, as far as it is not there.

        What a job without lines stores may be lost with the file: a queued turn with its thread.

        Raises:
            StoreError: it cannot be flushed.
            sqlite3.Error: the index cannot be read.
        """
        assert job.batch is not None
        thread_id = job.batch.thread_id
        state = self.live.get(thread_id) or load_state(connection, thread_id)
        path = None if state is None else self._home.root / state.path
        if state is None or path is None or not path.exists():
            return
        if not state.unflushed and self._named.get(thread_id) == path:
            return
        try:
            self._flush(path, job)
        except OSError as error:
            raise StoreError.from_os("flush", path, error) from error
        state.unflushed = 0
        job.operations.append(("UPDATE rollouts SET unflushed=0 WHERE thread_id=?", (thread_id,)))

    def flush(self) -> dict[int, StoreError]:
        """Put on the disk what of the group asks for it; what cannot be is taken back.

        Returns:
            The failures, by the id of the job.
        """
        failures: dict[int, StoreError] = {}
        for path, group in list(self._group.items()):
            asking = [each.job for each in group if each.job.batch is not None and each.job.batch.fsync]
            try:
                if asking:
                    self._flush(path, asking[0])
            except OSError as error:
                failures.update(self.take_back(asking[0], StoreError.from_os("flush", path, error)))
        return failures

    def take_back(self, job: Append, failure: StoreError) -> dict[int, StoreError]:
        """Undo the job's append and those of the group behind it in the same file.

        Returns:
            ``failure`` for each of them, by the id of the job; it says so if the lines are still there.
        """
        for path, group in self._group.items():
            at = next((index for index, each in enumerate(group) if each.job is job), None)
            if at is None:
                continue
            gone, group[at:] = group[at:], []
            failure.appended = not self._undo(path, gone[0])
            return {id(each.job): failure for each in gone}
        return {id(job): failure}

    def release(self, thread_id: str) -> None:
        """Forget what is held of a thread."""
        self.live.pop(thread_id, None)
        self._named.pop(thread_id, None)

    def _flush(self, path: Path, job: Append) -> None:
        """Put a file on the disk, and its name, if that is not known to be there."""
        assert job.batch is not None
        thread_id = job.batch.thread_id
        self._flushed.add(path)
        sync_path(path)
        if self._named.get(thread_id) == path:
            return
        folders = self._home.folders_above(path)
        for folder in folders:
            sync_path(folder)
            if folder in self._named_folders:
                break
        self._named_folders.update(folders)
        self._named[thread_id] = path

    def _undo(self, path: Path, appended: _Appended) -> bool:
        """Make the file what it was before the append; whether that worked."""
        assert appended.job.batch is not None
        thread_id = appended.job.batch.thread_id
        self.live.pop(thread_id, None)
        try:
            if appended.size < 0:
                self._named.pop(thread_id, None)
                remove(path)
            else:
                os.truncate(path, appended.size)
                status = path.stat()
                os.utime(path, ns=(status.st_atime_ns, appended.mtime_ns))
        except OSError:
            log.warning("could not cut off a failed append to %s", path, exc_info=True)
            return False
        if appended.before is not None:
            self.live[thread_id] = appended.before
        if path in self._flushed:
            try:
                sync_path(path.parent if appended.size < 0 else path)
            except OSError as error:
                # Nobody finds it while the power stays on, and the next flush may make up for this one.
                log.warning("a failed append to %s may be back after a power cut: %s", path, error)
        return True

    def _locate(self, connection: sqlite3.Connection, batch: Batch) -> Path:
        if batch.create is not None:
            return batch.create
        state = self.live.get(batch.thread_id) or load_state(connection, batch.thread_id)
        if state is not None and (path := self._home.root / state.path).exists():
            return path
        self.live.pop(batch.thread_id, None)
        found = find_one(self._home, batch.thread_id)
        if found is None:
            raise StoreError(f"no rollout found for thread id {batch.thread_id}", "disk")
        return found.path

    def _make_folders(self, folder: Path) -> None:
        try:
            self._named_folders.difference_update(make_folders(folder))
        except OSError as error:
            raise StoreError.from_os("make", folder, error) from error

    def _indexer(
        self, connection: sqlite3.Connection, thread_id: str, path: Path, descriptor: int, new: bool
    ) -> Indexer:
        """The thread's indexer, caught up with the file, whose last byte then is a newline."""
        status = os.fstat(descriptor)
        state = None if new else self.live.get(thread_id) or load_state(connection, thread_id)
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


def _encode_lines(indexer: Indexer, lines: list[RolloutLine]) -> list[bytes]:
    """The lines' bytes, each fed to the index as if it were already in the file."""
    state, pieces = indexer.state, []
    offset = state.indexed_bytes
    for line in lines:
        legacy = state.history_mode == "legacy"
        for each in as_legacy(line) if legacy else (line,):
            ordinal = None if legacy else state.next_ordinal
            piece = encode_line(each, ordinal)
            indexer.feed(offset, len(piece), Line(each.timestamp_ms, ordinal, each.type, each.payload))
            offset += len(piece)
            pieces.append(piece)
    return pieces
