"""What the store has acknowledged is there after a power cut: turns, names, moves, copies and removals.

SPOOLD_TEST_CRASHES=400 cuts that often instead of a few times.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from persistence.store import Store
from tests.persistence.sessions import START_MS, add_turn, opened
from tests.persistence.test_index_is_derived import delete_database
from tests.support.faulty_disk import FaultyDisk
from tests.support.in_memory import replay_hint
from tests.support.power_cut import cut_power

CRASHES = int(os.environ.get("SPOOLD_TEST_CRASHES", "0"))
FIRST_SEED = int(os.environ.get("SPOOLD_TEST_SEED", "0"))
ROOT = Path(__file__).parents[2]

# One task works on each thread. It says what will be so before it asks for that, and that it is so after.
PROGRAM = """
import itertools, json, random, sys
from dataclasses import replace
from pathlib import Path
import trio
from tests.persistence.sessions import *

numbers = itertools.count(1)
moments = itertools.count(START_MS + 10_000_000, 1000)

def say(word, **state):
    print(json.dumps({word: state}), flush=True)

async def live(store, chance):
    state = {"id": uuid_of(next(numbers)), "place": "absent", "turns": [], "name": None}
    acts = [turn] * 6 + [archive, unarchive, name, revert, fork, delete]
    while True:
        act = create_it if state["place"] == "absent" else chance.choice(acts)
        if act is not fork and state["place"] == "archived":
            act = unarchive
        if (work := act(store, state, chance)) is None:
            continue
        after, do = work
        say("doing", **after)
        await do()
        say("done", **after)
        if after["id"] == state["id"]:
            state = after
        if state["place"] == "absent":
            state = state | {"id": uuid_of(next(numbers)), "turns": [], "name": None}

def create_it(store, state, chance):
    after = state | {"place": "active", "turns": [turn_of(state["id"], 0)]}
    return after, lambda: create(store, state["id"])

def turn(store, state, chance):
    number = next(numbers)
    after = state | {"turns": [*state["turns"], turn_of(state["id"], number)]}
    text = "more" * chance.randint(1, 2000)
    return after, lambda: add_turn(store, state["id"], number, next(moments), text)

def archive(store, state, chance):
    after = state | {"place": "archived"}
    return after, lambda: store.commit(Batch(state["id"], relocate="archive", now_ms=next(moments)))

def unarchive(store, state, chance):
    if state["place"] == "archived":
        after = state | {"place": "active"}
        return after, lambda: store.commit(Batch(state["id"], relocate="unarchive", now_ms=next(moments)))

def delete(store, state, chance):
    after = state | {"place": "absent"}
    return after, lambda: store.commit(Batch(state["id"], relocate="delete", now_ms=next(moments)))

def name(store, state, chance):
    given = chance.choice([None, f"name {next(numbers)}"])
    batch = Batch(state["id"], facts={"name": given}, now_ms=next(moments))
    return state | {"name": given}, lambda: store.commit(batch)

def revert(store, state, chance):
    if len(state["turns"]) > 1:
        at = chance.randrange(1, len(state["turns"]))
        after = state | {"turns": state["turns"][:at]}
        return after, lambda: store.revert(state["id"], state["turns"][at], next(moments))

def fork(store, state, chance):
    other, at = uuid_of(next(numbers)), next(moments)
    async def do():
        record = await store.thread(state["id"])
        new = {"id": other, "path": store.rollout_path(other, at), "created_at_ms": at, "name": None}
        await store.fork(state["id"], replace(record, **new), at_ms=at)
    return state | {"id": other, "place": "active", "name": None}, do

async def main():
    chance = random.Random(int(sys.argv[2]))
    async with opened(Path(sys.argv[1])) as store, trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(live, store, random.Random(chance.random()))

trio.run(main)
"""

State = dict[str, Any]


def live_until(disk: FaultyDisk, seed: int, acknowledged: int) -> list[tuple[str, State]]:
    """What a process has said when it was killed after so many acts."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, disk.folder, str(seed)],
        cwd=ROOT,
        env=os.environ | disk.variables,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            acknowledged -= '{"done"' in line
            if acknowledged == 0:
                process.kill()
    assert acknowledged <= 0, "the process ended of itself"
    return [
        (word, state) for line in lines if line.endswith("\n") for word, state in json.loads(line).items()
    ]


async def state_of(store: Store, thread_id: str) -> State:
    record = await store.thread(thread_id)
    if record is None:
        return {"id": thread_id, "place": "absent", "turns": [], "name": None}
    turns = [turn.id for turn in await store.all_turns(thread_id) if turn.status == "completed"]
    place = "archived" if record.archived else "active"
    return {"id": thread_id, "place": place, "turns": turns, "name": record.name}


def gone(state: State) -> State:
    """A thread that is absent has nothing else."""
    return {**state, "turns": [], "name": None} if state["place"] == "absent" else state


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + (CRASHES or 5)))
async def test_what_the_store_has_acknowledged_outlives_a_power_cut(
    faulty_disk: FaultyDisk, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    said = live_until(faulty_disk, seed, chance.randint(1, 120))
    cut = cut_power(faulty_disk, chance)
    possible: dict[str, list[State]] = {}
    for word, state in said:
        before = possible.setdefault(state["id"], [{"id": state["id"], "place": "absent"}])
        possible[state["id"]] = [state] if word == "done" else [before[0], state]
    with replay_hint(SPOOLD_TEST_SEED=seed, cut=cut):
        found: dict[str, State] = {}
        # A copy is looked at: what goes on has the index that the power cut has left.
        copy = shutil.copytree(faulty_disk.folder, tmp_path / "copy")
        async with opened(copy) as store:
            for thread_id, states in possible.items():
                found[thread_id] = await state_of(store, thread_id)
                assert found[thread_id] in [gone(state) for state in states]
        await go_on(faulty_disk.folder, found)
        delete_database(faulty_disk.folder)
        async with opened(faulty_disk.folder) as store:
            for thread_id, state in found.items():
                assert (await state_of(store, thread_id)) | {"name": None} == state | {"name": None}


async def go_on(home: Path, found: dict[str, State]) -> None:
    """Turns for all that are active, at once, while they are read and the index is brought up to date."""
    async with opened(home) as store, trio.open_nursery() as nursery:
        for state in found.values():
            if state["place"] == "active":
                nursery.start_soon(add_turns, store, state)
                nursery.start_soon(state_of, store, state["id"])


async def add_turns(store: Store, state: State) -> None:
    for number in (9998, 9999):
        added = await add_turn(store, state["id"], number, START_MS + 10**9)
        state["turns"] = [*state["turns"], added]
        assert await state_of(store, state["id"]) == state
