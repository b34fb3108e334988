"""A commit that fails in its second half, when it is flushed or its rows are stored, has not happened."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import persistence.writer
from persistence.database import Operation
from persistence.home import Home
from persistence.jobs import Append
from persistence.queue import QueuedTurn, insert
from persistence.store import Batch, Store, StoreError
from persistence.writer import Writer
from tests.persistence.sessions import START_MS, add_turn, create, opened, turn_begin, turn_of, uuid_of

THREAD = uuid_of(1)
OTHER = uuid_of(2)


def row(number: int) -> Operation:
    """A row of the queue; two with one number cannot both be stored."""
    return insert(THREAD, QueuedTurn(f"row-{number}", {"input": []}, number))


def begin(number: int, thread_id: str = THREAD, **more: Any) -> Batch:
    turn_id = turn_of(thread_id, number)
    return Batch(thread_id, turn_begin(thread_id, turn_id, f"turn {number}", START_MS), **more)


def no_flush(descriptor: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def failing(code: int) -> Any:
    """A database that fails every transaction with this code."""

    def fail(connection: sqlite3.Connection, operations: Iterable[Operation]) -> None:
        error = sqlite3.OperationalError("as the test says")
        error.sqlite_errorcode = code
        raise error

    return fail


async def turns(store: Store, thread_id: str = THREAD) -> int:
    return len(await store.all_turns(thread_id))


async def test_a_flush_that_fails_leaves_nothing_and_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as store:
        path = await create(store, THREAD)
        before = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", no_flush)
            with pytest.raises(StoreError, match="could not flush") as failed:
                await store.commit(begin(1, fsync=True, queue=[row(1)]))
            assert (failed.value.lasting, failed.value.appended) == (True, False)
        assert path.read_bytes() == before
        assert await turns(store) == 1
        assert (await store.queue(THREAD)).rows == ()
        await store.commit(begin(1, fsync=True, queue=[row(1)]))
        assert await turns(store) == 2
        assert len((await store.queue(THREAD)).rows) == 1


async def test_a_new_thread_that_cannot_be_flushed_was_never_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sessions/2026/11/18" / f"rollout-2026-11-18T11-06-40-{THREAD}.jsonl"
    async with opened(tmp_path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", no_flush)
            with pytest.raises(StoreError):
                await store.commit(begin(1, fsync=True, create=path))
        assert not path.exists()
        assert await store.thread(THREAD) is None
        await store.commit(begin(1, fsync=True, create=path))
        assert path.exists()


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_BUSY])
async def test_lines_whose_rows_cannot_be_stored_are_taken_back_and_reading_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    async with opened(tmp_path) as store:
        path = await create(store, THREAD)
        before = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(persistence.writer, "transact", failing(code))
            with pytest.raises(StoreError, match="could not write") as failed:
                await store.commit(begin(1))
            assert failed.value.lasting
            assert path.read_bytes() == before
            # The index fits the file although nothing could be stored in it.
            assert await turns(store) == 1
        await add_turn(store, THREAD, 2, START_MS)
        assert [turn.id for turn in await store.all_turns(THREAD)] == [turn_of(THREAD, 0), turn_of(THREAD, 2)]


async def test_mere_lines_stay_where_the_database_is_damaged_and_are_indexed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as store:
        await create(store, THREAD)
        with monkeypatch.context() as patch:
            patch.setattr(persistence.writer, "transact", failing(sqlite3.SQLITE_CORRUPT))
            await store.commit(begin(1))
            with pytest.raises(StoreError, match="could not write"):
                await store.commit(begin(2, queue=[row(1)]))
        assert await turns(store) == 2
        await add_turn(store, THREAD, 3, START_MS)
        assert await turns(store) == 3


async def test_one_impossible_commit_fails_what_stands_behind_it_in_its_file_and_nobody_else(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as store:
        path, _ = await create(store, THREAD), await create(store, OTHER)
        await store.commit(Batch(THREAD, queue=[row(1)]))
    before = path.read_bytes()
    outcomes: dict[str, StoreError | None] = {}
    batches = {
        "before": begin(1),
        "impossible": begin(2, queue=[row(1)]),
        "behind": begin(3),
        "other": begin(1, OTHER),
    }
    # What is submitted before the thread runs is one group.
    writer = Writer(Home(tmp_path))
    for name, batch in batches.items():
        writer.submit(Append(done=partial(outcomes.__setitem__, name), batch=batch))
    opening: list[StoreError | None] = []
    writer.start(START_MS, opening.append)
    writer.stop()
    assert await trio.to_thread.run_sync(writer.join, 30)
    assert opening == [None]
    assert (outcomes["before"], outcomes["other"]) == (None, None)
    assert "UNIQUE constraint failed" in str(outcomes["impossible"])
    assert outcomes["behind"] is outcomes["impossible"]
    assert path.read_bytes().startswith(before)
    async with opened(tmp_path) as store:
        assert [turn.id for turn in await store.all_turns(THREAD)] == [turn_of(THREAD, n) for n in (0, 1)]
        assert await turns(store, OTHER) == 2


async def test_lines_that_can_neither_be_stored_nor_taken_back_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_truncate(path: object, length: int) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    async with opened(tmp_path) as store:
        await create(store, THREAD)
        with monkeypatch.context() as patch:
            patch.setattr(persistence.writer, "transact", failing(sqlite3.SQLITE_READONLY))
            patch.setattr(os, "truncate", no_truncate)
            with pytest.raises(StoreError) as failed:
                await store.commit(begin(1))
            assert failed.value.appended
        assert await turns(store) == 2
