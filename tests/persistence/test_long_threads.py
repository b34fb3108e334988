"""A thread of hundreds of megabytes is resumed at the price of its first page."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from persistence.rollout_lines import RolloutLine, encode_line
from persistence.store import Batch, Store, ThreadQuery
from protocol.items import CommandExecutionItem
from tests.persistence.sessions import (
    LOCAL_TIME,
    START_MS,
    completed,
    meta,
    opened,
    turn_begin,
    turn_end,
    turn_of,
    uuid_of,
)

THREAD = uuid_of(1)
TURNS = 1600
OUTPUT = "x" * (128 << 10)


def write_long_thread(root: Path) -> Path:
    """About 200 MB: every turn ran a command that said much."""
    path = root / f"sessions/2026/11/18/rollout-{LOCAL_TIME}-{THREAD}.jsonl"
    path.parent.mkdir(parents=True)
    ordinal = 0
    with path.open("wb") as file:

        def write(lines: list[RolloutLine]) -> None:
            nonlocal ordinal
            for line in lines:
                file.write(encode_line(line, ordinal))
                ordinal += 1

        write([meta(THREAD)])
        for number in range(TURNS):
            turn_id, at_ms = turn_of(THREAD, number), START_MS + 1000 * number
            write(turn_begin(THREAD, turn_id, f"question {number}", at_ms))
            command = CommandExecutionItem(
                id=f"c-{turn_id}", command="make", cwd="/", status="completed", aggregated_output=OUTPUT
            )
            write([completed(THREAD, turn_id, command, at_ms)])
            write(turn_end(THREAD, turn_id, f"answer {number}", at_ms))
    return path


def resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmRSS")


async def first_page(store: Store) -> None:
    """What a resume without turns and with a first page reads."""
    record = await store.thread(THREAD)
    assert record is not None
    state = await store.resume_state(THREAD, with_context=False)
    assert not state.interrupted
    page = await store.turns_page(THREAD, cursor=None, limit=20, direction="desc", view="full")
    assert len(page.data) == 20
    assert [len(turn.items) for turn in page.data] == [3] * 20
    assert await store.history_cursors(THREAD) != (None, None)


@pytest.mark.slow
async def test_the_first_page_of_a_huge_thread_costs_what_a_page_costs(tmp_path: Path) -> None:
    path = write_long_thread(tmp_path)
    assert path.stat().st_size > 200 << 20
    async with opened(tmp_path) as store:
        await store.threads_page(ThreadQuery())
    async with opened(tmp_path) as store:
        before = resident_bytes()
        took = []
        for _ in range(3):
            began = time.perf_counter()
            await first_page(store)
            took.append(time.perf_counter() - began)
        grown = resident_bytes() - before
        print(f"first page: {min(took) * 1000:.0f} ms, memory +{grown >> 20} MB")
        assert min(took) < 0.15
        assert grown < 60 << 20
        # A turn goes on without reading it either.
        turn_id = turn_of(THREAD, TURNS)
        began = time.perf_counter()
        await store.commit(Batch(THREAD, turn_begin(THREAD, turn_id, "next", START_MS), fsync=True))
        assert time.perf_counter() - began < 1
        assert resident_bytes() - before < 60 << 20
