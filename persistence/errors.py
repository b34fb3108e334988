"""What can go wrong with the store, and whose fault it was."""

from __future__ import annotations

import errno as numbers
import sqlite3
from pathlib import Path
from typing import Literal, Self

Fault = Literal["disk", "database", "closed"]
"""``disk``: the file system refused; ``database``: SQLite did; ``closed``: the store is shut down."""

_WHOLE_DISK = frozenset(
    (numbers.ENOSPC, numbers.EDQUOT, numbers.EIO, numbers.EROFS, numbers.EMFILE, numbers.ENFILE)
)
_DAMAGED = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))
_WHOLE_DATABASE = _DAMAGED | {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
}


def _primary(error: BaseException) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that the file itself is broken."""
    return _primary(error) in _DAMAGED


def fails_everything(error: BaseException) -> bool:
    """Whether the next use of the database would fail in the same way, whatever it is for."""
    return _primary(error) in _WHOLE_DATABASE


class StoreError(Exception):
    """A read or a commit that did not happen.

    After a failed commit the rollout is as it was before, so the caller may try again; ``appended`` tells of
    the exception.

    Attributes:
        fault: whose fault it was.
        path: the file concerned, or None.
        errno: the operating system's error number, or None.
        lasting: whether everything that writes will fail until somebody mends it: the disk is full or
            broken, the database locked or damaged.
        damaged: whether the database is broken for good.
        appended: the lines of the failed commit are in the rollout and could not be taken back.
    """

    def __init__(
        self,
        message: str,
        fault: Fault,
        *,
        path: Path | None = None,
        errno: int | None = None,
        lasting: bool = False,
        damaged: bool = False,
    ) -> None:
        super().__init__(message)
        self.fault: Fault = fault
        self.path = path
        self.errno = errno
        self.lasting = lasting
        self.damaged = damaged
        self.appended = False

    @classmethod
    def from_os(cls, doing: str, path: Path, error: OSError) -> Self:
        """The file system's refusal; ``doing`` completes "could not ..."."""
        what = f"could not {doing} {path}: {error.strerror}"
        return cls(what, "disk", path=path, errno=error.errno, lasting=error.errno in _WHOLE_DISK)

    @classmethod
    def from_sqlite(cls, doing: str, path: Path, error: Exception) -> Self:
        """The refusal of the database at ``path``; ``doing`` completes "could not ..."."""
        what = f"could not {doing}: {error}"
        lasting, damaged = fails_everything(error), is_damage(error)
        return cls(what, "database", path=path, lasting=lasting, damaged=damaged)
