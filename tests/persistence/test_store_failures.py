"""Disks fill, databases break, callers are cancelled, processes are killed: what the store makes of it."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import persistence.writer
from persistence.home import Home
from persistence.store import Batch, Store, StoreError, ThreadQuery
from tests.persistence.sessions import (
    START_MS,
    CountingRuntime,
    add_turn,
    create,
    meta,
    opened,
    turn_begin,
    turn_end,
    turn_of,
    uuid_of,
)

THREAD = uuid_of(1)


def full_disk(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Rollout writes fail with ENOSPC once ``after`` bytes are written."""
    write, left = os.write, after

    def failing(descriptor: int, data: Any) -> int:
        nonlocal left
        part = bytes(data)[:left]
        if not part:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left -= len(part)
        return write(descriptor, part)

    monkeypatch.setattr(os, "write", failing)


def files(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern))


@pytest.mark.parametrize("after", [0, 1, 400])
async def test_an_append_that_fails_is_cut_off_and_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    async with opened(tmp_path) as store:
        path = await create(store, THREAD)
        before = path.read_bytes()
        turn_id = turn_of(THREAD, 1)
        batch = Batch(THREAD, turn_begin(THREAD, turn_id, "more", START_MS), fsync=True)
        with monkeypatch.context() as patch:
            full_disk(patch, after)
            with pytest.raises(StoreError, match="could not append to") as failed:
                await store.commit(batch)
        assert (failed.value.fault, failed.value.path, failed.value.errno) == ("disk", path, errno.ENOSPC)
        assert path.read_bytes() == before
        assert len(await store.all_turns(THREAD)) == 1
        await store.commit(batch)
        assert len(await store.all_turns(THREAD)) == 2


