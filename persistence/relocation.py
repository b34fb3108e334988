"""Archiving, unarchiving and deleting threads, so that a kill at any instruction leaves no half.

Files and rows cannot change in one step. So first the intent is committed to the table ``relocations``, then
the files are moved and their folders flushed, then one transaction brings the rows up to date and takes the
intents out. A start finishes whatever intents it finds: killed before the first commit nothing has happened,
killed after it everything will have. Moving again what is already moved does nothing.

Forks and reverts, which write a new file, leave an intent too: a start that finds one looks whether the file
came to its name. If so it is indexed by the rebuild like any other; if not, what was written is removed.

Everything here runs in the writer thread, on its connection.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from persistence.appending import move, remove, sync_path
from persistence.database import Operation, transact
from persistence.errors import StoreError
from persistence.facts import forget_facts, set_updated
from persistence.home import Home, make_folders
from persistence.indexer import forget
from persistence.rollout_files import active_path, find_beside, find_files, is_reverted

log = logging.getLogger(__name__)

Action = Literal["archive", "unarchive", "delete"]

_COPYING = "copy"


def relocate(
    connection: sqlite3.Connection, home: Home, action: Action, thread_ids: list[str], now_ms: int
) -> None:
    """Do it to the first thread, and as far as possible to the others.

    Raises:
        StoreError: it was not done, to none of them; or (``could not flush``) done, but perhaps not yet on
            the disk itself.
        sqlite3.Error: it was not done, or will be at the next start.
    """
    first = thread_ids[0]
    files = {each: _files(connection, home, each) for each in dict.fromkeys(thread_ids)}
    if not files[first] and not (action == "delete" and _is_half_deleted(connection, first)):
        raise StoreError(f"no rollout found for thread id {first}", "disk")
    intent = "INSERT OR REPLACE INTO relocations (thread_id, action, now_ms) VALUES (?, ?, ?)"
    transact(connection, [(intent, (each, action, now_ms)) for each in files])
    try:
        moved, folders = _move(home, action, files[first]) if files[first] else (None, set())
    except OSError as error:
        transact(connection, [forget_intent(each) for each in files])
        raise StoreError.from_os(action, files[first][0], error) from error
    operations = _rows(home, action, first, moved, now_ms)
    for thread_id in list(files)[1:]:
        operations += _move_another(home, action, thread_id, files[thread_id], folders, now_ms)
    failure = _flush(folders)
    transact(connection, operations)
    if failure is not None:
        raise failure


def finish(connection: sqlite3.Connection, home: Home) -> None:
    """Finish what a kill interrupted. What cannot be finished is logged and tried at the next start.

    Raises:
        sqlite3.Error: the database cannot be read or written.
    """
    statement = "SELECT thread_id, action, target, now_ms FROM relocations"
    operations: list[Operation] = []
    folders: set[Path] = set()
    for thread_id, action, target, now_ms in connection.execute(statement).fetchall():
        log.info("thread %s: finishing what was interrupted: %s", thread_id, action)
        if action == _COPYING:
            operations += _finish_copy(home, thread_id, target, now_ms)
        else:
            files = _files(connection, home, thread_id)
            operations += _move_another(home, action, thread_id, files, folders, now_ms)
    if operations:
        _flush(folders)
        transact(connection, operations)


def intend_copy(home: Home, thread_id: str, target: Path, now_ms: int) -> Operation:
    """A new file for the thread is about to be written to ``target``, by way of ``part_of(target)``."""
    statement = "INSERT OR REPLACE INTO relocations (thread_id, action, target, now_ms) VALUES (?, ?, ?, ?)"
    return statement, (thread_id, _COPYING, str(target.relative_to(home.root)), now_ms)


def forget_intent(thread_id: str) -> Operation:
    """What was intended is done, or given up."""
    return "DELETE FROM relocations WHERE thread_id=?", (thread_id,)


def part_of(target: Path) -> Path:
    """The name of a file while it is being written; never that of a rollout."""
    return target.with_name(f"{target.name}.part")


def _finish_copy(home: Home, thread_id: str, target: str, now_ms: int) -> list[Operation]:
    path = home.root / target
    remove(part_of(path))
    if not path.exists():
        return [forget_intent(thread_id)]
    # The row may still be that of the file before: without one, the new file is found.
    return [*forget(thread_id), *set_updated(thread_id, now_ms), forget_intent(thread_id)]


def _files(connection: sqlite3.Connection, home: Home, thread_id: str) -> list[Path]:
    """The thread's files, its rollout first."""
    row = connection.execute("SELECT path FROM rollouts WHERE thread_id=?", (thread_id,)).fetchone()
    if row is not None:
        path = home.root / row[0]
        # Looking at one folder is cheap. A revert leaves its files together, so one without has no others.
        beside = find_beside(path, thread_id) if path.exists() else []
        if beside == [path] and not is_reverted(path):
            return beside
    return find_files(home, thread_id)


