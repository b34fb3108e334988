"""A thread as one transaction sees it, together with its file.

The index says where a file is; a moment later it may be elsewhere, because somebody archives the thread. Or
somebody has begun to index the file anew, and is in the middle of it. So bringing the index up to date,
looking up and opening are one thing here, done again where they did not meet the same. A file that is open
stays readable wherever its name goes, also when it is removed.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Self

from persistence.appender import load_state
from persistence.errors import StoreError
from persistence.home import Home
from persistence.indexer import RolloutState
from persistence.readers import snapshot
from persistence.scan import up_to_date
from persistence.writer import Writer

_ATTEMPTS = 8


class OpenRollout:
    """A rollout, open until the end of the ``with`` block.

    That it could not be opened is said by whoever needs its bytes: much is known from the index alone.

    Attributes:
        state: the thread's index.
        path: where the file was when it was opened.
    """

    def __init__(self, home: Home, state: RolloutState) -> None:
        self.state = state
        self.path = home.root / state.path
        self._descriptor: int | None = None
        self._refusal: OSError | None = None
        try:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self._refusal = error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @property
    def away(self) -> bool:
        """Whether there was no file where the index said."""
        return isinstance(self._refusal, FileNotFoundError)

    @property
    def descriptor(self) -> int:
        """To read from.

        Raises:
            StoreError: the file could not be opened.
        """
        if self._refusal is not None:
            raise StoreError.from_os("open", self.path, self._refusal) from self._refusal
        assert self._descriptor is not None, "it is closed"
        return self._descriptor

    @contextmanager
    def reading(self) -> Iterator[int]:
        """The descriptor, for some reading.

        Raises:
            StoreError: the file could not be opened, or cannot be read.
        """
        descriptor = self.descriptor
        try:
            yield descriptor
        except OSError as error:
            raise StoreError.from_os("read", self.path, error) from error

    def keep(self) -> Self:
        """The same for a ``with`` block of its own; the end of this one then closes nothing."""
        kept = copy(self)
        self._descriptor = None
        return kept


@contextmanager
def open_rollout(
    connection: sqlite3.Connection, writer: Writer, home: Home, thread_id: str, missing: Exception
) -> Iterator[OpenRollout]:
    """A thread, up to date, in a transaction on ``connection``, with its rollout open.

    Raises:
        Exception: ``missing``, where there is no rollout of it.
        StoreError: the file or the index cannot be read or written.
    """
    for left in reversed(range(_ATTEMPTS)):
        state = up_to_date(connection, writer, home, thread_id)
        if state is None or not state.recognised:
            break
        with snapshot(connection):
            state = load_state(connection, thread_id)
            if state is None:
                continue
            with OpenRollout(home, state) as rollout:
                if left and (rollout.away or state.partial):
                    continue
                yield rollout
                return
    raise missing
