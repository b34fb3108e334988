"""The index is a function of the rollouts: written live or rebuilt from the files, it is the same.

Hypothesis writes random batches (with damage between them, restarts, both history forms), then the
database is deleted and rebuilt. A failure prints the steps that replay it.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persistence.home import Home
from persistence.rollout_lines import RolloutLine, response_item
from persistence.store import Batch, Store, ThreadQuery
from protocol.items import AgentMessageItem, ContextCompactionItem, ReasoningItem, ThreadItem
from protocol.threads import TurnError
from tests.persistence.sessions import (
    START_MS,
    completed,
    create,
    foreign_meta,
    message,
    opened,
    turn_begin,
    turn_end,
    turn_of,
    unnumbered,
    uuid_of,
    write_rollout,
)

TABLES = ("rollouts", "threads", "turns", "items")


def dump(root: Path) -> dict[str, list[Any]]:
    """Every row of the index."""
    with sqlite3.connect(f"file:{root}/spoold.sqlite?mode=ro", uri=True) as connection:
        tables = {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}
    connection.close()
    return {table: sorted(rows, key=repr) for table, rows in tables.items()}


def delete_database(root: Path) -> None:
    for path in root.glob("spoold.sqlite*"):
        path.unlink()


ITEM_KINDS = ["answer", "note", "reasoning", "compaction"]
GARBAGE = {
    "half": b'{"timestamp":"2026-11-18T11:06:40.000Z","type":"event_msg","payl',
    "line": b"not json\n",
    "binary": bytes(range(256)) + b"\n",
    "valid half": b'{"timestamp":"2026-11-18T11:06:40.000Z","type":"response_item","payload":{"type":"x"}}',
}
texts = st.text(max_size=12) | st.text(st.characters(), max_size=3) | st.just("x" * 5000)
threads = st.integers(0, 2)
steps = st.one_of(
    st.tuples(st.just("turn"), threads, texts, st.sampled_from(["open", "done", "failed", "aborted"])),
    st.tuples(st.just("item"), threads, texts, st.sampled_from(ITEM_KINDS)),
    st.tuples(st.just("context"), threads, texts, st.just("")),
    st.tuples(st.just("odd line"), threads, texts, st.just("")),
    st.tuples(st.just("garbage"), threads, st.just(""), st.sampled_from(sorted(GARBAGE))),
    st.tuples(st.just("restart"), threads, st.just(""), st.just("")),
    st.tuples(st.just("release"), threads, st.just(""), st.just("")),
)  # fmt: skip


def some_item(kind: str, text: str, number: int) -> ThreadItem:
    match kind:
        case "note":
            return AgentMessageItem(id=f"n{number}", text=text, phase="commentary")
        case "reasoning":
            return ReasoningItem(id=f"r{number}", summary=[text, text])
        case "compaction":
            return ContextCompactionItem(id=f"c{number}")
    return AgentMessageItem(id=f"a{number}", text=text)


class Writing:
    """Random steps against a store. Thread 0 and 1 are ours, 2 is a legacy file from elsewhere."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[int, Path] = {}
        self.turns = dict.fromkeys(range(3), 0)
        self.now = START_MS

    async def begin(self, store: Store) -> None:
        for number in range(2):
            self.files[number] = await create(store, uuid_of(number), f"thread {number}", self.now)

    async def step(self, store: Store, step: tuple[str, int, str, str]) -> None:
        kind, thread, text, how = step
        thread_id = uuid_of(thread)
        self.now += 777
        turn_id = turn_of(thread_id, self.turns[thread])
        lines: list[RolloutLine] = []
        match kind:
            case "turn":
                self.turns[thread] += 1
                turn_id = turn_of(thread_id, self.turns[thread])
                lines = turn_begin(thread_id, turn_id, text, self.now)
                error = TurnError(message=text) if how == "failed" else None
                if how != "open":
                    ending = turn_end(
                        thread_id, turn_id, text, self.now, error=error, aborted=how == "aborted"
                    )
                    lines += ending
            case "item":
                lines = [completed(thread_id, turn_id, some_item(how, text, self.now), self.now)]
            case "context":
                lines = [response_item(self.now, message("user", text))]
            case "odd line":
                lines = [RolloutLine(self.now, text, {"type": text})]
            case "garbage":
                with self.files[thread].open("ab") as file:
                    file.write(GARBAGE[how])
                return
            case "release":
                store.release(thread_id)
                return
        await store.commit(Batch(thread_id, lines))


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(runs=st.lists(steps, max_size=14))
def test_the_index_written_live_is_the_index_rebuilt_from_the_files(
    runs: list[tuple[str, int, str, str]],
) -> None:
    async def main(root: Path) -> None:
        writing = Writing(root)
        writing.files[2] = write_rollout(root, uuid_of(2), unnumbered(foreign_meta(uuid_of(2), "legacy")))
        remaining = list(runs)
        first = True
        while first or remaining:
            async with opened(root) as store:
                if first:
                    await writing.begin(store)
                    first = False
                while remaining:
                    step = remaining.pop(0)
                    if step[0] == "restart":
                        break
                    await writing.step(store, step)
        async with opened(root) as store:
            live = [await store.all_turns(uuid_of(number)) for number in range(3)]
            states = [await store.resume_state(uuid_of(number)) for number in range(3)]
        written = dump(root)
        delete_database(root)
        async with opened(root) as store:
            await store.threads_page(ThreadQuery())
            assert [await store.all_turns(uuid_of(number)) for number in range(3)] == live
            assert [await store.resume_state(uuid_of(number)) for number in range(3)] == states
        rebuilt = dump(root)
        for table in TABLES:
            assert written[table] == rebuilt[table]

    with tempfile.TemporaryDirectory() as folder:
        trio.run(main, Path(folder))


