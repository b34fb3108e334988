"""Readers and what moves, removes or replaces the file just then: real threads, at the very instant."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

import persistence.rebuild
import persistence.rollout_files
import persistence.scan
from persistence.home import Home
from persistence.indexer import RolloutState
from persistence.jobs import Apply
from persistence.relocation import Action
from persistence.store import Batch, Store, StoreError, ThreadQuery
from protocol.errors import InvalidRequest, NotSupported
from tests.persistence.sessions import START_MS, add_turn, create, opened, turn_of, uuid_of
from tests.persistence.test_index_is_derived import delete_database

THREAD, FORK = uuid_of(1), uuid_of(2)
LATER = START_MS + 86_400_000

Read = Callable[[Store], Awaitable[Any]]


async def fork(store: Store) -> Any:
    source = await store.thread(THREAD)
    assert source is not None
    path = store.rollout_path(FORK, LATER)
    await store.fork(THREAD, replace(source, id=FORK, path=path), at_ms=LATER)
    turns = await store.all_turns(FORK)
    await store.commit(Batch(FORK, relocate="delete"))
    return turns


READS: dict[str, Read] = {
    "all turns": lambda store: store.all_turns(THREAD),
    "a page of turns": lambda store: store.turns_page(
        THREAD, cursor=None, limit=5, direction="desc", view="summary"
    ),
    "a page of items": lambda store: store.items_page(
        THREAD, turn_id=None, cursor=None, limit=5, direction="desc"
    ),
    "what a resume needs": lambda store: store.resume_state(THREAD),
    "a fork": fork,
}
reads = pytest.mark.parametrize("read", READS.values(), ids=READS)


def before_opening(path: Path, patch: pytest.MonkeyPatch, act: Callable[[], Awaitable[Any]]) -> list[Path]:
    """Do this when somebody is about to open that file for the first time. Gives the openings."""
    opens: list[Path] = []
    original, token = os.open, trio.lowlevel.current_trio_token()

    def watched(file: Any, flags: int, *args: Any, **options: Any) -> int:
        if Path(file) == path:
            opens.append(path)
            if len(opens) == 1:
                trio.from_thread.run(act, trio_token=token)
        return original(file, flags, *args, **options)

    patch.setattr(os, "open", watched)
    return opens


def failing_to_open(path: Path, patch: pytest.MonkeyPatch, number: int) -> list[Path]:
    """Nobody can open that file from now on. Gives the attempts."""
    opens: list[Path] = []
    original = os.open

    def refusing(file: Any, flags: int, *args: Any, **options: Any) -> int:
        if Path(file) != path:
            return original(file, flags, *args, **options)
        opens.append(path)
        raise OSError(number, os.strerror(number))

    patch.setattr(os, "open", refusing)
    return opens


@reads
async def test_a_thread_that_is_archived_just_when_its_file_is_to_be_opened_is_read_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Read
) -> None:
    async with opened(tmp_path) as store:
        path = await create(store, THREAD)
        expected = await read(store)
        opens = before_opening(path, monkeypatch, lambda: store.commit(Batch(THREAD, relocate="archive")))
        assert await read(store) == expected
        assert opens
        assert not path.exists()


@reads
async def test_a_thread_that_is_deleted_just_when_its_file_is_to_be_opened_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Read
) -> None:
    async with opened(tmp_path) as store:
        path = await create(store, THREAD)
        before_opening(path, monkeypatch, lambda: store.commit(Batch(THREAD, relocate="delete")))
        with pytest.raises((InvalidRequest, NotSupported)):
            await read(store)


@reads
async def test_a_file_that_somebody_takes_away_just_when_it_is_to_be_opened_makes_its_thread_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Read
) -> None:
    async with opened(tmp_path) as store:
        path = await create(store, THREAD)
        away = tmp_path / "away"
        expected = await read(store)

        async def take_away() -> None:
            path.rename(away)

        with monkeypatch.context() as patch:
            before_opening(path, patch, take_away)
            with pytest.raises((InvalidRequest, NotSupported)):
                await read(store)
        away.rename(path)
        assert await read(store) == expected


@reads
async def test_a_file_that_is_there_and_cannot_be_found_is_looked_for_a_few_times_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Read
) -> None:
    async with opened(tmp_path) as store:
        path = await create(store, THREAD)
        opens = failing_to_open(path, monkeypatch, errno.ENOENT)
        with pytest.raises(StoreError, match=f"^could not open {path}: No such file"):
            await read(store)
        assert 1 < len(opens) < 20


@reads
async def test_a_file_that_may_not_be_opened_is_an_error_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Read
) -> None:
    async with opened(tmp_path) as store:
        path = await create(store, THREAD)
        opens = failing_to_open(path, monkeypatch, errno.EACCES)
        with pytest.raises(StoreError, match=f"^could not open {path}: Permission denied"):
            await read(store)
        assert len(opens) == 1
        # What the index knows is told without the file.
        assert await store.has_turn(THREAD, turn_of(THREAD, 0))
        assert (await store.history_cursors(THREAD))[0] is not None


async def test_a_thread_that_is_reverted_just_when_its_file_is_to_be_opened_is_read_as_it_was_before_or_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as store:
        path = await create(store, THREAD)
        second = await add_turn(store, THREAD, 1, START_MS + 1000)
        before = await store.all_turns(THREAD)
        before_opening(path, monkeypatch, lambda: store.revert(THREAD, second, LATER))
        assert await store.all_turns(THREAD) == before
        assert await store.all_turns(THREAD) == before[:1]


class Mover:
    """Moves the thread at the instants of a reader's look for it. Used by a worker thread.

    Attributes:
        before_stat: what is done before each comparison of the row with its file.
        before_folder: what is done before each of the two folders is looked at, the first time.
    """

    def __init__(self, store: Store, patch: pytest.MonkeyPatch) -> None:
        self._store = store
        self._token = trio.lowlevel.current_trio_token()
        self.before_stat: list[Action] = []
        self.before_folder: list[Action | Callable[[], object]] = []
        self._is_fresh, self._walk = persistence.scan.is_fresh, persistence.rollout_files._walk
        patch.setattr(persistence.scan, "is_fresh", self._comparing)
        patch.setattr(persistence.rollout_files, "_walk", self._looking)

    def _comparing(self, home: Home, state: RolloutState) -> bool:
        if self.before_stat:
            self._do(self.before_stat.pop(0))
        return self._is_fresh(home, state)

    def _looking(self, home: Home) -> Iterator[tuple[str, Path]]:
        for folder in (home.sessions, home.archived_sessions):
            if self.before_folder:
                self._do(self.before_folder.pop(0))
            found = list(self._walk(home))
            yield from (each for each in found if each[1].is_relative_to(folder))

    def _do(self, act: Action | Callable[[], object]) -> None:
        if callable(act):
            act()
            return
        batch = Batch(THREAD, relocate=act, now_ms=LATER)
        trio.from_thread.run(self._store.commit, batch, trio_token=self._token)


async def test_a_thread_whose_file_slips_past_the_look_at_the_folders_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as store:
        await create(store, THREAD)
        await store.threads_page(ThreadQuery())
        await store.commit(Batch(THREAD, relocate="archive"))
        mover = Mover(store, monkeypatch)
        mover.before_stat = ["unarchive", "archive", "unarchive"]
        mover.before_folder = ["archive", "unarchive"]
        record = await store.thread(THREAD)
        assert mover.before_folder == []
        assert record is not None
        assert record.path.exists()
        assert [each.id for each in (await store.threads_page(ThreadQuery())).records] == [THREAD]
        assert len(await store.all_turns(THREAD)) == 1


async def test_a_thread_whose_file_comes_back_before_its_row_is_dropped_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as store:
        path = await create(store, THREAD)
        await store.threads_page(ThreadQuery())
        away = path.rename(tmp_path / "away")
        Mover(store, monkeypatch).before_folder = [lambda: None, lambda: away.rename(path)]
        assert await store.thread(THREAD) is not None
        assert [each.id for each in (await store.threads_page(ThreadQuery())).records] == [THREAD]


async def test_a_thread_whose_file_is_away_is_not_listed_until_it_is_back(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        path = await create(store, THREAD)
        away = path.rename(tmp_path / "away")
        assert await store.thread(THREAD) is None
        assert (await store.threads_page(ThreadQuery())).records == []
        away.rename(path)
        assert await store.thread(THREAD) is not None
        assert [each.id for each in (await store.threads_page(ThreadQuery())).records] == [THREAD]


async def test_a_file_that_cannot_be_looked_at_is_not_taken_for_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(file: Any, *args: Any, **options: Any) -> os.stat_result:
        if Path(file) == path:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return stat(file, *args, **options)

    stat = os.stat
    async with opened(tmp_path) as store:
        path = await create(store, THREAD)
        with monkeypatch.context() as patch:
            patch.setattr(os, "stat", broken)
            await store.thread(THREAD)
        assert [each.id for each in (await store.threads_page(ThreadQuery())).records] == [THREAD]


@pytest.mark.parametrize("when", ["before it is opened", "before it is stored"])
async def test_a_file_that_is_moved_while_a_start_indexes_it_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    async with opened(tmp_path) as store:
        path = await create(store, THREAD)
    delete_database(tmp_path)
    archived = Home(tmp_path).archived_sessions
    index_file = persistence.rebuild.index_file

    def move_and_index(
        writer: Any, home: Any, found: Any, base: Any, stopped: Any, put: Any, **o: Any
    ) -> bool:
        def move_and_put(job: Apply) -> None:
            if path.exists():
                path.rename(archived / path.name)
            put(job)

        archived.mkdir()
        if when == "before it is opened":
            path.rename(archived / path.name)
        return index_file(writer, home, found, base, stopped, move_and_put, **o)

    monkeypatch.setattr(persistence.rebuild, "index_file", move_and_index)
    async with opened(tmp_path) as store:
        page = await store.threads_page(ThreadQuery(archived=True))
        assert [each.path.parent for each in page.records] == [archived]
