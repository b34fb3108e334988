"""Listing: every thread exactly once whatever the page size, filters, cursors, bad cursors."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persistence.home import Home
from persistence.rollout_files import FoundFile
from persistence.schema import migrate
from persistence.store import Batch, ThreadQuery, ThreadsPage
from persistence.thread_list import MAX_LIMIT, read_page
from protocol.errors import InvalidRequest
from tests.persistence.sessions import (
    START_MS,
    add_turn,
    create,
    event,
    meta,
    numbered,
    opened,
    unnumbered,
    uuid_of,
    write_rollout,
)

HOME = Home(Path("/nowhere"))
COLUMNS = (
    "thread_id, path, archived, listed, recognised, created_at_ms, updated_at_ms, recency_at_ms, "
    "indexed_bytes, next_ordinal, item_count, history_mode, turn_derived, has_meta, has_cwd, file_size, "
    "file_mtime_ns"
)


def database(rows: list[tuple[int, int, int, int]]) -> sqlite3.Connection:
    """An index with rows of (created, updated, recency, archived); ids count."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.row_factory = sqlite3.Row
    migrate(connection)
    for number, (created, updated, recency, archived) in enumerate(rows):
        thread_id = uuid_of(number)
        values = (thread_id, "p", archived, 1, 1, created, updated, recency)
        connection.execute(
            f"INSERT INTO rollouts ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,0,0,0,'paginated',0,1,1,0,0)", values
        )
        connection.execute(
            "INSERT INTO threads (thread_id, preview, source, source_kind) VALUES (?,'p','\"cli\"','cli')",
            (thread_id,),
        )
    return connection


def walk(connection: sqlite3.Connection, **query: Any) -> list[ThreadsPage]:
    pages, cursor = [], None
    while True:
        pages.append(read_page(connection, HOME, ThreadQuery(cursor=cursor, **query)))
        cursor = pages[-1].next_cursor
        if cursor is None:
            return pages


few = st.integers(min_value=START_MS, max_value=START_MS + 3)


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(few, few, few, st.integers(0, 1)), max_size=12),
    limit=st.integers(0, 5),
    key=st.sampled_from(["created_at", "updated_at", "recency_at"]),
    direction=st.sampled_from(["asc", "desc"]),
    archived=st.booleans(),
)
def test_pages_hold_every_thread_once_and_in_order_even_at_equal_times(
    rows: list[tuple[int, int, int, int]], limit: int, key: Any, direction: Any, archived: bool
) -> None:
    connection = database(rows)
    try:
        query: dict[str, Any] = {"sort_key": key, "direction": direction, "archived": archived}
        pages = walk(connection, limit=limit, **query)
        column = ["created_at", "updated_at", "recency_at"].index(key)
        wanted = sorted(
            ((row[column], uuid_of(n)) for n, row in enumerate(rows) if row[3] == archived),
            reverse=direction == "desc",
        )
        assert [record.id for page in pages for record in page.records] == [each[1] for each in wanted]
        assert all(len(page.records) == max(limit, 1) for page in pages[:-1])
        # Turning round at any page shows exactly what lies before it.
        opposite = "asc" if direction == "desc" else "desc"
        before: list[str] = []
        for page in pages:
            if page.backwards_cursor is None:
                continue
            back = ThreadQuery(cursor=page.backwards_cursor, **{**query, "direction": opposite})
            found = [record.id for record in read_page(connection, HOME, back).records]
            assert found == before[::-1]
            before += [record.id for record in page.records]
    finally:
        connection.close()


@pytest.mark.parametrize("key", ["created_at", "updated_at", "recency_at"])
@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("archived", [False, True])
def test_a_page_walks_an_index_and_sorts_nothing(key: Any, direction: Any, archived: bool) -> None:
    connection = database([])
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    cursor = f"2026-11-20T12:11:13.000Z|{uuid_of(1)}"
    query = ThreadQuery(cursor=cursor, sort_key=key, direction=direction, archived=archived)
    read_page(connection, HOME, query)
    connection.set_trace_callback(None)
    plan = [row["detail"] for row in connection.execute(f"EXPLAIN QUERY PLAN {statements[-1]}")]
    connection.close()
    which = f"{'archived' if archived else 'active'}_by_{key.removesuffix('_at')}"
    assert f"INDEX {which} " in plan[0]
    assert plan[0].startswith("SEARCH")
    assert not any("TEMP B-TREE" in step for step in plan)


