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

from persistence.fault_points import reach
from persistence.schema import migrate

log = logging.getLogger(__name__)

_DAMAGED = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))
_SIDE_FILES = ("-wal", "-shm")

Operation = tuple[str, tuple[Any, ...]]
"""An SQL statement and its parameters."""


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the error says that the file itself is broken."""
    code = getattr(error, "sqlite_errorcode", 0)
    return (code & 0xFF) in _DAMAGED


def note_damage(path: Path, error: sqlite3.Error) -> None:
    """Remember damage met while running: the next start then looks at every page before it trusts any."""
    if is_damage(error):
        log.error("the database is damaged (%s); it will be checked at the next start", error)
        with suppress(OSError):
            _mark(path).touch(mode=0o600)


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.name}-damaged")


def open_for_writing(path: Path, now_ms: int) -> sqlite3.Connection:
    """The writing connection, migrated. A damaged file is set aside and a new one begun.

    Every page is checked only where there is reason to: after a crash, or after damage was met.

    Raises:
        sqlite3.Error: the file cannot be opened or written.
        OSError: the folder cannot be written.
    """
    try:
        return _open(path)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        aside = path.with_name(f"{path.name}.corrupt-{now_ms}")
        log.error("the database is damaged (%s): set aside as %s and rebuilt", error, aside.name)
        path.rename(aside)
        for suffix in _SIDE_FILES:
            side = path.with_name(path.name + suffix)
            if side.exists():
                side.rename(aside.with_name(aside.name + suffix))
        _mark(path).unlink(missing_ok=True)
        return _open(path)


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
