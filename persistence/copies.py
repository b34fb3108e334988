"""Threads made from what others have said: forks, and rollouts that end before a turn that is taken back."""

from __future__ import annotations

import threading
from collections.abc import Callable

from persistence.home import Home
from persistence.indexer import RolloutState
from persistence.readers import Readers, snapshot
from persistence.rollout_copy import Cut, find_cut, write_fork, write_reverted
from persistence.rollout_files import reverted_path
from persistence.scan import recognised_state, stored_state
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
            state, cut = self._cut(
                writer,
                source_id,
                last_turn_id=last_turn_id,
                before_turn_id=before_turn_id,
                exclude_open_turn=exclude_open_turn,
            )
            write_fork(writer, self._home, state, cut, record, at_ms, stopped)

        return copy

    def revert(
        self, writer: Writer, thread_id: str, before_turn_id: str, revision: str, at_ms: int
    ) -> Callable[[threading.Event], None]:
        """See ``Store.revert``; ``revision`` names the new file."""

        def copy(stopped: threading.Event) -> None:
            state, cut = self._cut(writer, thread_id, before_turn_id=before_turn_id)
            target = reverted_path(self._home.root / state.path, revision)
            write_reverted(writer, self._home, state, cut, target, at_ms, stopped)

        return copy

    def _cut(
        self,
        writer: Writer,
        thread_id: str,
        *,
        last_turn_id: str | None = None,
        before_turn_id: str | None = None,
        exclude_open_turn: bool = False,
    ) -> tuple[RolloutState, Cut]:
        """The thread as it is indexed now, and where its copy ends."""
        missing = InvalidRequest(f"no rollout found for thread id {thread_id}")
        with self._readers.connection() as connection:
            recognised_state(connection, writer, self._home, thread_id, missing)
            with snapshot(connection):
                state = stored_state(connection, thread_id, missing)
                cut = find_cut(
                    connection,
                    state,
                    last_turn_id=last_turn_id,
                    before_turn_id=before_turn_id,
                    exclude_open_turn=exclude_open_turn,
                )
        return state, cut
