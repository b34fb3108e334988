"""Archiving, unarchiving, deleting: files and rows together, whatever interrupts them."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import persistence.relocation
from persistence.appender import load_state
from persistence.database import open_for_writing
from persistence.home import Home
from persistence.jobs import Apply
from persistence.queue import QueuedTurn, insert, pause, started
from persistence.relocation import Action, relocate
from persistence.rollout_files import find_one, reverted_path
from persistence.scan import index_file
from persistence.store import Batch, Goal, ReadState, Store, StoreError, ThreadQuery
from tests.persistence.sessions import (
    LOCAL_TIME,
    START_MS,
    add_turn,
    create,
    opened,
    turn_begin,
    turn_end,
    turn_of,
    uuid_of,
)

PARENT, CHILD, GRANDCHILD, OTHER = (uuid_of(number) for number in range(1, 5))
LATER = START_MS + 86_400_000
GOAL = Goal("finish", "active", None, 1, 2, START_MS, START_MS)


async def family(store: Store) -> None:
    await create(store, PARENT, "parent")
    await create(store, CHILD, "child", parent_thread_id=PARENT)
    await create(store, GRANDCHILD, "grandchild", parent_thread_id=CHILD)
    await create(store, OTHER, "other")
    for thread_id in (PARENT, CHILD, GRANDCHILD, OTHER):
        waits = QueuedTurn(f"row of {thread_id}", {}, 2)
        ran = QueuedTurn(f"row that ran in {thread_id}", {}, 1, turn_id=turn_of(thread_id, 0))
        operations = [insert(thread_id, waits), *started(thread_id, ran), pause(thread_id, True)]
        await store.commit(Batch(thread_id, queue=operations))


QUEUE_TABLES = ("thread_queued_turns", "queued_turns_started", "queue_pauses")


async def listed(store: Store, *, archived: bool = False) -> set[str]:
    query = ThreadQuery(archived=archived, source_kinds=["vscode"])
    return {record.id for record in (await store.threads_page(query)).records}


def files(root: Path) -> set[str]:
    return {
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and "sqlite" not in path.name
    }


def rows(root: Path, table: str) -> list[Any]:
    with sqlite3.connect(f"file:{root}/spoold.sqlite?mode=ro", uri=True) as connection:
        found = connection.execute(f"SELECT * FROM {table}").fetchall()
    connection.close()
    return found


def name_of(thread_id: str) -> str:
    return f"rollout-{LOCAL_TIME}-{thread_id}.jsonl"


async def test_an_archived_thread_moves_with_its_descendants_and_comes_back(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await family(store)
        below = await store.descendants(PARENT)
        assert below == [CHILD, GRANDCHILD]
        before = await store.thread(PARENT)
        await store.commit(Batch(PARENT, relocate="archive", also=below, now_ms=LATER))
        assert await listed(store) == {OTHER}
        assert await listed(store, archived=True) == {PARENT, CHILD, GRANDCHILD}
        assert f"archived_sessions/{name_of(CHILD)}" in files(tmp_path)
        archived = await store.thread(PARENT)
        assert archived is not None
        assert before is not None
        assert archived.updated_at_ms == before.updated_at_ms
        assert store.active_path(archived.path) == before.path
        assert len(await store.all_turns(PARENT)) == 1
        await store.commit(Batch(PARENT, relocate="unarchive", now_ms=LATER))
        back = await store.thread(PARENT)
        assert back is not None
        assert (back.path, back.archived) == (before.path, False)
        assert (back.updated_at_ms, back.recency_at_ms) == (LATER, before.recency_at_ms)
        assert await listed(store, archived=True) == {CHILD, GRANDCHILD}
        await add_turn(store, PARENT, 1, START_MS + 5000)
        assert len(await store.all_turns(PARENT)) == 2
        again = await store.thread(PARENT)
        assert again is not None
        assert again.updated_at_ms == LATER


async def test_what_an_unarchive_says_of_the_time_outlives_a_rebuild_of_the_index(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        path = await create(store, PARENT)
        await store.commit(Batch(PARENT, relocate="archive"))
        await store.commit(Batch(PARENT, relocate="unarchive", now_ms=LATER))
        os.utime(path, (1, 1))
        record = await store.thread(PARENT)
        assert record is not None
        assert record.updated_at_ms == LATER


async def test_a_deleted_thread_leaves_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await family(store)
        everything = Batch(CHILD, facts={"name": "n"}, read_state=ReadState(None, "1"), goal=GOAL)
        await store.commit(everything)
        await store.commit(Batch(PARENT, relocate="delete", also=await store.descendants(PARENT)))
        assert await store.thread(CHILD) is None
        assert await listed(store) == {OTHER}
    assert {name for name in files(tmp_path) if name.startswith("sessions")} == {
        f"sessions/2026/11/18/{name_of(OTHER)}"
    }
    for table in ("rollouts", "threads", "turns", "items", "search_threads", *QUEUE_TABLES):
        assert {OTHER in row for row in rows(tmp_path, table)} == {True}
    for table in ("thread_facts", "read_states", "goals", "relocations"):
        assert rows(tmp_path, table) == []
    assert len(rows(tmp_path, "search")) == 2


async def test_a_delete_whose_rows_could_not_be_removed_is_finished_when_it_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transact = persistence.relocation.transact
    async with opened(tmp_path) as store:
        await family(store)

        def fails_at_the_rows(connection: sqlite3.Connection, operations: list[Any]) -> None:
            if any("DELETE FROM threads" in statement for statement, _ in operations):
                raise sqlite3.OperationalError("disk I/O error")
            transact(connection, operations)

        with monkeypatch.context() as patch:
            patch.setattr(persistence.relocation, "transact", fails_at_the_rows)
            with pytest.raises(StoreError, match="disk I/O error"):
                await store.commit(Batch(OTHER, relocate="delete"))
        assert not any(name_of(OTHER) in name for name in files(tmp_path))
        await store.commit(Batch(OTHER, relocate="delete"))
        assert await store.thread(OTHER) is None
        with pytest.raises(StoreError, match="no rollout found"):
            await store.commit(Batch(OTHER, relocate="delete"))
    assert not any(OTHER in row for row in rows(tmp_path, "threads"))
    assert rows(tmp_path, "relocations") == []


async def test_the_lines_of_a_batch_are_in_the_file_that_moves(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await create(store, PARENT)
        turn_id = turn_of(PARENT, 1)
        await store.commit(Batch(PARENT, turn_begin(PARENT, turn_id, "x", START_MS)))
        ending = turn_end(PARENT, turn_id, None, START_MS, aborted=True)
        await store.commit(Batch(PARENT, ending, fsync=True, relocate="archive"))
        assert (await store.all_turns(PARENT))[-1].status == "interrupted"
        assert await listed(store, archived=True) == {PARENT}


@pytest.mark.parametrize("action", ["archive", "unarchive", "delete"])
async def test_a_thread_without_file_is_neither_moved_nor_deleted(tmp_path: Path, action: Action) -> None:
    async with opened(tmp_path) as store:
        with pytest.raises(StoreError, match=f"^no rollout found for thread id {PARENT}$"):
            await store.commit(Batch(PARENT, relocate=action))
        await create(store, PARENT)
    assert rows(tmp_path, "relocations") == []


async def test_a_descendant_whose_file_is_gone_holds_nothing_up(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await family(store)
        (tmp_path / "sessions/2026/11/18" / name_of(CHILD)).unlink()
        await store.commit(Batch(PARENT, relocate="archive", also=[CHILD, GRANDCHILD]))
        assert await listed(store, archived=True) == {PARENT, GRANDCHILD}
    assert rows(tmp_path, "relocations") == []


@pytest.mark.parametrize("action", ["archive", "delete"])
async def test_a_file_that_cannot_be_moved_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: Action
) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    async with opened(tmp_path) as store:
        await family(store)
        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", refuse)
            patch.setattr(os, "unlink", refuse)
            with pytest.raises(StoreError, match=rf"^could not {action} .*Permission denied"):
                await store.commit(Batch(PARENT, relocate=action, also=[CHILD]))
        assert await listed(store) == {PARENT, CHILD, GRANDCHILD, OTHER}
        await store.commit(Batch(PARENT, relocate=action, also=[CHILD]))
        assert await listed(store) == {GRANDCHILD, OTHER}
    assert rows(tmp_path, "relocations") == []


async def test_an_archived_file_of_the_same_name_is_not_overwritten(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        path = await create(store, PARENT)
        copy = tmp_path / "archived_sessions" / path.name
        copy.parent.mkdir()
        copy.write_bytes(b"kept")
        with pytest.raises(StoreError, match=r"^could not archive .*File exists"):
            await store.commit(Batch(PARENT, relocate="archive"))
        assert copy.read_bytes() == b"kept"
        assert await listed(store) == {PARENT}


async def test_a_reverted_thread_that_cannot_be_deleted_does_not_fall_back_to_its_old_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = os.unlink
    async with opened(tmp_path) as store:
        old = await create(store, PARENT)
        turn_id = await add_turn(store, PARENT, 1, START_MS + 1000)
        await store.revert(PARENT, turn_id, LATER)

        def refuse(path: Any, *args: Any, **options: Any) -> None:
            if Path(path) == old:
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
            unlink(path, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", refuse)
            with pytest.raises(StoreError, match=r"^could not delete"):
                await store.commit(Batch(PARENT, relocate="delete"))
        assert len(await store.all_turns(PARENT)) == 1
        await store.commit(Batch(PARENT, relocate="delete"))
        assert await store.thread(PARENT) is None


@pytest.mark.parametrize("what", ["archive", "revert"])
async def test_a_scan_of_a_file_that_is_no_longer_the_rollout_is_thrown_away(
    tmp_path: Path, what: str
) -> None:
    home = Home(tmp_path)
    async with opened(tmp_path) as store:
        await create(store, PARENT)
        turn_id = await add_turn(store, PARENT, 1, START_MS + 1000)
        found = find_one(home, PARENT)
        assert found is not None
        scanned: list[Apply] = []

        def scan() -> None:
            with store._engine.readers.connection() as connection:
                base = load_state(connection, PARENT)
            index_file(store._engine.writer, home, found, base, hand_over=scanned.append)

        await trio.to_thread.run_sync(scan)
        if what == "archive":
            await store.commit(Batch(PARENT, relocate="archive"))
        else:
            await store.revert(PARENT, turn_id, LATER)
        moved = await store.thread(PARENT)
        with store._engine.readers.connection() as connection:
            state = load_state(connection, PARENT)
            assert state is not None
            scanned[0].expected = state.indexed_bytes
        await trio.to_thread.run_sync(store._engine.writer.call, scanned[0])
        assert not scanned[0].applied
        assert await store.thread(PARENT) == moved


class Killed(BaseException):
    """The process ends here."""


@contextmanager
def killed_at(step: int, patch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Ends the program before (even steps) or after (odd ones) the step of that number. Yields the steps."""
    steps: list[str] = []

    def watch(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def watched(*args: Any, **options: Any) -> Any:
            steps.append(f"before {name}")
            if len(steps) - 1 == step:
                raise Killed
            result = original(*args, **options)
            steps.append(f"after {name}")
            if len(steps) - 1 == step:
                raise Killed
            return result

        patch.setattr(owner, name, watched)

    watch(os, "rename")
    watch(os, "unlink")
    watch(persistence.relocation, "transact")
    watch(persistence.relocation, "sync_path")
    watch(persistence.relocation, "make_folders")
    yield steps


def kill(root: Path, action: Action, step: int, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Run the relocation until that step; what it was, or None where it came to its end before."""
    connection = open_for_writing(root / "spoold.sqlite", START_MS, [])
    try:
        with monkeypatch.context() as patch, killed_at(step, patch) as steps:
            try:
                relocate(connection, Home(root), action, [PARENT, CHILD, GRANDCHILD], LATER)
            except Killed:
                return steps[-1]
        return None
    finally:
        connection.close()


@pytest.mark.parametrize("reverted", [False, True], ids=["", "reverted"])
@pytest.mark.parametrize("action", ["archive", "unarchive", "delete"])
async def test_killed_at_any_step_the_next_start_shows_all_of_it_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: Action, reverted: bool
) -> None:
    step, point, seen = 0, "", set()
    while True:
        root = tmp_path / str(step)
        root.mkdir()
        async with opened(root) as store:
            await family(store)
            if reverted:
                path = root / "sessions/2026/11/18" / name_of(PARENT)
                newer = reverted_path(path, uuid_of(99))
                newer.write_bytes(path.read_bytes().replace(b"parent", b"PARENT"))
        async with opened(root) as store:
            if action == "unarchive":
                await store.commit(Batch(PARENT, relocate="archive", also=[CHILD, GRANDCHILD], now_ms=1))
        before = files(root)
        killed = kill(root, action, step, monkeypatch)
        point = f"{action} step {step}: {killed}"
        async with opened(root) as store:
            active, archived = await listed(store), await listed(store, archived=True)
            record = await store.thread(PARENT)
        # Only what happened before the first commit is undone by a kill.
        done = killed is None or step > 0
        if killed == "before transact" and step == 0:
            done = False
        assert rows(root, "relocations") == [], point
        ours = {PARENT, CHILD, GRANDCHILD}
        now_active = (action == "unarchive") == done if action != "delete" else not done
        assert active == {OTHER} | (ours if now_active else set()), point
        assert archived == (ours if not now_active and not (action == "delete" and done) else set()), point
        if record is not None:
            assert record.preview == ("PARENT" if reverted else "parent"), point
            assert record.path.exists()
            if action == "unarchive" and done:
                assert record.updated_at_ms == LATER
        if not done:
            assert files(root) == before, point
        expected = 1 if action == "delete" and done else 4 + reverted
        assert len(files(root)) == expected, point
        for table in QUEUE_TABLES:
            assert len(rows(root, table)) == (1 if action == "delete" and done else 4), f"{table} {point}"
        if killed is None:
            break
        seen.add(killed)
        step += 1
    assert {"before transact", "after transact", "before sync_path"} <= seen
    assert {"after unlink"} <= seen if action == "delete" else {"before rename", "after rename"} <= seen
