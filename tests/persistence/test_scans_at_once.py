"""Two who index one file anew at once, and who reads meanwhile: nobody takes a part for the whole."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import persistence.open_rollout
import persistence.scan
from persistence.home import Home
from persistence.indexer import RolloutState
from persistence.rollout_files import find_one
from persistence.scan import index_file
from persistence.single_flight import SingleFlight
from persistence.store import Store, ThreadQuery
from persistence.writer import Writer
from tests.persistence.sessions import (
    create,
    event,
    foreign_meta,
    numbered,
    opened,
    turn_of,
    uuid_of,
    write_rollout,
)

THREAD = uuid_of(1)
TURNS = [turn_of(THREAD, number) for number in range(100)]


def long_rollout(root: Path) -> Path:
    """A file of another program, that is indexed in many pieces."""
    turns = [
        line
        for turn_id in TURNS
        for line in (event("task_started", turn_id=turn_id), event("task_complete", turn_id=turn_id))
    ]
    return write_rollout(root, THREAD, numbered(THREAD, foreign_meta(THREAD, "paginated"), *turns))


async def turn_ids(store: Store) -> list[str]:
    return [turn.id for turn in await store.all_turns(THREAD)]


class Alternation:
    """Lets two that index one file store their pieces in turn, each just after the other has looked."""

    def __init__(self, store: Store, patch: pytest.MonkeyPatch) -> None:
        self.first_has_begun = threading.Event()
        self._first: int | None = None
        self._allowed, self._stored = threading.Semaphore(1), threading.Semaphore(0)
        self._store = persistence.scan._store
        patch.setattr(persistence.scan, "_PIECE", 2)
        patch.setattr(persistence.scan, "_store", self._storing)
        patch.setattr(store._engine.writer.scans, "_changed", Waiting(self.let_go))

    def let_go(self) -> None:
        """One of them waits for the other, or is done."""
        self._allowed.release(1000)
        self._stored.release(1000)

    def _storing(self, *args: Any) -> bool:
        me = threading.get_ident()
        self._first = self._first or me
        if me != self._first:
            self._allowed.release()
            self._stored.acquire()
            return self._store(*args)
        self._allowed.acquire()
        stored = self._store(*args)
        self.first_has_begun.set()
        self._stored.release()
        return stored


class Waiting(threading.Condition):
    """Tells when somebody begins to wait."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__()
        self._tell = tell

    def wait(self, timeout: float | None = None) -> bool:
        self._tell()
        return super().wait(timeout)


async def test_two_readers_of_a_file_that_is_not_indexed_both_see_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    async def read() -> None:
        seen.append(await turn_ids(store))
        alternation.let_go()

    async with opened(tmp_path) as store:
        await store.threads_page(ThreadQuery())
        long_rollout(tmp_path)
        alternation = Alternation(store, monkeypatch)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.to_thread.run_sync(alternation.first_has_begun.wait)
            await read()
        assert seen == [TURNS, TURNS]


async def test_a_reader_sees_all_of_a_file_that_begins_to_be_indexed_anew_after_it_has_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, given_up = Home(tmp_path), threading.Event()
    given_up.set()
    looked = persistence.open_rollout.up_to_date
    looks: list[RolloutState | None] = []

    def look(connection: Any, writer: Writer, *args: Any) -> RolloutState | None:
        state = looked(connection, writer, *args)
        looks.append(state)
        if len(looks) == 1:
            found = find_one(home, THREAD)
            assert found is not None
            assert not index_file(writer, home, found, state, given_up)
        return state

    async with opened(tmp_path) as store:
        long_rollout(tmp_path)
        await store.threads_page(ThreadQuery())
        monkeypatch.setattr(persistence.scan, "_PIECE", 2)
        monkeypatch.setattr(persistence.open_rollout, "up_to_date", look)
        assert await turn_ids(store) == TURNS
        assert len(looks) == 2


async def test_a_thread_is_read_while_another_one_is_indexed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = uuid_of(2)
    begun, go_on = threading.Event(), threading.Event()
    store_piece = persistence.scan._store

    def hold(*args: Any) -> bool:
        begun.set()
        go_on.wait()
        return store_piece(*args)

    async with opened(tmp_path) as store:
        await create(store, other)
        await store.threads_page(ThreadQuery())
        long_rollout(tmp_path)
        monkeypatch.setattr(persistence.scan, "_store", hold)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(turn_ids, store)
            await trio.to_thread.run_sync(begun.wait)
            assert len(await store.all_turns(other)) == 1
            go_on.set()


def test_who_is_told_to_stop_does_not_wait_for_the_work_of_another_one() -> None:
    flights, stopped = SingleFlight(), threading.Event()
    stopped.set()
    with flights.of("a"), flights.of("a", stopped) as ours:
        assert not ours
        with flights.of("b", stopped) as other:
            assert other
    with flights.of("a", stopped) as ours:
        assert ours
