"""New rollouts from the beginning of others: what is in them, and what is left when it goes wrong."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

import persistence.rollout_copy
import persistence.scan
from persistence.database import open_for_writing, transact
from persistence.home import Home
from persistence.relocation import intend_copy, part_of
from persistence.rollout_files import reverted_path
from persistence.rollout_lines import RolloutLine
from persistence.store import Batch, Store, StoreError, ThreadQuery, ThreadRecord
from protocol.errors import InvalidRequest
from tests.persistence.sessions import (
    START_MS,
    add_turn,
    create,
    event,
    foreign_meta,
    numbered,
    opened,
    turn_begin,
    turn_of,
    unnumbered,
    uuid_of,
    write_rollout,
)
from tests.persistence.test_index_is_derived import delete_database, dump
from tests.persistence.test_relocation import files, rows
from tests.support.faulty_disk import FaultyDisk

SOURCE, FORK = uuid_of(1), uuid_of(2)
NOW = START_MS + 3_600_000


async def record_of(store: Store, thread_id: str) -> ThreadRecord:
    found = await store.thread(thread_id)
    assert found is not None
    return found


async def new_record(store: Store) -> ThreadRecord:
    path = store.rollout_path(FORK, NOW)
    return replace(await record_of(store, SOURCE), id=FORK, path=path, created_at_ms=NOW, name=None)


async def three_turns(store: Store) -> list[str]:
    await create(store, SOURCE, "first", base_instructions="Be brief.")
    ids = [turn_of(SOURCE, 0)]
    for number in (1, 2):
        ids.append(await add_turn(store, SOURCE, number, START_MS + number * 1000, f"more {number}"))
    return ids


async def turn_ids(store: Store, thread_id: str) -> list[str]:
    return [turn.id for turn in await store.all_turns(thread_id)]


@pytest.mark.parametrize(
    ("cut", "kept"),
    [
        ({}, 3),
        ({"last_turn_id": 0}, 1),
        ({"last_turn_id": 2}, 3),
        ({"before_turn_id": 0}, 0),
        ({"before_turn_id": 2}, 2),
    ],
)
async def test_a_fork_holds_the_turns_up_to_the_cut(tmp_path: Path, cut: dict[str, int], kept: int) -> None:
    async with opened(tmp_path) as store:
        ids = await three_turns(store)
        await store.commit(Batch(SOURCE, facts={"name": "source"}))
        named = {name: ids[number] for name, number in cut.items()}
        await store.fork(SOURCE, await new_record(store), at_ms=NOW, **named)
        turns = await store.all_turns(FORK)
        assert turns == (await store.all_turns(SOURCE))[:kept]
        record = await record_of(store, FORK)
        assert (record.forked_from_id, record.name, record.created_at_ms) == (SOURCE, None, NOW)
        assert record.preview == ("first" if kept else "")
        assert (record.updated_at_ms, record.recency_at_ms) == (NOW, NOW)
        state, source = await store.resume_state(FORK), await store.resume_state(SOURCE)
        assert state.session_meta["base_instructions"] == {"text": "Be brief."}
        assert len(state.context) == 2 * kept
        assert state.context == source.context[: 2 * kept]
        await add_turn(store, FORK, 7, NOW + 1000)
        assert len(await store.all_turns(FORK)) == kept + 1
        assert await turn_ids(store, SOURCE) == ids
    lines = [json.loads(line) for line in record.path.read_bytes().splitlines()]
    assert [line["ordinal"] for line in lines] == list(range(len(lines)))
    assert [line["payload"]["id"] for line in lines if line["type"] == "session_meta"] == [FORK]
    assert record.path.stat().st_mode & 0o777 == 0o600
    assert rows(tmp_path, "relocations") == []
    written = dump(tmp_path)
    delete_database(tmp_path)
    async with opened(tmp_path) as store:
        await store.threads_page(ThreadQuery())
    rebuilt = dump(tmp_path)
    for table in ("rollouts", "turns", "items"):
        assert written[table] == rebuilt[table]


async def test_the_running_turn_of_the_source_is_interrupted_in_the_fork_or_left_out(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await three_turns(store)
        running = turn_of(SOURCE, 3)
        await store.commit(Batch(SOURCE, turn_begin(SOURCE, running, "running", START_MS + 9000)))
        await store.fork(SOURCE, await new_record(store), at_ms=NOW)
        last = (await store.all_turns(FORK))[-1]
        assert (last.id, last.status, last.completed_at) == (running, "interrupted", NOW // 1000)
        assert [item.type for item in last.items] == ["userMessage"]
        await store.commit(Batch(FORK, relocate="delete"))
        await store.fork(SOURCE, await new_record(store), exclude_open_turn=True, at_ms=NOW)
        assert len(await store.all_turns(FORK)) == 3
        # The source itself goes on.
        assert (await store.all_turns(SOURCE, live_turn_id=running))[-1].status == "inProgress"


async def test_a_legacy_thread_is_forked_in_its_own_form(tmp_path: Path) -> None:
    turns = [
        entry
        for number in range(2)
        for entry in (
            event("task_started", turn_id=turn_of(SOURCE, number)),
            event("user_message", message=f"q{number}"),
            event("agent_message", message=f"a{number}"),
            event("task_complete", turn_id=turn_of(SOURCE, number)),
        )
    ]
    write_rollout(tmp_path, SOURCE, unnumbered(foreign_meta(SOURCE, "legacy"), *turns))
    async with opened(tmp_path) as store:
        await store.fork(SOURCE, await new_record(store), last_turn_id=turn_of(SOURCE, 0), at_ms=NOW)
        assert await store.all_turns(FORK) == (await store.all_turns(SOURCE))[:1]
        assert (await record_of(store, FORK)).history_mode == "legacy"
        unknown = f"^lastTurnId '{uuid_of(9)}' was not found in the source thread$"
        with pytest.raises(InvalidRequest, match=unknown):
            await store.fork(SOURCE, await new_record(store), last_turn_id=uuid_of(9), at_ms=NOW)


async def test_odd_lines_of_the_source_do_not_spoil_the_fork(tmp_path: Path) -> None:
    good = numbered(
        SOURCE,
        foreign_meta(SOURCE, "paginated"),
        event("task_started", turn_id=turn_of(SOURCE, 0)),
        event("task_complete", turn_id=turn_of(SOURCE, 0)),
    )
    inner = numbered(SOURCE, foreign_meta(uuid_of(8), "paginated"))
    unordered = {"type": "event_msg", "payload": {"type": "odd"}, "ordinal": 77}
    lines: list[Any] = [good[0], b"garbage\n", *inner, good[1], unordered, b"\xff\x00\n", good[2]]
    write_rollout(tmp_path, SOURCE, lines)
    async with opened(tmp_path) as store:
        await store.fork(SOURCE, await new_record(store), at_ms=NOW)
        assert await turn_ids(store, FORK) == [turn_of(SOURCE, 0)]
        path = (await record_of(store, FORK)).path
    kinds = [json.loads(line)["payload"].get("type") for line in path.read_bytes().splitlines()]
    assert kinds == [None, "task_started", "odd", "task_complete"]


async def test_what_cannot_be_forked_or_reverted_is_refused_by_name(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await three_turns(store)
        record = await new_record(store)
        before = files(tmp_path)
        nobody = uuid_of(9)
        for cut in ("last_turn_id", "before_turn_id"):
            with pytest.raises(InvalidRequest, match=f"^turn not found: {nobody}$"):
                await store.fork(SOURCE, record, at_ms=NOW, **{cut: nobody})
        with pytest.raises(InvalidRequest, match=f"^no rollout found for thread id {nobody}$"):
            await store.fork(nobody, record, at_ms=NOW)
        with pytest.raises(InvalidRequest, match=r"^turn not found: bad$"):
            await store.revert(SOURCE, "bad", NOW)
        with pytest.raises(InvalidRequest, match=f"^no rollout found for thread id {nobody}$"):
            await store.revert(nobody, "bad", NOW)
        with pytest.raises(StoreError, match=r"exists already$"):
            await store.fork(SOURCE, replace(record, path=(await record_of(store, SOURCE)).path), at_ms=NOW)
        assert files(tmp_path) == before


async def test_a_reverted_thread_goes_on_from_before_the_turn(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        ids = await three_turns(store)
        old = await record_of(store, SOURCE)
        await store.revert(SOURCE, ids[2], NOW)
        new = await record_of(store, SOURCE)
        assert new.path.name.startswith(f"{old.path.stem}_")
        assert old.path.exists()
        assert (new.preview, new.updated_at_ms, new.created_at_ms) == ("first", NOW, old.created_at_ms)
        assert await turn_ids(store, SOURCE) == ids[:2]
        assert len((await store.resume_state(SOURCE)).context) == 4
        added = await add_turn(store, SOURCE, 5, NOW + 1000, "after")
        assert await turn_ids(store, SOURCE) == [*ids[:2], added]
        await store.revert(SOURCE, ids[0], NOW + 2000)
        assert await turn_ids(store, SOURCE) == []
        assert len((await store.threads_page(ThreadQuery(archived=True))).records) == 0
        added = await add_turn(store, SOURCE, 6, NOW + 3000, "anew")
        newest = await record_of(store, SOURCE)
    assert len(files(tmp_path)) == 3
    ordinals = [json.loads(line)["ordinal"] for line in newest.path.read_bytes().splitlines()]
    assert ordinals == list(range(len(ordinals)))
    # A lost database comes to the same thread.
    written = dump(tmp_path)
    delete_database(tmp_path)
    async with opened(tmp_path) as store:
        assert [record.path for record in (await store.threads_page(ThreadQuery())).records] == [newest.path]
        assert await turn_ids(store, SOURCE) == [added]
        assert len((await store.threads_page(ThreadQuery())).records) == 1
    for table in ("turns", "items"):
        assert dump(tmp_path)[table] == written[table]


async def test_all_files_of_a_reverted_thread_are_archived_and_deleted_together(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        ids = await three_turns(store)
        await store.revert(SOURCE, ids[1], NOW)
        await store.commit(Batch(SOURCE, relocate="archive"))
        assert {name.split("/")[0] for name in files(tmp_path)} == {"archived_sessions"}
        assert (await record_of(store, SOURCE)).archived
        await store.commit(Batch(SOURCE, relocate="unarchive"))
        assert await turn_ids(store, SOURCE) == ids[:1]
        await store.commit(Batch(SOURCE, relocate="delete"))
        assert await store.thread(SOURCE) is None
    assert files(tmp_path) == set()


@pytest.mark.parametrize("what", ["fork", "revert"])
@pytest.mark.parametrize("broken", ["fsync", "rename", "index"])
async def test_a_copy_that_fails_leaves_nothing_and_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, broken: str
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with opened(tmp_path) as store:
        ids = await three_turns(store)
        record = await new_record(store)
        before = files(tmp_path)

        async def run() -> None:
            if what == "fork":
                await store.fork(SOURCE, record, at_ms=NOW)
            else:
                await store.revert(SOURCE, ids[1], NOW)

        with monkeypatch.context() as patch:
            if broken == "index":
                patch.setattr(persistence.rollout_copy, "index_file", fail)
            else:
                patch.setattr(os, broken, fail)
            with pytest.raises(StoreError, match="No space left"):
                await run()
        assert files(tmp_path) == before
        assert [each.id for each in (await store.threads_page(ThreadQuery())).records] == [SOURCE]
        assert await turn_ids(store, SOURCE) == ids
        assert await store.thread(FORK) is None
        await run()
        assert await turn_ids(store, FORK if what == "fork" else SOURCE) == (
            ids if what == "fork" else ids[:1]
        )
    assert rows(tmp_path, "relocations") == []


@pytest.mark.parametrize("what", ["fork", "revert"])
async def test_a_copy_that_is_cancelled_while_it_is_indexed_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    begun, hold = threading.Event(), threading.Event()
    store_piece = persistence.scan._store

    def stop_there(*args: Any) -> bool:
        stored = store_piece(*args)
        begun.set()
        hold.wait()
        return stored

    async with opened(tmp_path) as store:
        ids = await three_turns(store)
        record = await new_record(store)
        await store.threads_page(ThreadQuery())
        before, indexed = files(tmp_path), dump(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(persistence.scan, "_PIECE", 2)
            patch.setattr(persistence.scan, "_store", stop_there)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: _copy(store, what, record, ids))
                await trio.to_thread.run_sync(begun.wait)
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    await trio.testing.wait_all_tasks_blocked()
                hold.set()
        assert files(tmp_path) == before
        # At once, not only when somebody reads it.
        assert dump(tmp_path) == indexed
        assert await turn_ids(store, SOURCE) == ids


@pytest.mark.parametrize("what", ["fork", "revert"])
async def test_a_cancelled_copy_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    begun, hold = threading.Event(), threading.Event()
    original = persistence.rollout_copy.part_of

    async with opened(tmp_path) as store:
        ids = await three_turns(store)
        record = await new_record(store)
        before = files(tmp_path)

        def stop_there(path: Path) -> Path:
            begun.set()
            hold.wait(10)
            return original(path)

        monkeypatch.setattr(persistence.rollout_copy, "part_of", stop_there)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: _copy(store, what, record, ids))
            await trio.to_thread.run_sync(begun.wait)
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
            hold.set()
        assert files(tmp_path) == before
        assert await turn_ids(store, SOURCE) == ids


async def _copy(store: Store, what: str, record: ThreadRecord, ids: list[str]) -> None:
    if what == "fork":
        await store.fork(SOURCE, record, at_ms=NOW)
    else:
        await store.revert(SOURCE, ids[1], NOW)


@pytest.mark.parametrize("named", [False, True], ids=["half written", "written"])
async def test_a_revert_that_was_killed_is_done_or_not(tmp_path: Path, named: bool) -> None:
    async with opened(tmp_path) as store:
        ids = await three_turns(store)
        path = (await record_of(store, SOURCE)).path
        prefix = path.read_bytes().splitlines(keepends=True)
    target = reverted_path(path, uuid_of(77))
    connection = open_for_writing(tmp_path / "spoold.sqlite", START_MS, [])
    transact(connection, [intend_copy(Home(tmp_path), SOURCE, target, NOW)])
    connection.close()
    first = next(n for n, line in enumerate(prefix) if n > 1 and b"task_started" in line)
    (target if named else part_of(target)).write_bytes(b"".join(prefix[:first]))
    async with opened(tmp_path) as store:
        # At once, not only when the rebuild has come round.
        assert await turn_ids(store, SOURCE) == (ids[:1] if named else ids)
        await add_turn(store, SOURCE, 9, NOW)
        await store.threads_page(ThreadQuery())
        assert len(await turn_ids(store, SOURCE)) == (2 if named else 4)
    assert len(files(tmp_path)) == (2 if named else 1)
    assert rows(tmp_path, "relocations") == []


async def test_a_long_source_is_not_held_in_memory(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await create(store, SOURCE)
        big = RolloutLine(START_MS, "response_item", {"type": "message", "text": "x" * (1 << 20)})
        for _ in range(40):
            await store.commit(Batch(SOURCE, [big]))
        await store.thread(SOURCE)
        record = await new_record(store)
        import tracemalloc

        tracemalloc.start()
        try:
            await store.fork(SOURCE, record, at_ms=NOW)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert record.path.stat().st_size > 40 << 20
        assert peak < 16 << 20


FORKS = """
import sys
from pathlib import Path
import trio
from tests.persistence.test_fork_and_revert import NOW, SOURCE, new_record, opened, three_turns

async def main():
    async with opened(Path(sys.argv[1])) as store:
        await three_turns(store)
        await store.fork(SOURCE, await new_record(store), at_ms=NOW)

trio.run(main)
"""


def test_a_copy_is_on_the_disk_before_it_gets_its_name(faulty_disk: FaultyDisk) -> None:
    subprocess.run(
        [sys.executable, "-c", FORKS, faulty_disk.folder],
        cwd=Path(__file__).parents[2],
        env=os.environ | faulty_disk.variables,
        check=True,
    )
    journal = faulty_disk.journal()
    part = next(record.path for record in journal if record.kind == "rename" and ".part" in record.path)
    done = [record.kind for record in journal if record.path == part]
    assert done[-3:] == ["flush", "flushed", "rename"], done
