"""What was appended and not flushed may be gone after a power cut, under the file's old size and time."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from persistence.queue import QueuedTurn, insert
from persistence.store import Batch, StoreError
from tests.persistence.sessions import (
    START_MS,
    add_turn,
    create,
    meta,
    opened,
    turn_begin,
    turn_of,
    uuid_of,
)
from tests.persistence.test_index_is_derived import delete_database
from tests.support.faulty_disk import FaultyDisk

THREAD = uuid_of(1)
ROOT = Path(__file__).parents[2]
READ_ALL = """
import sys
from pathlib import Path
import trio
from tests.persistence.sessions import *

async def main():
    async with opened(Path(sys.argv[1])) as store:
        await store.all_turns(uuid_of(1))

trio.run(main)
"""


def spoil_end(path: Path, size: int, filling: bytes) -> None:
    """Replace what is behind the first ``size`` bytes; the file looks the same from outside."""
    status = path.stat()
    data = path.read_bytes()
    path.write_bytes(data[:size] + (filling * len(data))[: len(data) - size])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    "filling", [b"\0", b"noise \xff", b"noise\n"], ids=["zeros", "noise", "lines of noise"]
)
async def test_what_a_power_cut_spoiled_is_not_believed_and_spoils_nothing_that_comes_after(
    tmp_path: Path, filling: bytes
) -> None:
    async with opened(tmp_path) as store:
        path = await create(store, THREAD)
        flushed = path.stat().st_size
        begun = turn_begin(THREAD, turn_of(THREAD, 1), "lost", START_MS + 1000)
        await store.commit(Batch(THREAD, begun))
    spoil_end(path, flushed, filling)
    kept = [turn_of(THREAD, 0), turn_of(THREAD, 2)]
    async with opened(tmp_path) as store:
        assert [turn.id for turn in await store.all_turns(THREAD)] == kept[:1]
        await add_turn(store, THREAD, 2, START_MS + 2000)
        turns = await store.all_turns(THREAD)
        assert [turn.id for turn in turns] == kept
    delete_database(tmp_path)
    async with opened(tmp_path) as store:
        assert await store.all_turns(THREAD) == turns


async def test_a_spoiled_end_is_not_believed_by_who_appends_without_reading_first(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        path = await create(store, THREAD)
        flushed = path.stat().st_size
        await store.commit(Batch(THREAD, turn_begin(THREAD, turn_of(THREAD, 1), "lost", START_MS + 1000)))
    spoil_end(path, flushed, b"\0")
    async with opened(tmp_path) as store:
        await add_turn(store, THREAD, 2, START_MS + 2000)
    delete_database(tmp_path)
    async with opened(tmp_path) as store:
        turns = await store.all_turns(THREAD)
        assert [turn.id for turn in turns] == [turn_of(THREAD, 0), turn_of(THREAD, 2)]
        assert [len(turn.items) for turn in turns] == [2, 2]


async def test_an_unflushed_end_is_flushed_before_it_is_believed_again(faulty_disk: FaultyDisk) -> None:
    home = faulty_disk.folder
    async with opened(home) as store:
        path = await create(store, THREAD)
        await store.commit(Batch(THREAD, turn_begin(THREAD, turn_of(THREAD, 1), "more", START_MS + 1000)))
    for flushes in (True, False):
        faulty_disk.forget()
        subprocess.run(  # noqa: ASYNC221
            [sys.executable, "-c", READ_ALL, home],
            cwd=ROOT,
            env=os.environ | faulty_disk.variables,
            check=True,
        )
        name = str(path.relative_to(home))
        flushed = {each.path for each in faulty_disk.journal() if each.kind == "flushed"}
        assert (name in flushed) == flushes


async def test_what_is_stored_beside_a_rollout_asks_for_its_flush_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    sync = os.fsync

    def watched(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    async with opened(tmp_path) as store:
        path = store.rollout_path(THREAD, START_MS)
        await store.commit(Batch(THREAD, [meta(THREAD)], create=path))
        monkeypatch.setattr(os, "fsync", watched)
        for number in (1, 2):
            row = insert(THREAD, QueuedTurn(f"row-{number}", {"input": []}, number))
            await store.commit(Batch(THREAD, fsync=True, queue=[row]))
        assert flushed.count(path.name) == 1
        assert "sessions" in flushed
        await store.commit(Batch(THREAD, turn_begin(THREAD, uuid_of(7), "x", START_MS)))
        await store.commit(Batch(THREAD, fsync=True))
        assert flushed.count(path.name) == 2


async def test_a_row_whose_rollout_cannot_be_flushed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    row = insert(THREAD, QueuedTurn("row", {"input": []}, 1))
    async with opened(tmp_path) as store:
        path = store.rollout_path(THREAD, START_MS)
        await store.commit(Batch(THREAD, [meta(THREAD)], create=path))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", broken)
            with pytest.raises(StoreError, match="could not flush"):
                await store.commit(Batch(THREAD, fsync=True, queue=[row]))
        assert (await store.queue(THREAD)).rows == ()
        await store.commit(Batch(THREAD, fsync=True, queue=[row]))
        assert len((await store.queue(THREAD)).rows) == 1
