"""The rows of a queue on disk: what is written is read, orders are unique, crashes are settled once."""

from __future__ import annotations

import random
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

import persistence.store
from persistence import queue as rows
from persistence.database import Operation, open_for_writing
from persistence.errors import StoreError
from persistence.queue import INTERRUPTED, QueuedTurn, StartedRow, StoredQueue
from persistence.store import Batch, Store, ThreadQuery
from protocol.errors import InvalidRequest
from tests.persistence.sessions import create, opened, turn_begin, turn_of, uuid_of
from tests.support.in_memory import replay_hint

THREAD, OTHER = uuid_of(0xD01), uuid_of(0xD02)


def row(number: int, order: int, **changes: Any) -> QueuedTurn:
    said = {"threadId": THREAD, "input": [{"type": "text", "text": f"row {number} ü"}], "model": None}
    return QueuedTurn(uuid_of(0xE00 + number), said, order, created_at_ms=1, updated_at_ms=2, **changes)


def claimed(number: int, order: int, turn_id: str, item_id: str) -> QueuedTurn:
    return row(number, order, state="dispatching", turn_id=turn_id, item_id=item_id)


async def write(store: Store, *operations: Operation, thread_id: str = THREAD) -> None:
    await store.commit(Batch(thread_id, queue=list(operations)))


async def put(store: Store, *several: QueuedTurn, thread_id: str = THREAD) -> None:
    await write(store, *(rows.insert(thread_id, each) for each in several), thread_id=thread_id)


async def test_rows_are_read_as_they_were_written_in_their_order_and_in_another_life(tmp_path: Path) -> None:
    failed = row(3, -5, state="failed", failure="why")
    named = row(2, 9)
    named = replace(named, params={**named.params, "clientUserMessageId": "c1"})
    async with opened(tmp_path) as store:
        await put(store, named, row(1, 4), failed)
        assert await store.queue(THREAD) == StoredQueue((failed, row(1, 4), named))
        assert await store.queue(OTHER) == StoredQueue()
    async with opened(tmp_path) as store:
        assert await store.queue(THREAD) == StoredQueue((failed, row(1, 4), named))


