"""A loaded thread lets its runtime go, and nobody can tell."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from actors.residency import Residency, ResidentRuntimes
from spoold.testing.client_state import ClientState
from tests.actors.stage import Asked, Stage, opened, question
from tests.support.in_memory import PuppetRunner

IDLE = 300
UNLOAD = 1800


@pytest.fixture
def mock_clock() -> trio.testing.MockClock:
    """Stands still unless moved; a test that waits for nothing is brought to its limit after 10 s."""
    return trio.testing.MockClock(autojump_threshold=10)


async def jump(stage: Stage, clock: trio.testing.MockClock, seconds: float) -> None:
    """Let time pass, and let everybody act on it. Before, everything is handled: real threads work here."""
    for thread_id in stage.supervisor.loaded_ids():
        await stage.handled(thread_id)
    clock.jump(seconds)
    await trio.testing.wait_all_tasks_blocked()


def resident(stage: Stage, thread_id: str) -> bool:
    runtime = stage.actor(thread_id)._runtime
    found = runtime.residency.resident
    assert found == (runtime._context is not None and runtime.residency.deadline() < math.inf)
    return found


def runner(stage: Stage, thread_id: str) -> PuppetRunner:
    found = stage.actor(thread_id)._runtime.runner
    assert isinstance(found, PuppetRunner)
    return found


def test_a_runtime_goes_an_idle_time_after_its_last_use() -> None:
    residency = Residency(10)
    assert (residency.resident, residency.deadline()) == (False, math.inf)
    residency.used(5)
    residency.used(7)
    assert (residency.resident, residency.deadline()) == (True, 17)
    residency.dropped()
    assert (residency.resident, residency.deadline()) == (False, math.inf)


class Holder:
    def __init__(self, *, pinned: bool = False) -> None:
        self.pinned = pinned
        self.asked = 0

    def ask_to_drop(self) -> None:
        self.asked += 1


def test_the_least_recently_used_idle_runtime_goes_first() -> None:
    first, second, third, fourth = (Holder() for _ in range(4))
    runtimes = ResidentRuntimes(2)
    for holder in (first, second, first, third):
        runtimes.used(holder)
    assert [each.asked for each in (first, second, third)] == [0, 1, 0]
    runtimes.gone(first)
    runtimes.used(fourth)
    assert [each.asked for each in (first, second, third, fourth)] == [0, 1, 0, 0]


def test_pinned_runtimes_stay_beyond_the_cap_and_the_excess_goes_as_soon_as_it_can() -> None:
    holders = [Holder(pinned=True) for _ in range(4)]
    runtimes = ResidentRuntimes(2)
    for holder in holders:
        runtimes.used(holder)
    assert [each.asked for each in holders] == [0, 0, 0, 0]
    for holder in holders:
        holder.pinned = False
    runtimes.used(holders[3])
    assert [each.asked for each in holders] == [1, 1, 0, 0]
    assert len(runtimes) == 2


async def test_a_watched_thread_lets_its_runtime_go_after_the_idle_time_and_stays_loaded(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with opened(tmp_path, limit=10**6) as stage:
        watcher = stage.peer()
        thread_id = await stage.start(watcher)
        await stage.whole_turn(watcher, thread_id)
        assert resident(stage, thread_id)
        await jump(stage, mock_clock, IDLE - 1)
        assert resident(stage, thread_id)
        before = len(watcher.log)
        await jump(stage, mock_clock, 2)
        assert not resident(stage, thread_id)
        assert runner(stage, thread_id).drops == 1
        assert len(watcher.log) == before, "nobody is told"
        await jump(stage, mock_clock, 100 * IDLE)
        assert stage.supervisor.loaded_ids() == [thread_id]


async def test_watching_reading_and_attaching_are_no_use_of_a_runtime(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with opened(tmp_path, limit=10**6) as stage:
        watcher = stage.peer()
        thread_id = await stage.start(watcher)
        await stage.whole_turn(watcher, thread_id)
        for _ in range(31):
            await jump(stage, mock_clock, 10)
            await stage.read(watcher, thread_id, turns=True).answer()
            await stage.resume(stage.peer(), thread_id).answer()
        assert not resident(stage, thread_id)


async def test_letting_a_runtime_go_does_not_keep_a_thread_loaded_longer(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with opened(tmp_path, limit=10**6) as stage:
        owner = stage.peer()
        thread_id = await stage.start(owner)
        await stage.whole_turn(owner, thread_id)
        await stage.unsubscribe(owner, thread_id).answer()
        await stage.handled(thread_id)
        await jump(stage, mock_clock, UNLOAD - 1)
        assert not resident(stage, thread_id)
        assert stage.supervisor.loaded_ids() == [thread_id]
        mock_clock.jump(1)
        await owner.got("thread/closed")


async def test_a_running_turn_a_command_in_the_background_and_an_open_question_pin_the_runtime(
    tmp_path: Path, mock_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    async with opened(tmp_path, limit=10**6) as stage:
        owner = stage.peer()
        thread_id = await stage.start(owner)
        _, turn = await stage.begin(owner, thread_id)
        nursery.start_soon(Asked().ask, turn, question())
        await jump(stage, mock_clock, 3 * IDLE)
        assert resident(stage, thread_id)
        turn.end()
        await owner.got("turn/completed")
        runner(stage, thread_id).busy = True
        await jump(stage, mock_clock, 3 * IDLE)
        assert resident(stage, thread_id)
        runner(stage, thread_id).busy = False
        await jump(stage, mock_clock, IDLE + 1)
        assert not resident(stage, thread_id)


async def test_an_ephemeral_thread_keeps_its_context(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    async with opened(tmp_path, limit=10**6) as stage:
        owner = stage.peer()
        thread_id = await stage.start(owner, ephemeral=True)
        await stage.whole_turn(owner, thread_id)
        await jump(stage, mock_clock, 3 * IDLE)
        _, turn = await stage.begin(owner, thread_id)
        assert turn.job.context


async def test_more_runtimes_than_the_cap_let_the_least_recently_used_idle_one_go(tmp_path: Path) -> None:
    async with opened(tmp_path, "spoold.max_resident_runtimes=3") as stage:
        owner = stage.peer()
        ids = [await stage.start(owner) for _ in range(6)]
        _, running = await stage.begin(owner, ids[0])
        for thread_id in ids[1:]:
            await stage.whole_turn(owner, thread_id)
        for thread_id in ids:
            await stage.handled(thread_id)
        assert [resident(stage, thread_id) for thread_id in ids] == [True, False, False, False, True, True]
        await stage.whole_turn(owner, ids[1])
        await stage.handled(ids[4])
        assert not resident(stage, ids[4])
        running.end()
        await owner.got("turn/completed", 7)


async def letting_go(stage: Stage, thread_id: str) -> None:
    stage.actor(thread_id).ask_to_drop()
    await stage.handled(thread_id)
    assert not resident(stage, thread_id)


async def unloading(stage: Stage, thread_id: str) -> None:
    stage.shut_down(thread_id)
    await stage.actor(thread_id).finished.wait()
    await stage.resume(stage.peer(), thread_id).answer()


async def staying(stage: Stage, thread_id: str) -> None:
    await stage.handled(thread_id)


WAYS: dict[str, Callable[[Stage, str], Awaitable[None]]] = {
    "stays": staying, "drop and rebuild": letting_go, "unload and reload": unloading,
}  # fmt: skip

SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "instructions": ({"baseInstructions": "Be brief.", "developerInstructions": "Be kind."}, {}),
    "settings of the turn": (
        {}, {"model": "another", "effort": "high", "summary": "detailed", "approvalPolicy": "never"}
    ),
    "settings of the thread": ({"model": "another", "cwd": "/usr", "sandbox": "workspace-write"}, {}),
    "a config of its own": (
        {"config": {"model_reasoning_effort": "low", "model_reasoning_summary": "concise",
                    "developer_instructions": "Be kind."}}, {}
    ),
    "a schema for one turn": ({}, {"outputSchema": {"type": "object"}}),
    "a service tier": ({}, {"serviceTier": "fast"}),
}  # fmt: skip


UNLIKE = ("thread", "seq", "turnsBackwardsCursor", "itemsBackwardsCursor")
"""Members of thread/resume that name the thread, or count."""


@pytest.mark.parametrize("settings", SETTINGS)
async def test_what_the_next_turn_starts_from_and_what_is_read_are_the_same_however_a_thread_was_kept(
    stage: Stage, settings: str
) -> None:
    of_thread, of_turn = SETTINGS[settings]
    outcomes = {}
    for way, keep in WAYS.items():
        owner = stage.peer()
        thread_id = await stage.start(owner, **of_thread)
        _, turn = await stage.begin(owner, thread_id, "first", **of_turn)
        turn.end()
        await owner.got("turn/completed")
        await stage.whole_turn(owner, thread_id, "one two")
        _, turn = await stage.begin(owner, thread_id, "third")
        await stage.interrupt(owner, thread_id, turn.job.turn_id).answer()
        before = (await stage.read(owner, thread_id, turns=True).answer())["thread"]
        await keep(stage, thread_id)
        after = (await stage.read(owner, thread_id, turns=True).answer())["thread"]
        assert after == before, way
        _, turn = await stage.begin(owner, thread_id, "again")
        job, shown = turn.job, stage.resume(stage.peer(), thread_id, excludeTurns=True)
        told = {key: value for key, value in (await shown.answer()).items() if key not in UNLIKE}
        outcomes[way] = (job.context, job.settings, job.interrupted_before, told)
        turn.end()
        await stage.handled(thread_id)
    assert outcomes["drop and rebuild"] == outcomes["stays"]
    assert outcomes["unload and reload"] == outcomes["stays"]


async def test_who_comes_back_after_the_ring_was_let_go_gets_a_snapshot_and_who_has_seen_all_gets_nothing(
    stage: Stage,
) -> None:
    owner = stage.peer()
    thread_id = await stage.start(owner)
    await stage.whole_turn(owner, thread_id)
    known = ClientState().all(owner.log)
    await letting_go(stage, thread_id)
    old = await stage.resume(stage.peer(), thread_id, afterSeq=2, epoch=known.epoch).answer()
    assert (old["replayed"], len(old["thread"]["turns"])) == (False, 1)
    assert old["seq"] == known.seq
    stage.supervisor.peer_gone(owner)
