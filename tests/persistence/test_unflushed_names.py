"""A file is on the disk when its name is, and the names of the folders above it, whoever has made them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.persistence.sessions import opened, uuid_of
from tests.support.faulty_disk import FaultyDisk
from tests.support.power_cut import cut_power

ROOT = Path(__file__).parents[2]
ONE, TWO = uuid_of(1), uuid_of(2)

PROGRAM = """
import os, sys
from dataclasses import replace
from pathlib import Path
import trio
from persistence.store import StoreError
from tests.persistence.sessions import *

ONE, TWO = uuid_of(1), uuid_of(2)

async def begin(store, thread_id):
    lines = [meta(thread_id), *turn_begin(thread_id, turn_of(thread_id, 0), "hello", START_MS)]
    await store.commit(Batch(thread_id, lines, create=store.rollout_path(thread_id, START_MS)))

async def expect_failure(work):
    try:
        await work
    except StoreError:
        return
    raise AssertionError("it has not failed")

async def fork(store, source, target):
    record = await store.thread(source)
    path = store.rollout_path(target, START_MS)
    await store.fork(source, replace(record, id=target, path=path), at_ms=START_MS)

async def main():
    async with opened(Path(sys.argv[1])) as store:
        for act in sys.argv[2:]:
            await eval(act)
        os.kill(os.getpid(), 9)

trio.run(main)
"""


def run(disk: FaultyDisk, *acts: str) -> None:
    """A process that does this with the store, and is killed."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, disk.folder, *acts],
        cwd=ROOT,
        env=os.environ | disk.variables,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL


async def turns_after_the_worst(disk: FaultyDisk, thread_id: str) -> int:
    """How many turns of the thread are complete when all is lost that could be."""
    cut_power(disk, random.Random(0), lose_all=True)
    async with opened(disk.folder) as store:
        turns = await store.all_turns(thread_id)
        return sum(turn.status == "completed" for turn in turns)


async def test_a_thread_is_safe_in_folders_that_another_has_made_and_not_flushed(
    faulty_disk: FaultyDisk,
) -> None:
    run(faulty_disk, "begin(store, ONE)", "create(store, TWO)")
    assert await turns_after_the_worst(faulty_disk, TWO) == 1


async def test_a_thread_is_safe_in_folders_that_were_made_before_a_kill(faulty_disk: FaultyDisk) -> None:
    run(faulty_disk, "begin(store, ONE)")
    run(faulty_disk, "create(store, TWO)")
    assert await turns_after_the_worst(faulty_disk, TWO) == 1


async def test_a_thread_that_was_begun_before_a_kill_is_safe_with_its_next_turn(
    faulty_disk: FaultyDisk,
) -> None:
    run(faulty_disk, "begin(store, ONE)")
    run(faulty_disk, "add_turn(store, ONE, 1, START_MS)")
    assert await turns_after_the_worst(faulty_disk, ONE) == 1


@pytest.mark.parametrize("failing", ["*.jsonl", "sessions", "sessions/*"])
async def test_a_thread_is_safe_when_its_first_flush_has_failed_and_the_next_has_not(
    faulty_disk: FaultyDisk, failing: str
) -> None:
    refused = "expect_failure(create(store, ONE))"
    faulty_disk.fail("sync", times=1, only=[failing])
    run(faulty_disk, refused, "create(store, ONE)")
    assert faulty_disk.refused == 1
    assert await turns_after_the_worst(faulty_disk, ONE) == 1


async def test_a_fork_is_safe_in_folders_that_were_made_before_a_kill(faulty_disk: FaultyDisk) -> None:
    run(faulty_disk, "begin(store, ONE)")
    run(faulty_disk, "add_turn(store, ONE, 1, START_MS)", "fork(store, ONE, TWO)")
    assert await turns_after_the_worst(faulty_disk, TWO) == 1


async def test_a_fork_in_a_process_that_wrote_nothing_else_is_safe(faulty_disk: FaultyDisk) -> None:
    run(
        faulty_disk,
        "begin(store, ONE)",
        "store.commit(Batch(ONE, turn_end(ONE, turn_of(ONE, 0), 'x', START_MS)))",
    )
    run(faulty_disk, "fork(store, ONE, TWO)")
    assert await turns_after_the_worst(faulty_disk, TWO) == 1


async def test_a_thread_that_came_back_is_safe_in_folders_that_were_made_before_a_kill(
    faulty_disk: FaultyDisk,
) -> None:
    run(faulty_disk, "create(store, ONE)", "store.commit(Batch(ONE, relocate='archive'))")
    for folder in sorted(faulty_disk.folder.glob("sessions/**"), reverse=True):
        folder.rmdir()
    faulty_disk.forget()
    run(faulty_disk, "begin(store, TWO)")
    run(faulty_disk, "store.commit(Batch(ONE, relocate='unarchive'))")
    cut_power(faulty_disk, random.Random(0), lose_all=True)
    async with opened(faulty_disk.folder) as store:
        record = await store.thread(ONE)
        assert record is not None
        assert not record.archived
