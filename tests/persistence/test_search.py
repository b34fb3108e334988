"""Search: what is found, in what order, and that no term breaks it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persistence.schema import migrate
from persistence.search import expression
from persistence.search_index import LONGEST_TEXT, add_text, forget_texts, number_thread
from persistence.store import Batch, Store, ThreadQuery
from protocol.errors import InvalidRequest
from tests.persistence.sessions import (
    START_MS,
    add_turn,
    create,
    event,
    foreign_meta,
    opened,
    turn_of,
    unnumbered,
    uuid_of,
    write_rollout,
)
from tests.persistence.test_index_is_derived import delete_database


async def found(store: Store, term: str, **options: Any) -> dict[str, str]:
    page = await store.search(term, **options)
    return {record.id: snippet for record, snippet in page.hits}


def texts(root: Path) -> set[tuple[str, int, str]]:
    """All searchable text as (thread, ordinal, text)."""
    with sqlite3.connect(f"file:{root}/spoold.sqlite?mode=ro", uri=True) as connection:
        statement = (
            "SELECT t.thread_id, s.rowid & 0x7fffffff, s.text "
            "FROM search s JOIN search_threads t ON t.number = s.rowid >> 31"
        )
        rows = connection.execute(statement).fetchall()
    connection.close()
    return set(rows)


async def test_a_thread_is_found_by_what_user_or_agent_said_but_not_by_its_context(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await create(store, uuid_of(1), "Where is the Zürich station?")
        await create(store, uuid_of(2), "something else")
        await store.commit(Batch(uuid_of(2), []))
        assert await found(store, "zurich STAT") == {uuid_of(1): "answer to Where is the Zürich station?"}
        assert list(await found(store, "answer")) == [uuid_of(2), uuid_of(1)]
        assert await found(store, "station else") == {}
        assert await found(store, "tation") == {}
        assert await found(store, "input_text") == {}


async def test_threads_come_by_recency_once_each_with_their_newest_match_and_in_pages(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for number in range(1, 6):
            await create(store, uuid_of(number), "needle in hay", START_MS + number)
        await add_turn(store, uuid_of(2), 1, START_MS + 50_000, "newer needle")
        first = await store.search("needle", limit=2)
        assert [record.id for record, _ in first.hits] == [uuid_of(2), uuid_of(5)]
        assert first.hits[0][1] == "answer to newer needle"
        second = await store.search("needle", first.next_cursor, 10)
        assert [record.id for record, _ in second.hits] == [uuid_of(4), uuid_of(3), uuid_of(1)]
        assert second.next_cursor is None
        oldest = await store.search("needle", limit=1, sort_key="created_at", direction="asc")
        assert [record.id for record, _ in oldest.hits] == [uuid_of(1)]
        with pytest.raises(InvalidRequest, match=r"^invalid cursor: x$"):
            await store.search("needle", "x")


async def test_archived_threads_are_found_only_when_asked_for(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await create(store, uuid_of(1), "needle")
        await create(store, uuid_of(2), "needle")
        await store.commit(Batch(uuid_of(1), relocate="archive"))
        assert list(await found(store, "needle")) == [uuid_of(2)]
        assert list(await found(store, "needle", archived=True)) == [uuid_of(1)]
        assert await found(store, "needle", source_kinds=["exec"]) == {}


async def test_what_was_reverted_is_found_no_more(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await create(store, uuid_of(1), "first")
        turn_id = await add_turn(store, uuid_of(1), 1, START_MS + 1000, "second")
        assert len(await found(store, "second")) == 1
        await store.revert(uuid_of(1), turn_id, START_MS + 5000)
        assert await found(store, "second") == {}
        assert len(await found(store, "first")) == 1


async def test_legacy_history_is_searched_too(tmp_path: Path) -> None:
    lines = unnumbered(
        foreign_meta(uuid_of(1), "legacy"),
        event("task_started", turn_id=turn_of(uuid_of(1), 0)),
        event("user_message", message="old needle"),
        event("agent_reasoning", text="thoughts"),
        event("agent_message", message="old thread"),
    )
    write_rollout(tmp_path, uuid_of(1), lines)
    async with opened(tmp_path) as store:
        assert list(await found(store, "needle")) == list(await found(store, "thread")) == [uuid_of(1)]
        assert await found(store, "thoughts") == {}


async def test_only_the_beginning_of_a_long_message_is_kept_and_its_snippet_is_short(tmp_path: Path) -> None:
    long = "needle " + "häy " * 40_000 + "pin"
    async with opened(tmp_path) as store:
        await create(store, uuid_of(1), long)
        assert len((await found(store, "needle"))[uuid_of(1)]) < 300
        assert await found(store, "pin") == {}
        assert (await store.all_turns(uuid_of(1)))[0].items[1].to_wire()["text"] == f"answer to {long}"
    assert max(len(text.encode()) for _, _, text in texts(tmp_path)) <= LONGEST_TEXT


async def test_the_search_of_a_lost_database_is_rebuilt_from_the_files(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for number in range(3):
            await create(store, uuid_of(number), f"odd \0 \ud800 text {number}")
            await add_turn(store, uuid_of(number), 1, START_MS + 1000, "")
    before = texts(tmp_path)
    delete_database(tmp_path)
    async with opened(tmp_path) as store:
        await store.threads_page(ThreadQuery())
        assert len(await found(store, "odd text 1")) == 1
    assert texts(tmp_path) == before
    assert len(before) == 3 * 3


async def test_an_index_from_before_there_was_a_search_is_made_anew(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await create(store, uuid_of(1), "needle")
    connection = sqlite3.connect(tmp_path / "spoold.sqlite")
    later = ("thread_queued_turns", "queued_turns_started", "queue_pauses")
    for table in ("search", "search_threads", "thread_facts", "read_states", "goals", "relocations", *later):
        connection.execute(f"DROP TABLE {table}")
    connection.execute("DROP INDEX threads_by_parent")
    connection.execute("ALTER TABLE rollouts DROP COLUMN unflushed")
    connection.execute("DELETE FROM _sqlite_migrations WHERE name<>'thread_index'")
    connection.commit()
    connection.close()
    async with opened(tmp_path) as store:
        assert list(await found(store, "needle")) == [uuid_of(1)]


def index() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    return connection


HOSTILE = [
    "", " ", '"', '""', "*", "needle*", 'needle"', "'; DROP TABLE search; --", "text:needle", "NEAR(a b)",
    "AND", "a OR b", "NOT needle", "^needle", "(", ")", "{text}: x", "-needle", "+", "\0", "a\0b", "\ud800",
    "💥", "x" * 100_000, "z " * 10_000, "%", "_", "\\", "日本語", "٣", "ß", "\u202eneedle", "++ needle",
]  # fmt: skip


@pytest.mark.parametrize("term", HOSTILE, ids=lambda term: repr(term[:20]))
async def test_no_term_is_taken_for_a_query(tmp_path: Path, term: str) -> None:
    async with opened(tmp_path) as store:
        await create(store, uuid_of(1), "needle and NOT pin")
        hits = await found(store, term)
        assert hits.keys() <= {uuid_of(1)}
        expected = {
            "needle*",
            'needle"',
            "AND",
            "NOT needle",
            "^needle",
            "-needle",
            "++ needle",
            "\u202eneedle",
        }
        assert bool(hits) == (term in expected)


@settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
@given(term=st.text(max_size=30), text=st.text(max_size=60))
def test_any_term_over_any_text_is_answered(term: str, text: str) -> None:
    connection = index()
    for statement, values in (number_thread("t"), add_text("t", 5, text.encode("utf-8", "replace").decode())):
        connection.execute(statement, values)
    connection.execute("SELECT rowid FROM search WHERE search MATCH ?", (expression(term),)).fetchall()
    connection.close()


@given(
    words=st.lists(st.text(alphabet="abcé9ж", min_size=1, max_size=6), min_size=1, max_size=8), data=st.data()
)
@settings(deadline=None, max_examples=100)
def test_every_beginning_of_every_word_finds_its_message(words: list[str], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(words), min_size=1, max_size=4))
    beginnings = [word[: data.draw(st.integers(1, len(word)))] for word in chosen]
    connection = index()
    for statement, values in (number_thread("t"), add_text("t", 5, "; ".join(words).upper())):
        connection.execute(statement, values)
    matching = expression(" ".join(beginnings))
    assert len(connection.execute("SELECT 1 FROM search WHERE search MATCH ?", (matching,)).fetchall()) == 1
    connection.close()


def test_a_thread_without_texts_is_forgotten_without_looking_at_all_the_others() -> None:
    connection = index()
    for statement, values in (number_thread("t"), *(add_text("t", ordinal, "x") for ordinal in range(2000))):
        connection.execute(statement, values)
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    connection.set_progress_handler(count, 10)
    for statement, values in forget_texts("unknown"):
        connection.execute(statement, values)
    connection.set_progress_handler(None, 0)
    assert steps < 50
    connection.close()


def test_forgetting_one_thread_leaves_the_others() -> None:
    connection = index()
    for thread in "abc":
        for statement, values in (
            number_thread(thread),
            add_text(thread, 0, "x"),
            add_text(thread, 2**31 - 1, "x"),
        ):
            connection.execute(statement, values)
        # No room for a number that large: not searched, not mixed up with the next thread.
        connection.execute(*add_text(thread, 2**31, "x"))
    for statement, values in forget_texts("b"):
        connection.execute(statement, values)
    left = connection.execute("SELECT rowid >> 31, count(*) FROM search GROUP BY 1").fetchall()
    assert left == [(1, 2), (3, 2)]
    connection.close()