def _is_half_deleted(connection: sqlite3.Connection, thread_id: str) -> bool:
    """Whether a delete has removed the file, and could not record it."""
    statement = "SELECT 1 FROM relocations WHERE thread_id=? AND action='delete'"
    return connection.execute(statement, (thread_id,)).fetchone() is not None


def _move(home: Home, action: Action, files: list[Path]) -> tuple[Path, set[Path]]:
    """Move or remove the files; the rollout decides whether it has happened.

    Returns:
        Where the rollout is now, and the folders to flush.

    Raises:
        OSError: it has not happened.
    """
    rollout, folders = files[0], {files[0].parent}
    if action == "delete":
        # The older ones first: once the rollout is gone, one of them would be the thread.
        for path in reversed(files):
            folders.add(path.parent)
            remove(path)
        return rollout, folders
    target = _move_one(home, action, rollout, folders)
    for path in files[1:]:
        try:
            _move_one(home, action, path, folders)
        except OSError as error:
            log.warning("could not %s %s: %s", action, path, error)
    return target, folders.union(home.folders_above(target))


def _move_one(home: Home, action: Action, path: Path, folders: set[Path]) -> Path:
    target = home.archived_sessions / path.name if action == "archive" else active_path(home, path)
    if target == path:
        return target
    if target.exists():
        # Moving would destroy it.
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    make_folders(target.parent)
    folders.add(path.parent)
    move(path, target)
    return target


def _move_another(
    home: Home, action: Action, thread_id: str, files: list[Path], folders: set[Path], now_ms: int
) -> list[Operation]:
    if not files:
        return _rows(home, action, thread_id, None, now_ms)
    try:
        moved, touched = _move(home, action, files)
    except OSError as error:
        log.warning("could not %s thread %s, the next start tries again: %s", action, thread_id, error)
        return []
    folders |= touched
    return _rows(home, action, thread_id, moved, now_ms)


def _rows(home: Home, action: Action, thread_id: str, moved: Path | None, now_ms: int) -> list[Operation]:
    if action == "delete":
        return [
            *forget(thread_id),
            *forget_facts(thread_id),
            ("DELETE FROM threads WHERE thread_id=?", (thread_id,)),
            forget_intent(thread_id),
        ]
    if moved is None:
        return [forget_intent(thread_id)]
    values = (str(moved.relative_to(home.root)), int(action == "archive"), thread_id)
    operations: list[Operation] = [("UPDATE rollouts SET path=?, archived=? WHERE thread_id=?", values)]
    if action == "unarchive":
        operations += set_updated(thread_id, now_ms)
    return [*operations, forget_intent(thread_id)]


def _flush(folders: Iterable[Path]) -> StoreError | None:
    failure: StoreError | None = None
    for folder in sorted(folders):
        try:
            sync_path(folder)
        except OSError as error:
            log.warning("could not flush %s: %s", folder, error)
            failure = StoreError.from_os("flush", folder, error)
    return failure
