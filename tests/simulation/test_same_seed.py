"""The same seed gives the same world: byte for byte, in this process and in any other."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spoold.client import ConnectionLost, RpcFailed
from spoold.testing import World, simulate
from spoold.testing.exploration.schedules import make_schedule, run_schedule
from tests.support.in_memory import replay_hint

SEEDS = range(1, 7)
EXPLORED = range(1000, 1010)


async def eventful(world: World) -> None:
    """Two clients, an approval, a queue, a failing model, a slow and failing disk, two crashes."""
    daemon, chance = world.daemon, world.chance
    alice, bob = await world.client("alice"), await world.client("bob")
    thread = await alice.start_thread()
    other = await bob.start_thread()
    turn = await alice.start_turn(thread, "esc echo hello; sleep 1 | reason why ;; because")
    streamed = await bob.start_turn(other, f"deltas {chance.randint(3, 20)} some words")
    await alice.server_request("item/commandExecution/requestApproval")
    await alice.disconnect(lose=True)
    await bob.call("thread/resume", threadId=thread)
    asked = await bob.server_request("item/commandExecution/requestApproval")
    bob.answer(asked, {"decision": "accept"})
    await bob.turn_ended(turn)
    await bob.turn_ended(streamed)
    daemon.disk.slowness = 3.0
    daemon.disk.fail("append", after=chance.randrange(6))
    daemon.disk.fail("half an append", after=chance.randrange(6))
    daemon.disk.fail("commit", after=chance.randrange(6))
    daemon.disk.crash_at("before COMMIT", chance.randrange(4, 12), power=True)
    try:
        for number in range(8):
            said = {"threadId": thread, "input": [{"type": "text", "text": f"say {number}"}]}
            bob.send("thread/queue/add", threadId=thread, turnStartParams=said)
        await bob.start_turn(other, "cut this is cut")
        await bob.notification("turn/completed", threadId=other, since=len(bob.log))
        await daemon.crash()
    except (ConnectionLost, RpcFailed) as error:
        world.trace.note("scenario", repr(error))
        await daemon.crash(power=True)
    await daemon.restart()
    carol = await world.client("carol")
    await alice.connect()
    for client in (carol, alice):
        await client.call("thread/list")
        client.send("thread/resume", threadId=thread)
        await client.call("thread/resume", threadId=other)
    await daemon.settled()
    await carol.call("thread/read", threadId=thread, includeTurns=True)


def digest(seed: int) -> str:
    """Of a seed's trace: of the scenario above, from 1000 on of the explorer's schedule."""
    trace = simulate(eventful, seed).text() if seed < 1000 else run_schedule(seed, make_schedule(seed))
    return hashlib.sha256(trace.encode()).hexdigest()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_gives_the_same_trace_twice(seed: int) -> None:
    first, second = simulate(eventful, seed), simulate(eventful, seed)
    with replay_hint(seed=seed):
        assert first.lines == second.lines


def test_two_seeds_give_two_traces() -> None:
    assert len({digest(seed) for seed in SEEDS}) == len(SEEDS)


def test_a_fresh_process_with_another_order_of_sets_gives_the_same_traces() -> None:
    seeds = [*SEEDS, *EXPLORED]
    here = [digest(seed) for seed in seeds]
    code = f"from tests.simulation.test_same_seed import *; print(*map(digest, {seeds}))"
    root = str(Path(__file__).parents[2])
    for order in ("1", "4711"):
        environment = {**os.environ, "PYTHONHASHSEED": order, "PYTHONPATH": root}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
        with replay_hint(seeds=seeds, PYTHONHASHSEED=order):
            assert done.stdout.split() == here
