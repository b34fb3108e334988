"""The durable queue when the power goes: what was acknowledged is there, and nothing runs twice.

SPOOLD_TEST_CRASHES=400 cuts that often instead of a few times.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import trio

from persistence.fault_points import NAMES
from tests.support.faulty_disk import FaultyDisk
from tests.support.in_memory import replay_hint
from tests.support.power_cut import cut_power
from tests.support.queue_crash import check, crash
from tests.support.queue_ledger import Ledger
from tests.support.scripted_model import open_scripted_model

CRASHES = int(os.environ.get("SPOOLD_TEST_CRASHES", "0"))
"""How many crashes the long variant makes, in all."""
FIRST_SEED = int(os.environ.get("SPOOLD_TEST_SEED", "0"))
SEEDS = range(FIRST_SEED, FIRST_SEED + max(5, CRASHES // 4))
AT_ONCE = 4

POINTS = [name for name in NAMES if "settled" not in name]


async def cut_at_random(folder: Path, library: Path, seed: int, rounds: int) -> None:
    """Daemons of one home whose machine goes off, at other moments and with other losses."""
    accounts: list[list[str]] = []
    with replay_hint(SPOOLD_TEST_SEED=seed, cuts=accounts):
        chance = random.Random(seed)
        disk = FaultyDisk(library, folder / "home")
        async with trio.open_nursery() as nursery, open_scripted_model(nursery) as model:
            ledgers = [Ledger(f"m{number}") for number in range(3)]
            for left in reversed(range(rounds)):
                at_point = chance.random() < 0.5
                await crash(
                    folder,
                    model,
                    ledgers,
                    chance,
                    kill_at=f"{chance.choice(POINTS)}:{chance.randint(1, 60)}" if at_point else None,
                    kill_after=None if at_point else chance.randint(1, 220),
                    variables=disk.variables,
                )
                # Sometimes the process alone dies: what it left unflushed is then the next one's to lose.
                accounts.append(cut_power(disk, chance) if left == 0 or chance.random() < 0.7 else [])
                await check(folder, model, ledgers, chance, disk.variables)


async def test_power_cuts_at_random_moments_lose_nothing_and_run_nothing_twice(
    tmp_path: Path, faulty_disk_library: Path
) -> None:
    limit = trio.CapacityLimiter(AT_ONCE)

    async def one(seed: int) -> None:
        async with limit:
            await cut_at_random(tmp_path / str(seed), faulty_disk_library, seed, 4 if CRASHES else 1)

    async with trio.open_nursery() as nursery:
        for seed in SEEDS:
            nursery.start_soon(one, seed)
