"""What was answered with an error does not come back with the power: where it was flushed, so is its end."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from persistence.queue import QueuedTurn, insert
from persistence.store import Batch, StoreError
from tests.persistence.sessions import START_MS, create, opened, turn_begin, turn_of, uuid_of
from tests.support.faulty_disk import FaultyDisk
from tests.support.power_cut import cut_power

ROOT = Path(__file__).parents[2]
ONE, TWO = uuid_of(1), uuid_of(2)

# What is submitted before the writer runs is one group. There is a row 1 already: one more cannot be stored.
PROGRAM = """
import sys
from functools import partial
from pathlib import Path
import trio
from persistence.home import Home
from persistence.jobs import Append
from persistence.queue import QueuedTurn, insert
from persistence.writer import Writer
from tests.persistence.sessions import *

ONE, TWO = uuid_of(1), uuid_of(2)

def row(number, thread_id=ONE):
    return insert(thread_id, QueuedTurn(f"row-{number}", {"input": []}, number))

def begin(number, thread_id=ONE, lines=(), **more):
    begun = turn_begin(thread_id, turn_of(thread_id, number), "x", START_MS)
    return Batch(thread_id, [*lines, *begun], **more)

async def main():
    async with opened(Path(sys.argv[1])) as store:
        await create(store, ONE)
        await store.commit(Batch(ONE, queue=[row(1)]))
        new = store.rollout_path(TWO, START_MS)
        outcomes = []
        batches = eval(sys.argv[2])
    writer = Writer(Home(Path(sys.argv[1])))
    for batch in batches:
        writer.submit(Append(done=outcomes.append, batch=batch))
    writer.start(START_MS, lambda failure: None)
    writer.stop()
    assert writer.join(30)
    assert "UNIQUE constraint failed" in str(outcomes[int(sys.argv[3])]), outcomes
    assert sum(error is None for error in outcomes) == len(outcomes) - 1, outcomes

trio.run(main)
"""


def run(disk: FaultyDisk, batches: str, impossible: int) -> None:
    """A process that has these batches written as one group, of which that one cannot be stored."""
    command = [sys.executable, "-c", PROGRAM, str(disk.folder), batches, str(impossible)]
    subprocess.run(command, cwd=ROOT, env=os.environ | disk.variables, check=True)


@pytest.mark.parametrize(
    ("batches", "impossible", "left"),
    [
        ("[begin(1, fsync=True, queue=[row(1)])]", 0, [0]),
        ("[begin(1, fsync=True), begin(2, queue=[row(1)])]", 1, [0, 1]),
        ("[begin(1, queue=[row(1)]), Batch(ONE, fsync=True, queue=[row(2)])]", 0, [0]),
    ],
    ids=["its own flush", "the flush of a commit before it", "the flush that a queued turn asks for"],
)
async def test_flushed_lines_that_were_taken_back_are_not_there_after_a_power_cut(
    faulty_disk: FaultyDisk, batches: str, impossible: int, left: list[int]
) -> None:
    run(faulty_disk, batches, impossible)
    cut_power(faulty_disk, random.Random(0), lose_all=True)
    async with opened(faulty_disk.folder) as store:
        found = [turn.id for turn in await store.all_turns(ONE)]
    assert found == [turn_of(ONE, number) for number in left]


async def test_a_flushed_thread_that_was_taken_back_is_not_there_after_a_power_cut(
    faulty_disk: FaultyDisk,
) -> None:
    run(faulty_disk, "[begin(0, TWO, [meta(TWO)], create=new, fsync=True, queue=[row(1, TWO)])]", 0)
    cut_power(faulty_disk, random.Random(0), lose_all=True)
    async with opened(faulty_disk.folder) as store:
        assert await store.thread(TWO) is None
        assert not store.rollout_path(TWO, START_MS).exists()
        assert await store.thread(ONE) is not None


async def test_taking_back_what_was_not_flushed_asks_for_no_flush(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    sync = os.fsync

    def watched(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    row = insert(ONE, QueuedTurn("row-1", {"input": []}, 1))
    begun = turn_begin(ONE, turn_of(ONE, 1), "x", START_MS)
    async with opened(tmp_path) as store:
        path = await create(store, ONE)
        await store.commit(Batch(ONE, queue=[row]))
        monkeypatch.setattr(os, "fsync", watched)
        with pytest.raises(StoreError, match="UNIQUE"):
            await store.commit(Batch(ONE, begun, queue=[row]))
        assert flushed == []
        with pytest.raises(StoreError, match="UNIQUE"):
            await store.commit(Batch(ONE, begun, queue=[row], fsync=True))
        assert flushed.count(path.name) == 2
