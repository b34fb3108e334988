"""A process that is killed at any instruction has lost nothing it was told is on disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from persistence.store import ThreadQuery
from tests.persistence.sessions import START_MS, add_turn, opened, turn_of, uuid_of

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from pathlib import Path
import trio
from tests.persistence.sessions import *

async def live(store, number):
    thread_id = uuid_of(number)
    await create(store, thread_id)
    turn = 0
    while True:
        print(number, turn, flush=True)
        turn += 1
        await add_turn(store, thread_id, turn, START_MS + turn * 1000, "x" * 300)

async def main():
    async with opened(Path(sys.argv[1])) as store, trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(live, store, number)

trio.run(main)
"""


@pytest.mark.parametrize("acknowledged", [3, 40, 171])
async def test_every_turn_that_was_acknowledged_survives_a_kill(tmp_path: Path, acknowledged: int) -> None:
    done: dict[int, int] = {}
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", PROGRAM, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for _ in range(acknowledged):
            number, turn = map(int, process.stdout.readline().split())
            done[number] = turn
        process.kill()
    async with opened(tmp_path) as store:
        records = {record.id: record for record in (await store.threads_page(ThreadQuery())).records}
        for number, turn in done.items():
            thread_id = uuid_of(number)
            turns = await store.all_turns(thread_id)
            assert [each.id for each in turns[: turn + 1]] == [turn_of(thread_id, n) for n in range(turn + 1)]
            assert all(each.status == "completed" and len(each.items) == 2 for each in turns[: turn + 1])
            await add_turn(store, thread_id, 9999, START_MS + 10**7)
            # Whatever was cut off in the middle spoils at most one line.
            broken = [line for line in records[thread_id].path.read_bytes().splitlines() if not is_json(line)]
            assert len(broken) <= 1


def is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