async def test_what_cannot_be_cut_off_is_indexed_by_the_next_append(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_truncate(path: object, length: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with opened(tmp_path) as store:
        path = await create(store, THREAD)
        turn_id = turn_of(THREAD, 1)
        with monkeypatch.context() as patch:
            full_disk(patch, 300)
            patch.setattr(os, "truncate", no_truncate)
            with pytest.raises(StoreError) as failed:
                await store.commit(Batch(THREAD, turn_begin(THREAD, turn_id, "more", START_MS)))
            assert failed.value.appended
        await add_turn(store, THREAD, 2, START_MS)
        turns = await store.all_turns(THREAD)
    assert [turn.id for turn in turns] == [turn_of(THREAD, 0), turn_id, turn_of(THREAD, 2)]
    assert path.read_bytes().endswith(b"}\n")


async def test_a_file_that_could_not_be_created_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as store:
        with monkeypatch.context() as patch:
            full_disk(patch, 100)
            with pytest.raises(StoreError):
                await create(store, THREAD)
        assert await store.thread(THREAD) is None
        await create(store, THREAD)
        assert await store.thread(THREAD) is not None


async def test_a_failing_append_fails_only_its_own_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as store:
        paths = [await create(store, uuid_of(number)) for number in range(6)]
        paths[3].chmod(0o400)
        paths[3].unlink()
        failed: list[int] = []

        async def one(number: int) -> None:
            try:
                await add_turn(store, uuid_of(number), 1, START_MS)
            except StoreError:
                failed.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(one, number)
        assert failed == [3]
        for number in (0, 1, 2, 4, 5):
            assert len(await store.all_turns(uuid_of(number))) == 2


async def test_new_files_and_folders_are_only_for_their_owner(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        path = await create(store, THREAD)
        assert path == tmp_path / f"sessions/2026/11/18/rollout-2026-11-18T11-06-40-{THREAD}.jsonl"
        modes = [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent, tmp_path / "sessions")]
        assert modes == [0o600, 0o700, 0o700]
        for each in files(tmp_path, "spoold.sqlite*"):
            assert stat.S_IMODE(each.stat().st_mode) == 0o600


async def test_a_thread_is_not_created_twice(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await create(store, THREAD, "first")
        with pytest.raises(StoreError) as failed:
            await create(store, THREAD, "second")
        assert failed.value.errno == errno.EEXIST
        assert len(await store.all_turns(THREAD)) == 1


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\x00" + b"\xff" * 5000])
async def test_a_damaged_database_is_set_aside_and_rebuilt(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path) as store:
        await create(store, THREAD)
    for path in files(tmp_path, "spoold.sqlite*"):
        path.unlink()
    database = tmp_path / "spoold.sqlite"
    database.write_bytes(content)
    async with opened(tmp_path) as store:
        page = await store.threads_page(ThreadQuery())
        assert [record.id for record in page.records] == [THREAD]
    (aside,) = files(tmp_path, "spoold.sqlite.corrupt-*")
    assert aside.read_bytes() == content
    assert "set aside" in caplog.text


async def test_a_database_damaged_in_its_middle_is_noticed_after_a_crash(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for number in range(30):
            await create(store, uuid_of(number), "x" * 3000)
    damage_pages(tmp_path / "spoold.sqlite", 3, 8)
    (tmp_path / "spoold.sqlite-wal").write_bytes(b"left by a crash")
    async with opened(tmp_path) as store:
        assert len((await store.threads_page(ThreadQuery(limit=50))).records) == 30


async def damage_out_of_sight(home: Path) -> None:
    """A database of 30 threads: what a start looks at is whole, the table that a list needs is not."""
    async with opened(home) as store:
        for number in range(30):
            await create(store, uuid_of(number), "x" * 3000)
    with sqlite3.connect(home / "spoold.sqlite") as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name='threads'").fetchone()
    connection.close()
    damage_pages(home / "spoold.sqlite", page - 1, page)


async def test_damage_out_of_sight_is_looked_for_after_a_crash(tmp_path: Path) -> None:
    await damage_out_of_sight(tmp_path)
    (tmp_path / "spoold.sqlite-wal").write_bytes(b"left by a crash")
    async with opened(tmp_path) as store:
        assert len((await store.threads_page(ThreadQuery(limit=50))).records) == 30
    assert len(files(tmp_path, "spoold.sqlite.corrupt-*")) == 1


async def test_damage_met_while_running_is_mended_by_the_next_start(tmp_path: Path) -> None:
    await damage_out_of_sight(tmp_path)
    async with opened(tmp_path) as store:
        with pytest.raises(StoreError) as failed:
            await store.threads_page(ThreadQuery())
        assert failed.value.fault == "database"
        assert store.health.trouble is failed.value
        assert failed.value.damaged
    async with opened(tmp_path) as store:
        assert len((await store.threads_page(ThreadQuery(limit=50))).records) == 30
    assert len(files(tmp_path, "spoold.sqlite.corrupt-*")) == 1
    assert files(tmp_path, "spoold.sqlite-*") == []


def damage_pages(database: Path, first: int, last: int) -> None:
    content = bytearray(database.read_bytes())
    content[4096 * first : 4096 * last] = b"\xa5" * (4096 * (last - first))
    database.write_bytes(content)


async def test_a_database_that_cannot_be_opened_fails_every_method(tmp_path: Path) -> None:
    (tmp_path / "spoold.sqlite").mkdir()
    async with opened(tmp_path) as store:
        for ask in (
            lambda: store.threads_page(ThreadQuery()),
            lambda: store.thread(THREAD),
            lambda: create(store, THREAD),
            lambda: store.all_turns(THREAD),
        ):
            with pytest.raises(StoreError, match="could not open") as failed:
                await ask()
            assert failed.value.fault == "disk"
            assert failed.value.path == tmp_path / "spoold.sqlite"
        store.release(THREAD)


async def test_methods_wait_until_the_store_is_open(tmp_path: Path) -> None:
    store = Store(Home(tmp_path), CountingRuntime())
    assert files(tmp_path, "*") == []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(create, store, THREAD)
        await wait_all_tasks_blocked()
        assert files(tmp_path, "*") == []
        nursery.start_soon(store.run)
        assert await store.thread(uuid_of(2)) is None
        while await store.thread(THREAD) is None:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


async def test_a_commit_cancelled_before_the_store_is_open_did_not_happen(tmp_path: Path) -> None:
    store = Store(Home(tmp_path), CountingRuntime())
    with trio.CancelScope() as scope:
        scope.cancel()
        await create(store, THREAD)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        assert await store.thread(THREAD) is None
        nursery.cancel_scope.cancel()


async def test_a_commit_under_way_is_waited_for_although_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    sync, go = os.fsync, threading.Event()
    reached = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def slow(descriptor: int) -> None:
        token.run_sync_soon(reached.set)
        go.wait(60)
        sync(descriptor)

    async with opened(tmp_path) as store:
        await create(store, THREAD)
        monkeypatch.setattr(os, "fsync", slow)
        finished = False

        async def committing() -> None:
            nonlocal finished
            await store.commit(Batch(THREAD, turn_begin(THREAD, uuid_of(7), "x", START_MS), fsync=True))
            finished = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(committing)
            await reached.wait()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await wait_all_tasks_blocked()
            assert not finished
            go.set()
        assert finished
        monkeypatch.undo()
        assert len(await store.all_turns(THREAD)) == 2


async def test_a_store_that_is_cancelled_finishes_what_was_accepted(tmp_path: Path) -> None:
    outcomes: list[object] = []

    async def commit(store: Store, number: int) -> None:
        try:
            await create(store, uuid_of(number))
            outcomes.append(number)
        except StoreError as error:
            outcomes.append(error.fault)

    async with trio.open_nursery() as callers, opened(tmp_path) as store:
        for number in range(40):
            callers.start_soon(commit, store, number)
        await wait_all_tasks_blocked()
    assert sorted(map(str, outcomes)) == sorted(map(str, range(40)))
    async with opened(tmp_path) as store:
        assert len((await store.threads_page(ThreadQuery(limit=100))).records) == 40


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await create(store, THREAD)
    for ask in (
        lambda: store.commit(Batch(THREAD, [])),
        lambda: store.thread(THREAD),
        lambda: store.threads_page(ThreadQuery()),
    ):
        with pytest.raises(StoreError) as failed:
            await ask()
        assert failed.value.fault == "closed"
    store.release(THREAD)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_closing_leaves_one_file_and_no_open_descriptor(tmp_path: Path) -> None:
    before = open_descriptors()
    async with opened(tmp_path) as store:
        await create(store, THREAD)
        await store.all_turns(THREAD)
    assert [path.name for path in files(tmp_path, "spoold.sqlite*")] == ["spoold.sqlite"]
    after = open_descriptors()
    assert after <= before


async def test_many_threads_commit_at_once_and_nothing_is_mixed_up(tmp_path: Path) -> None:
    async def live(store: Store, number: int) -> None:
        thread_id = uuid_of(number)
        await create(store, thread_id, f"t{number}")
        for turn in range(1, 4):
            await add_turn(store, thread_id, turn, START_MS + turn, f"t{number}")
        store.release(thread_id)

    async with opened(tmp_path) as store:
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(live, store, number)
        for number in range(40):
            turns = await store.all_turns(uuid_of(number))
            assert [turn.id for turn in turns] == [turn_of(uuid_of(number), n) for n in range(4)]
            texts = {item.to_wire()["content"][0]["text"] for turn in turns for item in turn.items[:1]}
            assert texts == {f"t{number}"}


async def test_a_thread_read_while_it_is_written_never_shows_half_a_batch(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await create(store, THREAD)
        done = False

        async def write() -> None:
            nonlocal done
            for number in range(1, 30):
                turn_id = turn_of(THREAD, number)
                lines = turn_begin(THREAD, turn_id, "x", START_MS) + turn_end(THREAD, turn_id, "y", START_MS)
                await store.commit(Batch(THREAD, lines))
            done = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            while not done:
                for turn in await store.all_turns(THREAD):
                    assert (turn.status, len(turn.items)) == ("completed", 2)
        assert len(await store.all_turns(THREAD)) == 30


async def test_an_unexpected_failure_of_the_writer_is_told_to_whoever_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(self: object, *arguments: object) -> None:
        raise ZeroDivisionError

    async with opened(tmp_path) as store:
        await create(store, THREAD)
        with monkeypatch.context() as patch:
            patch.setattr(persistence.writer.Writer, "_transact", bug)
            with pytest.raises(StoreError, match="ZeroDivisionError"):
                await add_turn(store, THREAD, 1, START_MS)
        await add_turn(store, THREAD, 2, START_MS)
        assert len(await store.all_turns(THREAD)) == 3


async def test_a_batch_for_a_thread_without_file_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        with pytest.raises(StoreError, match=rf"no rollout found for thread id {THREAD}"):
            await store.commit(Batch(THREAD, [meta(THREAD)]))
