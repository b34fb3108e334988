"""Opening ``spoold.sqlite``: the one connection that writes, and read-only ones.

SQLite before 3.51.3 can damage a WAL database when two connections write or checkpoint at the same
moment. So exactly one connection ever does, and it lives in the writer thread; readers open the file
``mode=ro`` and could not checkpoint if they tried.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from persistence.appending import sync_path
from persistence.errors import is_damage
from persistence.fault_points import reach
from persistence.salvage import Salvaged, salvage
from persistence.schema import migrate

log = logging.getLogger(__name__)

_SIDE_FILES = ("-wal", "-shm")

Operation = tuple[str, tuple[Any, ...]]
"""An SQL statement and its parameters."""


def note_damage(path: Path, error: sqlite3.Error) -> None:
    """Remember damage met while running: the next start then looks at every page before it trusts any."""
    if is_damage(error):
        log.error("the database is damaged (%s); it will be checked at the next start", error)
        with suppress(OSError):
            _mark(path).touch(mode=0o600)


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.name}-damaged")


def open_for_writing(path: Path, now_ms: int, notices: list[str]) -> sqlite3.Connection:
    """The writing connection, migrated. A damaged file is set aside and a new one takes its place.

    Every page is checked only where there is reason to: after a crash, or after damage was met. What was
    found and done is added to ``notices``, as sentences for users.

    Raises:
        sqlite3.Error: the file cannot be opened or written.
        OSError: the folder cannot be written.
    """
    mended = path.with_name(f"{path.name}-mended")
    aside = path.with_name(f"{path.name}.corrupt-{now_ms}")
    if mended.exists() and not path.exists():
        # A crash came between setting the damaged one aside and putting this one in its place. The log of the
        # damaged one may still be there, and SQLite would write its pages into this one.
        _set_side_files_aside(path, aside)
        mended.rename(path)
    try:
        return _open(path)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        log.error("the database is damaged: %s", error)
        salvaged = _mend(path, mended)
        path.rename(aside)
        _set_side_files_aside(path, aside)
        mended.rename(path)
        sync_path(path.parent)
        _mark(path).unlink(missing_ok=True)
        notices.append(
            f"The database was damaged. It was set aside as {aside.name}; the index is made again from the "
            f"sessions. {salvaged}."
        )
        log.error("%s", notices[-1])
        return _open(path)


def _set_side_files_aside(path: Path, aside: Path) -> None:
    for suffix in _SIDE_FILES:
        side = path.with_name(path.name + suffix)
        if side.exists():
            side.rename(aside.with_name(aside.name + suffix))


def _mend(path: Path, mended: Path) -> Salvaged:
    """Make a database beside the damaged one, with what can be read of that."""
    for suffix in ("", *_SIDE_FILES):
        mended.with_name(mended.name + suffix).unlink(missing_ok=True)
    connection = _open(mended)
    try:
        connection.execute("BEGIN IMMEDIATE")
        salvaged = salvage(path, _SIDE_FILES, connection)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()
    return salvaged


def _open(path: Path) -> sqlite3.Connection:
    # SQLite gives the files beside it the mode of the database itself.
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    wal = path.with_name(f"{path.name}-wal")
    suspect = _mark(path).exists() or (wal.exists() and wal.stat().st_size > 0)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        if suspect:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                damage = sqlite3.DatabaseError(verdict)
                damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise damage
            _mark(path).unlink(missing_ok=True)
        migrate(connection)
        connection.execute("SELECT count(*) FROM (SELECT 1 FROM rollouts LIMIT 1)").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A connection that can only read; the writing one must be open.

    Raises:
        sqlite3.Error: the file cannot be opened.
    """
    address = f"file:{quote(str(path))}?mode=ro"
    connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, timeout=5)
    connection.execute("PRAGMA query_only=1")
    connection.row_factory = sqlite3.Row
    return connection


def transact(connection: sqlite3.Connection, operations: Iterable[Operation]) -> None:
    """Execute all in one transaction; none of them where one fails.

    Raises:
        sqlite3.Error: one failed.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement, parameters in operations:
            connection.execute(statement, parameters)
        reach("before COMMIT")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