@pytest.mark.parametrize(
    "cursor", ["", "garbage", "|", "|x", "2026-11-20T12:11:13Z|", "2026-99-20T12:11:13Z|x", "\x00", "1"]
)
def test_a_cursor_that_is_none_is_refused_by_name(cursor: str) -> None:
    connection = database([])
    with pytest.raises(InvalidRequest, match=r"^invalid cursor: ") as refused:
        read_page(connection, HOME, ThreadQuery(cursor=cursor))
    connection.close()
    assert refused.value.message == f"invalid cursor: {cursor}"


def test_a_cursor_with_whole_seconds_or_without_thread_is_understood() -> None:
    connection = database([(START_MS, 0, 0, 0), (START_MS + 1000, 0, 0, 0)])
    at = "2026-11-18T11:06:41Z"
    for cursor in (at, f"{at}|{uuid_of(1)}"):
        page = read_page(connection, HOME, ThreadQuery(cursor=cursor))
        assert [record.id for record in page.records] in ([uuid_of(0)], [uuid_of(0)])
    connection.close()


def test_sorting_by_section_needs_a_section() -> None:
    connection = database([])
    with pytest.raises(InvalidRequest, match="section-position sorting requires a section filter"):
        read_page(connection, HOME, ThreadQuery(sort_key="section_position"))
    connection.close()


def test_a_huge_limit_is_clamped() -> None:
    connection = database([(START_MS, 0, 0, 0)] * (MAX_LIMIT + 1))
    page = read_page(connection, HOME, ThreadQuery(limit=2**32 - 1))
    connection.close()
    assert len(page.records) == MAX_LIMIT
    assert page.next_cursor is not None


async def listed(tmp_path: Path, **query: Any) -> list[str]:
    async with opened(tmp_path) as store:
        page = await store.threads_page(ThreadQuery(direction="asc", **query))
        return [record.preview for record in page.records]


async def seed(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await create(store, uuid_of(1), "alpha", START_MS, cwd="/a", model_provider="p1")
        await create(store, uuid_of(2), "Beta", START_MS + 1, cwd="/b/", model_provider="p2")
        await create(store, uuid_of(3), "gamma", START_MS + 2, cwd="/a", model_provider="p2", source="exec")
        spawned = {"subagent": {"thread_spawn": {"parent_thread_id": uuid_of(1), "depth": 1}}}
        await create(store, uuid_of(4), "delta", START_MS + 3, source=spawned)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["alpha", "Beta"]),
        ({"source_kinds": []}, ["alpha", "Beta"]),
        ({"source_kinds": ["exec"]}, ["gamma"]),
        ({"source_kinds": ["subAgent"]}, ["delta"]),
        ({"source_kinds": ["subAgentThreadSpawn", "vscode"]}, ["alpha", "Beta", "delta"]),
        ({"source_kinds": ["no such"]}, []),
        ({"model_providers": []}, ["alpha", "Beta"]),
        ({"model_providers": ["p2"]}, ["Beta"]),
        ({"cwds": ["/a/"]}, ["alpha"]),
        ({"cwds": ["/b"]}, ["Beta"]),
        ({"cwds": ["/c/../a", "/b/."]}, ["alpha", "Beta"]),
        ({"cwds": ["/"]}, []),
        ({"search_term": "lph"}, ["alpha"]),
        ({"search_term": "beta"}, []),
        ({"search_term": "%"}, []),
        ({"search_term": ""}, ["alpha", "Beta"]),
        ({"excluded_ids": [uuid_of(1)]}, ["Beta"]),
        ({"parent_id": uuid_of(1), "source_kinds": ["subAgent"]}, ["delta"]),
        ({"archived": True}, []),
    ],
)
async def test_filters_choose_what_is_listed(
    tmp_path: Path, query: dict[str, Any], expected: list[str]
) -> None:
    await seed(tmp_path)
    assert await listed(tmp_path, **query) == expected


