"""Threads made from what others have said: forks, and rollouts that end before a turn that is taken back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from persistence.errors import StoreError
from persistence.home import Home
from persistence.open_rollout import OpenRollout, open_rollout
from persistence.readers import Readers
from persistence.rollout_copy import Cut, find_cut, write_fork, write_reverted
from persistence.rollout_files import reverted_path
from persistence.scan import up_to_date
from persistence.thread_list import ThreadRecord
from persistence.writer import Writer
from protocol.errors import InvalidRequest


class Copies:
    """Makes the work for ``run_stoppable``; each raises as ``Store.fork`` and ``Store.revert`` say."""

    def __init__(self, home: Home, readers: Readers) -> None:
        self._home = home
        self._readers = readers

    def fork(
        self,
        writer: Writer,
        source_id: str,
        record: ThreadRecord,
        *,
        last_turn_id: str | None,
        before_turn_id: str | None,
        exclude_open_turn: bool,
        at_ms: int,
    ) -> Callable[[threading.Event], None]:
        """See ``Store.fork``."""

        def copy(stopped: threading.Event) -> None:
            with (
                self._cut(
                    writer,
                    source_id,
                    last_turn_id=last_turn_id,
                    before_turn_id=before_turn_id,
                    exclude_open_turn=exclude_open_turn,
                ) as (source, cut),
                self._or_as_before(writer, record.id),
            ):
                write_fork(writer, self._home, source, cut, record, at_ms, stopped)

        return copy

    def revert(
        self, writer: Writer, thread_id: str, before_turn_id: str, revision: str, at_ms: int
    ) -> Callable[[threading.Event], None]:
        """See ``Store.revert``; ``revision`` names the new file."""

        def copy(stopped: threading.Event) -> None:
            with (
                self._cut(writer, thread_id, before_turn_id=before_turn_id) as (source, cut),
                self._or_as_before(writer, thread_id),
            ):
                target = reverted_path(source.path, revision)
                write_reverted(writer, self._home, source, cut, target, at_ms, stopped)

        return copy

    @contextmanager
    def _or_as_before(self, writer: Writer, thread_id: str) -> Iterator[None]:
        """Of a copy that is given up the file is gone: make the index say so, and what it said before."""
        try:
            yield
        except BaseException:
            with suppress(StoreError), self._readers.connection() as connection:
                up_to_date(connection, writer, self._home, thread_id)
            raise

    @contextmanager
    def _cut(
        self,
        writer: Writer,
        thread_id: str,
        *,
        last_turn_id: str | None = None,
        before_turn_id: str | None = None,
        exclude_open_turn: bool = False,
    ) -> Iterator[tuple[OpenRollout, Cut]]:
        """The thread as it is indexed now, its file open, and where the copy of it ends."""
        missing = InvalidRequest(f"no rollout found for thread id {thread_id}")
        with (
            self._readers.connection() as connection,
            open_rollout(connection, writer, self._home, thread_id, missing) as found,
        ):
            cut = find_cut(
                connection,
                found.state,
                last_turn_id=last_turn_id,
                before_turn_id=before_turn_id,
                exclude_open_turn=exclude_open_turn,
            )
            source = found.keep()
        with source:
            yield source, cut
