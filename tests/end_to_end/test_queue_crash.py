"""The durable queue under SIGKILL: nothing that was acknowledged is lost, nothing runs twice.

SPOOLD_TEST_CRASHES=1000 kills that often instead of a few times.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from persistence.fault_points import NAMES
from tests.support.in_memory import replay_hint
from tests.support.queue_crash import CLAIMED, check, crash
from tests.support.queue_ledger import Ledger
from tests.support.scripted_model import open_scripted_model

CRASHES = int(os.environ.get("SPOOLD_TEST_CRASHES", "0"))
"""How many crashes the long variants make, in all."""
FIRST_SEED = int(os.environ.get("SPOOLD_TEST_SEED", "0"))
SEEDS = range(FIRST_SEED, FIRST_SEED + max(6, CRASHES // 4))
AT_ONCE = 4


async def crash_at(folder: Path, points: Sequence[str], seed: int, threads: int) -> None:
    """A life that ends at each of these points in turn, then one in which all is checked."""
    with replay_hint(points=points, seed=seed):
        chance = random.Random(seed)
        ledgers = [Ledger(f"m{number}") for number in range(threads)]
        async with trio.open_nursery() as nursery, open_scripted_model(nursery) as model:
            for point in points:
                assert await crash(folder, model, ledgers, chance, kill_at=point), f"{point} was not reached"
            await check(folder, model, ledgers, chance)


@pytest.mark.parametrize("name", NAMES)
async def test_a_crash_at_a_fault_point_loses_nothing_and_runs_nothing_twice(
    tmp_path: Path, name: str
) -> None:
    settling = "settled" in name
    cases = [(CLAIMED, f"{name}:1")] if settling else [(f"{name}:{count}",) for count in (1, 2, 3, 6)]
    async with trio.open_nursery() as nursery:
        for number, points in enumerate(cases):
            nursery.start_soon(crash_at, tmp_path / str(number), points, number, 1 if number < 3 else 2)


async def crash_at_random(folder: Path, seed: int, rounds: int) -> None:
    """Daemons of one home that are killed from outside, each after other messages."""
    with replay_hint(SPOOLD_TEST_SEED=seed):
        chance = random.Random(seed)
        async with trio.open_nursery() as nursery, open_scripted_model(nursery) as model:
            ledgers = [Ledger(f"m{number}") for number in range(3)]
            for _ in range(rounds):
                await crash(folder, model, ledgers, chance, kill_after=chance.randint(1, 220))
                await check(folder, model, ledgers, chance)


async def test_kills_at_random_moments_lose_nothing_and_run_nothing_twice(tmp_path: Path) -> None:
    limit = trio.CapacityLimiter(AT_ONCE)

    async def one(seed: int) -> None:
        async with limit:
            await crash_at_random(tmp_path / str(seed), seed, 4 if CRASHES else 1)

    async with trio.open_nursery() as nursery:
        for seed in SEEDS:
            nursery.start_soon(one, seed)
