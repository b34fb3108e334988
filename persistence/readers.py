"""Read-only connections for worker threads: a few, reused, each in a short transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from persistence.database import note_damage, open_for_reading
from persistence.errors import StoreError

_LIMIT = 4


class Readers:
    """A pool of reading connections; ``limiter`` bounds the threads that use it."""

    def __init__(self, path: Path) -> None:
        self.limiter = trio.CapacityLimiter(_LIMIT)
        self._path = path
        # Appending and popping are atomic, so worker threads share the list without a lock.
        self._idle: list[sqlite3.Connection] = []
        self._closed = False

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """A connection for this worker thread. Begin transactions with ``snapshot``.

        Raises:
            StoreError: the database cannot be read.
        """
        if self._closed:
            raise StoreError("the store is closed", "closed")
        connection: sqlite3.Connection | None = None
        try:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = open_for_reading(self._path)
            yield connection
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
                connection = None
            note_damage(self._path, error)
            raise StoreError.from_sqlite("read the index", self._path, error) from error
        finally:
            if connection is not None:
                if connection.in_transaction:
                    connection.rollback()
                self._put_back(connection)

    def _put_back(self, connection: sqlite3.Connection) -> None:
        self._idle.append(connection)
        if self._closed:  # while it was in use
            self.close()

    def close(self) -> None:
        """Close the connections: idle ones now, those in use when they come back."""
        self._closed = True
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:
                return
            connection.close()


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """A read transaction: all queries inside see the same rows."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