async def test_a_commit_alone_leaves_the_same_rows_as_a_rebuild(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await create(store, uuid_of(1))
        written = dump(tmp_path)
    delete_database(tmp_path)
    async with opened(tmp_path) as store:
        await store.threads_page(ThreadQuery())
    assert dump(tmp_path) == written


async def test_a_restart_indexes_nothing_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with opened(tmp_path) as store:
        for number in range(3):
            await create(store, uuid_of(number))
    caplog.clear()
    async with opened(tmp_path) as store:
        await store.threads_page(ThreadQuery())
    assert "3 files, 0 indexed, 0 dropped" in caplog.text


async def test_a_file_edited_in_place_is_indexed_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        path = await create(store, uuid_of(1), "before")
        path.write_bytes(path.read_bytes().replace(b"before", b"after!"))
        record = await store.thread(uuid_of(1))
        assert record is not None
        assert record.preview == "after!"
        assert (await store.all_turns(uuid_of(1)))[0].items[1].to_wire()["text"] == "answer to after!"


async def test_a_file_that_was_cut_shorter_is_indexed_again_before_it_is_appended_to(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        path = await create(store, uuid_of(1))
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:5]))
        await store.commit(Batch(uuid_of(1), [response_item(START_MS, message("user", "x"))]))
        assert [item.type for item in (await store.all_turns(uuid_of(1)))[0].items] == ["userMessage"]
    assert [json.loads(line)["ordinal"] for line in path.read_bytes().splitlines()] == list(range(6))


async def test_a_moved_file_is_found_again(tmp_path: Path) -> None:
    home = Home(tmp_path)
    async with opened(tmp_path) as store:
        path = await create(store, uuid_of(1))
        home.archived_sessions.mkdir()
        moved = path.rename(home.archived_sessions / path.name)
        record = await store.thread(uuid_of(1))
        assert record is not None
        assert (record.path, record.archived) == (moved, True)
        assert (await store.threads_page(ThreadQuery())).records == []
        await store.commit(Batch(uuid_of(1), turn_begin(uuid_of(1), uuid_of(5), "x", START_MS)))
    assert not path.exists()