async def test_a_page_is_filled_up_to_its_limit_after_filtering(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for number in range(6):
            provider = "wanted" if number % 2 else "other"
            await create(store, uuid_of(number), f"t{number}", START_MS + number, model_provider=provider)
        page = await store.threads_page(ThreadQuery(limit=2, model_providers=["wanted"]))
    assert [record.preview for record in page.records] == ["t5", "t3"]
    assert page.next_cursor is not None


async def test_a_thread_without_user_message_is_listed_only_when_archived(tmp_path: Path) -> None:
    lines = numbered(uuid_of(1), ("session_meta", meta(uuid_of(1)).payload))
    write_rollout(tmp_path, uuid_of(1), lines)
    write_rollout(tmp_path, uuid_of(2), [{**lines[0], "payload": meta(uuid_of(2)).payload}], archived=True)
    async with opened(tmp_path) as store:
        assert (await store.threads_page(ThreadQuery())).records == []
        (record,) = (await store.threads_page(ThreadQuery(archived=True))).records
        assert (record.id, record.preview) == (uuid_of(2), "")
        assert await store.thread(uuid_of(1)) is not None


async def test_a_new_turn_moves_a_thread_to_the_front_of_the_recent_ones(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for number in range(3):
            await create(store, uuid_of(number), f"t{number}", START_MS + number)
        await add_turn(store, uuid_of(0), 1, START_MS + 9000)
        for key in ("recency_at", "updated_at"):
            page = await store.threads_page(ThreadQuery(sort_key=key))
            assert [record.preview for record in page.records] == ["t0", "t2", "t1"]
        page = await store.threads_page(ThreadQuery())
        assert [record.preview for record in page.records] == ["t2", "t1", "t0"]


async def test_a_thread_whose_file_was_removed_is_not_listed_and_not_found(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        paths = [await create(store, uuid_of(n), f"t{n}", START_MS + n) for n in range(3)]
        paths[1].unlink()
        page = await store.threads_page(ThreadQuery(limit=2))
        assert [record.preview for record in page.records] == ["t2", "t0"]
        assert await store.thread(uuid_of(1)) is None


async def test_a_file_that_vanished_while_nothing_ran_is_dropped_from_the_index(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        path = await create(store, uuid_of(1), "gone")
        await create(store, uuid_of(2), "there", START_MS + 1)
    path.unlink()
    assert await listed(tmp_path) == ["there"]


async def test_the_preview_is_the_whole_text_of_the_first_user_message(tmp_path: Path) -> None:
    parts = [
        {"type": "text", "text": "one"},
        {"type": "image", "image_url": "x"},
        {"type": "text", "text": "two"},
    ]
    body = {"type": "UserMessage", "id": "u", "content": parts}
    lines = numbered(
        uuid_of(1),
        ("session_meta", meta(uuid_of(1)).payload),
        event("item_completed", turn_id="t", item={**body, "content": parts[1:2]}),
        event("item_completed", turn_id="t", item=body),
        event("item_completed", turn_id="t", item={**body, "content": [{"type": "text", "text": "late"}]}),
    )
    write_rollout(tmp_path, uuid_of(1), lines)
    assert await listed(tmp_path) == ["one\ntwo"]


async def test_names_that_are_no_rollouts_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "sessions/2026/11/18"
    folder.mkdir(parents=True)
    for name in ("notes.txt", "rollout-x.jsonl", f"rollout-{uuid_of(1)}.jsonl", ".hidden"):
        (folder / name).write_text("{}")
    (folder / f"rollout-2026-11-18T11-06-40-{uuid_of(2)}.jsonl").mkdir()
    assert await listed(tmp_path) == []


async def test_a_list_asked_before_the_store_is_open_waits_for_the_rebuild(tmp_path: Path) -> None:
    for number in range(40):
        user = event("user_message", message=f"t{number}")
        write_rollout(tmp_path, uuid_of(number), unnumbered(("session_meta", meta(uuid_of(number)).payload | {
            "history_mode": "legacy"}), user))  # fmt: skip
    async with opened(tmp_path) as store:
        assert len((await store.threads_page(ThreadQuery(limit=100))).records) == 40


async def test_a_read_does_not_wait_for_the_rebuild(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    import persistence.rebuild

    write_rollout(tmp_path, uuid_of(1), unnumbered(("session_meta", meta(uuid_of(1)).payload)))
    release = threading.Event()

    def stuck(home: Home) -> list[FoundFile]:
        release.wait(60)
        return []

    monkeypatch.setattr(persistence.rebuild, "find_all", stuck)
    async with opened(tmp_path) as store:
        try:
            assert await store.thread(uuid_of(1)) is not None
            await store.commit(Batch(uuid_of(1), []))
        finally:
            release.set()