async def test_two_rows_of_a_thread_cannot_have_one_order_and_nothing_of_such_a_commit_stays(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as store:
        await put(store, row(1, 1))
        await put(store, row(2, 1), thread_id=OTHER)
        with pytest.raises(StoreError, match="UNIQUE"):
            await put(store, row(3, 2), row(4, 1))
        assert await store.queue(THREAD) == StoredQueue((row(1, 1),))
        assert await store.queue(OTHER) == StoredQueue((row(2, 1),))


async def test_a_change_keeps_the_place_and_changes_the_rest(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await put(store, row(1, 1), row(2, 2))
        changed = replace(row(7, 1, state="failed", failure="x"), id=row(1, 1).id, updated_at_ms=9)
        await write(store, rows.change(changed))
        assert await store.queue(THREAD) == StoredQueue((changed, row(2, 2)))
        await write(store, rows.remove(changed.id))
        assert await store.queue(THREAD) == StoredQueue((row(2, 2),))


@pytest.mark.parametrize("first", [-40, -3, -1, 0, 1, 7])
@pytest.mark.parametrize("count", [1, 2, 5, 40])
async def test_rows_can_be_put_in_any_order_whatever_numbers_they_have(
    tmp_path: Path, first: int, count: int
) -> None:
    # A claim stays where it is, just before those that wait.
    claim = claimed(99, first - 1, turn_of(THREAD, 1), "item")
    with replay_hint(first=first, count=count):
        async with opened(tmp_path) as store:
            before = [row(number, first + number) for number in range(count)]
            await put(store, *before, replace(claim, state="pending"))
            await write(store, rows.change(claim))
            chance = random.Random(count)
            for free in (first + count, first + 2 * count, first - 1 - count):
                ids = chance.sample(range(count), count)
                after = [replace(before[each], order=free + place) for place, each in enumerate(ids)]
                await write(store, rows.reorder(after))
                stored = await store._read(lambda connection: rows.read_queue(connection, THREAD))
                assert stored.rows == tuple(sorted((claim, *after), key=lambda each: each.order))


async def test_a_pause_is_of_one_thread_and_can_be_said_twice(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for paused in (True, True, False, False, True):
            await write(store, rows.pause(THREAD, paused))
            assert await store.queue(THREAD) == StoredQueue(paused=paused)
            assert await store.queue(OTHER) == StoredQueue()


async def test_a_started_row_is_gone_and_found_by_its_id_and_by_its_clients_id(tmp_path: Path) -> None:
    turn_id = turn_of(THREAD, 3)
    ran = claimed(1, 1, turn_id, "item")
    ran = replace(ran, params={**ran.params, "clientUserMessageId": "c1"})
    async with opened(tmp_path) as store:
        await put(store, replace(ran, state="pending"))
        assert await store.queued_turn_started(THREAD, row_id=ran.id) is None
        await write(store, *rows.started(THREAD, ran))
        assert await store.queue(THREAD) == StoredQueue()
        assert await store.queued_turn_started(THREAD, row_id=ran.id) == StartedRow(ran.id, turn_id)
        assert await store.queued_turn_started(THREAD, client_id="c1") == StartedRow(ran.id, turn_id)
        assert await store.queued_turn_started(THREAD, client_id="c2") is None
        assert await store.queued_turn_started(OTHER, client_id="c1") is None


async def test_a_claim_is_settled_once_by_what_the_rollout_says(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await create(store, THREAD)
        turn_id = turn_of(THREAD, 5)
        # Only what the turn records as its user message counts; the turn's beginning alone does not.
        await store.commit(Batch(THREAD, turn_begin(THREAD, turn_id, "ran", 1_795_000_100_000)))
        ran = claimed(1, 1, turn_id, f"u-{turn_id}")
        lost = claimed(2, 2, turn_id, "another item")
        waits = row(3, 3)
        await put(store, replace(ran, state="pending"), replace(lost, state="pending"), waits)
        await write(store, rows.change(ran), rows.change(lost))
    async with opened(tmp_path) as store:
        first = await store.queue(THREAD)
        failed, left = first.rows
        assert left == waits
        assert (failed.id, failed.state, failed.failure) == (lost.id, "failed", INTERRUPTED)
        assert (failed.turn_id, failed.item_id, failed.params) == (None, None, lost.params)
        assert await store.queue(THREAD) == first
        assert await store.queued_turn_started(THREAD, row_id=ran.id) == StartedRow(ran.id, turn_id)
        assert await store.queued_turn_started(THREAD, row_id=lost.id) is None
    async with opened(tmp_path) as store:
        assert await store.queue(THREAD) == first


@pytest.mark.parametrize("ran", [False, True], ids=["lost", "ran"])
async def test_a_load_that_was_cancelled_settles_nothing_that_has_changed_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ran: bool
) -> None:
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()
    turn_id, calls = turn_of(THREAD, 5), []

    def reach(name: str) -> None:
        calls.append(name)
        if name == "before a claim is settled" and calls.count(name) == 1:
            begun.set()
            go_on.wait()
        if name == "after a claim is settled" and calls.count(name) == 2:
            done.set()

    async with opened(tmp_path) as store:
        await create(store, THREAD)
        await store.commit(Batch(THREAD, turn_begin(THREAD, turn_id, "ran", 1_795_000_100_000)))
        claim = claimed(1, 1, turn_id, f"u-{turn_id}" if ran else "another item")
        await put(store, replace(claim, state="pending"))
        await write(store, rows.change(claim))
        monkeypatch.setattr(persistence.store, "reach", reach)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.queue, THREAD)
            await trio.to_thread.run_sync(begun.wait)
            nursery.cancel_scope.cancel()
        settled = (await store.queue(THREAD)).rows
        assert [row.state for row in settled] == ([] if ran else ["failed"])
        changed = replace(row(1, 1), params={"input": "changed since"})
        if ran:
            await store.commit(Batch(THREAD, relocate="delete"))
        else:
            await write(store, rows.change(changed))
        go_on.set()
        await trio.to_thread.run_sync(done.wait)
        assert await store.queue(THREAD) == StoredQueue(() if ran else (changed,))
        assert await store.queued_turn_started(THREAD, row_id=claim.id) is None


async def test_a_claim_waits_for_a_rollout_that_is_away(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        path = await create(store, THREAD)
        turn_id = turn_of(THREAD, 5)
        await store.commit(Batch(THREAD, turn_begin(THREAD, turn_id, "ran", 1_795_000_100_000)))
        claim = claimed(1, 1, turn_id, f"u-{turn_id}")
        await put(store, replace(claim, state="pending"))
        await write(store, rows.change(claim))
        away = path.rename(tmp_path / "away")
        with pytest.raises(InvalidRequest, match=f"^no rollout found for thread id {THREAD}$"):
            await store.queue(THREAD)
        away.rename(path)
        assert await store.queue(THREAD) == StoredQueue()
        assert await store.queued_turn_started(THREAD, row_id=claim.id) == StartedRow(claim.id, turn_id)


@pytest.mark.parametrize("relocate", ["archive", "delete"])
async def test_an_archived_thread_keeps_its_queue_and_a_deleted_one_is_forgotten(
    tmp_path: Path, relocate: Any
) -> None:
    async with opened(tmp_path) as store:
        await create(store, THREAD)
        await put(store, row(1, 1))
        await put(store, row(2, 1), thread_id=OTHER)
        ran = claimed(3, 2, turn_of(THREAD, 3), "item")
        await write(store, *rows.started(THREAD, ran), rows.pause(THREAD, True))
        await store.commit(Batch(THREAD, relocate=relocate))
        kept = relocate == "archive"
        assert await store.queue(THREAD) == (
            StoredQueue((row(1, 1),), paused=True) if kept else StoredQueue()
        )
        assert (await store.queued_turn_started(THREAD, row_id=ran.id) is not None) == kept
        assert await store.queue(OTHER) == StoredQueue((row(2, 1),))


@pytest.mark.parametrize("gone", ["file", "index"])
async def test_rows_wait_for_a_rollout_that_is_away_and_for_an_index_that_is_made_again(
    tmp_path: Path, gone: str
) -> None:
    ran = claimed(3, 2, turn_of(THREAD, 3), "item")
    waits = StoredQueue((row(1, 4),), paused=True)
    async with opened(tmp_path) as store:
        path = await create(store, THREAD)
        await put(store, row(1, 4))
        await write(store, *rows.started(THREAD, ran), rows.pause(THREAD, True))
    if gone == "file":
        away = path.rename(tmp_path / "away")
        async with opened(tmp_path) as store:
            assert (await store.threads_page(ThreadQuery())).records == []
            # Nobody can delete what is not there: it says so, and has changed nothing.
            with pytest.raises(StoreError, match="no rollout found"):
                await store.commit(Batch(THREAD, relocate="delete"))
        away.rename(path)
    else:
        connection = open_for_writing(tmp_path / "spoold.sqlite", 1, [])
        for table in ("rollouts", "threads", "turns", "items"):
            connection.execute(f"DELETE FROM {table}")
        connection.close()
    async with opened(tmp_path) as store:
        assert await store.thread(THREAD) is not None
        assert await store.queue(THREAD) == waits
        assert await store.queued_turn_started(THREAD, row_id=ran.id) is not None
