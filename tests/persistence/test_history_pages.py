"""Turns and items in pages: each exactly once, from either end, and round the corner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from persistence.appender import load_state
from persistence.history import History
from persistence.home import Home
from persistence.open_rollout import OpenRollout
from persistence.store import Batch, Store
from protocol.errors import InvalidRequest, NotSupported
from protocol.items import AgentMessageItem
from protocol.thread_methods import ItemsPage, TurnsPage
from tests.persistence.sessions import (
    START_MS,
    add_turn,
    completed,
    create,
    event,
    foreign_meta,
    opened,
    turn_begin,
    turn_of,
    unnumbered,
    uuid_of,
    write_rollout,
)

THREAD = uuid_of(1)
TURNS = 5


async def long_thread(store: Store) -> list[str]:
    await create(store, THREAD)
    ids = [turn_of(THREAD, 0)]
    return ids + [await add_turn(store, THREAD, n, START_MS + n * 1000) for n in range(1, TURNS)]


async def legacy_thread(root: Path) -> list[str]:
    ids = [turn_of(THREAD, number) for number in range(TURNS)]
    lines = [foreign_meta(THREAD, "legacy")]
    for turn_id in ids:
        lines += [event("task_started", turn_id=turn_id), event("user_message", message="hello")]
        lines += [event("agent_message", message="yes"), event("task_complete", turn_id=turn_id)]
    write_rollout(root, THREAD, unnumbered(*lines))
    return ids


async def turns(store: Store, **wanted: Any) -> TurnsPage:
    asked: dict[str, Any] = {"cursor": None, "limit": None, "direction": "desc", "view": "summary"}
    return await store.turns_page(THREAD, **(asked | wanted))


async def items(store: Store, **wanted: Any) -> ItemsPage:
    asked: dict[str, Any] = {"turn_id": None, "cursor": None, "limit": None, "direction": "asc"}
    return await store.items_page(THREAD, **(asked | wanted))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("limit", [0, 1, 2, 5, 6])
@pytest.mark.parametrize("direction", ["asc", "desc"])
async def test_pages_of_turns_hold_every_turn_once(
    tmp_path: Path, limit: int, direction: str, legacy: bool
) -> None:
    ids = await legacy_thread(tmp_path) if legacy else []
    async with opened(tmp_path) as store:
        ids = ids or await long_thread(store)
        seen: list[str] = []
        cursor = None
        while True:
            page = await turns(store, cursor=cursor, limit=limit, direction=direction)
            before = list(seen)
            seen += [turn.id for turn in page.data]
            opposite = "asc" if direction == "desc" else "desc"
            back = await turns(store, cursor=page.backwards_cursor, direction=opposite)
            assert [turn.id for turn in back.data] == [page.data[0].id, *before[::-1]]
            cursor = page.next_cursor
            if cursor is None:
                break
            assert len(page.data) == max(limit, 1)
    assert seen == (ids if direction == "asc" else ids[::-1])


@pytest.mark.parametrize("limit", [1, 3, 25])
@pytest.mark.parametrize("direction", ["asc", "desc"])
async def test_pages_of_items_hold_every_item_once(tmp_path: Path, limit: int, direction: str) -> None:
    async with opened(tmp_path) as store:
        ids = await long_thread(store)
        seen: list[str] = []
        cursor = None
        while True:
            page = await items(store, cursor=cursor, limit=limit, direction=direction)
            seen += [row.item.id for row in page.data]
            assert all(row.item.id[2:] == row.turn_id for row in page.data)
            cursor = page.next_cursor
            if cursor is None:
                break
    expected = [f"{kind}-{turn_id}" for turn_id in ids for kind in "ua"]
    assert seen == (expected if direction == "asc" else expected[::-1])


async def test_the_items_of_one_turn_are_asked_for_by_its_id(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        ids = await long_thread(store)
        page = await items(store, turn_id=ids[2])
        assert [row.turn_id for row in page.data] == [ids[2]] * 2
        assert (page.data[0].started_at_ms, page.data[0].completed_at_ms) == (
            START_MS + 1999,
            START_MS + 2000,
        )
        empty = await items(store, turn_id=uuid_of(99))
        assert (empty.data, empty.next_cursor, empty.backwards_cursor) == ([], None, None)


async def test_the_cursors_of_a_resume_begin_at_the_newest_row(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        ids = await long_thread(store)
        turns_cursor, items_cursor = await store.history_cursors(THREAD)
        assert [turn.id for turn in (await turns(store, cursor=turns_cursor, limit=2)).data] == ids[:-3:-1]
        later = await add_turn(store, THREAD, TURNS, START_MS + 99_000)
        forward = await turns(store, cursor=turns_cursor, direction="asc")
        assert [turn.id for turn in forward.data] == [ids[-1], later]
        rows = (await items(store, cursor=items_cursor)).data
        assert [row.item.id for row in rows] == [f"a-{ids[-1]}", f"u-{later}", f"a-{later}"]


def bad_cursors() -> list[str]:
    good: dict[str, Any] = {
        "requestedThreadId": THREAD,
        "rolloutOrdinal": 3,
        "includeAnchor": True,
        "scope": {"kind": "turns"},
    }
    changes: list[dict[str, Any]] = [
        {"requestedThreadId": uuid_of(2)},
        {"rolloutOrdinal": -1},
        {"rolloutOrdinal": 2**70},
        {"rolloutOrdinal": True},
        {"rolloutOrdinal": "3; DROP TABLE turns"},
        {"includeAnchor": 1},
        {"scope": None},
        {"scope": {"kind": "other"}},
    ]
    legacy = {"turnId": turn_of(THREAD, 1), "includeAnchor": True}
    return ["", "garbage", "[]", "1", "null", "\ud800", json.dumps(legacy)] + [
        json.dumps(good | change) for change in changes
    ]


@pytest.mark.parametrize("cursor", bad_cursors())
async def test_a_cursor_that_is_none_is_refused_by_name(tmp_path: Path, cursor: str) -> None:
    async with opened(tmp_path) as store:
        await create(store, THREAD)
        for page in (turns(store, cursor=cursor), items(store, cursor=cursor)):
            with pytest.raises(InvalidRequest) as refused:
                await page
            assert refused.value.message == f"invalid cursor: {cursor}"


@pytest.mark.parametrize("cursor", ['{"turnId":"unknown","includeAnchor":true}', '{"turnId":7}', "", "{}"])
async def test_a_legacy_cursor_must_name_a_turn(tmp_path: Path, cursor: str) -> None:
    await legacy_thread(tmp_path)
    async with opened(tmp_path) as store:
        with pytest.raises(InvalidRequest, match=r"^invalid cursor: "):
            await turns(store, cursor=cursor)


async def test_items_of_legacy_or_unknown_threads_are_not_supported(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        with pytest.raises(NotSupported, match=r"^thread/items/list is not supported yet$"):
            await items(store)
    await legacy_thread(tmp_path)
    async with opened(tmp_path) as store:
        with pytest.raises(NotSupported, match=r"^thread/items/list is not supported yet$"):
            await items(store)


async def test_an_unknown_thread_is_said_to_be_not_loaded(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        with pytest.raises(InvalidRequest, match=rf"^thread not loaded: {THREAD}$"):
            await turns(store)
        with pytest.raises(InvalidRequest, match=rf"^no rollout found for thread id {THREAD}$"):
            await store.resume_state(THREAD)
        assert await store.thread(THREAD) is None


async def test_a_running_turn_shows_its_completed_items(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await create(store, THREAD)
        running = turn_of(THREAD, 1)
        await store.commit(Batch(THREAD, turn_begin(THREAD, running, "go", START_MS + 1000)))
        note = AgentMessageItem(id="note", text="so far", phase="commentary")
        await store.commit(Batch(THREAD, [completed(THREAD, running, note, START_MS + 1001)]))
        page = await turns(store, view="full", limit=1, live_turn_id=running)
        assert [item.id for item in page.data[0].items] == [f"u-{running}", "note"]
        assert (page.data[0].status, page.data[0].completed_at) == ("inProgress", None)
        page = await turns(store, limit=1)
        assert [item.id for item in page.data[0].items] == [f"u-{running}"]
        assert page.data[0].status == "interrupted"


async def test_the_items_of_a_turn_are_found_without_walking_those_of_the_others(tmp_path: Path) -> None:
    import sqlite3

    statements: list[str] = []
    async with opened(tmp_path) as store:
        await create(store, THREAD)
        with sqlite3.connect(f"file:{tmp_path}/spoold.sqlite?mode=ro", uri=True) as connection:
            connection.row_factory = sqlite3.Row
            state = load_state(connection, THREAD)
            assert state is not None
            connection.set_trace_callback(statements.append)
            with OpenRollout(Home(tmp_path), state) as rollout:
                History(connection, rollout).turns(None, 1, "desc", "summary")
            connection.set_trace_callback(None)
            plans = [connection.execute(f"EXPLAIN QUERY PLAN {each}").fetchall() for each in statements]
        connection.close()
    steps = [step["detail"] for plan in plans for step in plan]
    assert len(steps) == 3
    assert "USING INDEX items_of_turn (thread_id=? AND turn_id=?)" in steps[1]
    assert not any("SCAN" in step or "TEMP" in step for step in steps)


async def test_a_page_reads_only_its_own_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    async with opened(tmp_path) as store:
        path = await create(store, THREAD, "x" * 1_000_000)
        wanted = await add_turn(store, THREAD, 1, START_MS + 1000)
        read = 0
        pread = os.pread

        def counting(descriptor: int, length: int, offset: int) -> bytes:
            nonlocal read
            data = pread(descriptor, length, offset)
            read += len(data)
            return data

        monkeypatch.setattr(os, "pread", counting)
        page = await turns(store, limit=1, view="full")
    assert page.data[0].id == wanted
    assert path.stat().st_size > 2_000_000
    assert read < 2_000
