"""What goes away while something begins: archive and turn, the end of the daemon and everything.

As in ``test_core_races``: every schedule up to a bound.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio

from spoold.testing import SimulatedClient, World
from spoold.testing.client import Pending
from spoold.testing.races import Race, Scenario
from tests.simulation.race_stage import APPROVAL, UNLOAD_SECONDS, Scene, check_all

Json = dict[str, Any]


async def archive_and_turn(world: World, race: Race) -> None:
    scene = Scene(world, race)
    alice, bob = await scene.come("alice", "bob")
    await scene.make_thread(alice, bob)
    async with scene.window():
        archived = scene.ask(bob, "thread/archive")
        started = scene.start_turn(alice, "say two")
    assert await archived.result() == {}
    assert started.answer is not None
    turns = ["completed"]
    if "result" in started.answer:
        turns.append(scene.check_ends(started.answer["result"]["turn"]["id"]))
    else:
        assert started.answer["error"]["message"] == f"thread not found: {scene.thread}"
    race.outcome = turns[-1] if len(turns) > 1 else "refused"
    observer = await scene.observer()
    assert [each["status"] for each in await scene.history()] == turns
    assert (await observer.call("thread/loaded/list"))["data"] == []
    for each in (alice, bob):
        assert scene.heard(each, "thread/status/changed")[-1]["status"] == {"type": "notLoaded"}
        assert len(scene.heard(each, "thread/archived")) == 1
    paths = [
        path.relative_to(world.daemon.home) for path in world.daemon.home.rglob(f"*{scene.thread}*.jsonl")
    ]
    assert [path.parts[0] for path in paths] == ["archived_sessions"]
    await scene.done()


def test_a_thread_is_archived_with_the_end_of_its_turn_in_any_schedule() -> None:
    check_all(archive_and_turn, 2)


# -- the end of the daemon ----------------------------------------------------------------------------------


def told_ends(*clients: SimulatedClient) -> dict[str, str]:
    """The turns of which somebody was told the end, with their status: each client once."""
    told: dict[str, str] = {}
    for client in clients:
        own: set[str] = set()
        for each in client.log:
            if each.get("method") == "turn/completed":
                turn = each["params"]["turn"]
                assert turn["id"] not in own, f"{client.name} was told twice"
                own.add(turn["id"])
                assert told.setdefault(turn["id"], turn["status"]) == turn["status"]
    return told


def how(request: Pending) -> str:
    """What became of a request."""
    if request.answer is None:
        return "lost"
    return "done" if "result" in request.answer else "refused"


async def check_told(scene: Scene, *clients: SimulatedClient) -> list[Json]:
    """What was told is there after the restart: the history."""
    turns = await scene.history()
    ends = {turn["id"]: turn["status"] for turn in turns}
    for turn_id, status in told_ends(*clients).items():
        assert ends[turn_id] == status
    for turn in turns:
        assert turn["status"] != "inProgress"
    return turns


async def shutdown_and_turn(world: World, race: Race) -> None:
    scene = Scene(world, race)
    alice, bob = await scene.come("alice", "bob")
    await scene.make_thread(alice, bob)
    async with scene.window(ends=True):
        scene.daemon.ask_to_stop()
        started = scene.start_turn(alice, "say two")
    scene.check_answers()
    await scene.daemon.restart()
    turns = await check_told(scene, alice, bob)
    race.outcome = how(started)
    if started.answer is not None and "result" in started.answer:
        turn_id = started.answer["result"]["turn"]["id"]
        assert [turn["id"] for turn in turns[1:]] == [turn_id]
        assert told_ends(alice, bob)[turn_id] == turns[1]["status"]
    else:
        assert len(turns) == 1
    await scene.done()


async def shutdown_and_add(world: World, race: Race) -> None:
    scene = Scene(world, race)
    alice, bob = await scene.come("alice", "bob")
    await scene.make_thread(alice)
    # Loaded again, it has to read what the turn needs: the end may come in between.
    await scene.leave()
    await trio.sleep(2 * UNLOAD_SECONDS)
    await scene.come("alice", "bob")
    await bob.call("thread/resume", threadId=scene.thread)
    async with scene.window(ends=True):
        scene.daemon.ask_to_stop()
        added = scene.add(bob, "say two")
    scene.check_answers()
    await scene.daemon.restart()
    await check_told(scene, alice, bob)
    race.outcome = how(added)
    everywhere = [*await scene.waiting(), *await scene.said()]
    if added.answer is not None and "result" in added.answer:
        assert everywhere == ["say two"]
    else:
        assert everywhere in ([], ["say two"]) if added.answer is None else everywhere == []
    await scene.done()


async def shutdown_and_completion(world: World, race: Race) -> None:
    scene = Scene(world, race)
    alice, bob = await scene.come("alice", "bob")
    await scene.make_thread(alice, bob)
    turn = await scene.hold_turn(alice)
    async with scene.window(ends=True):
        scene.daemon.ask_to_stop()
        scene.daemon.ask_to_stop()  # the second one does not wait for the turn
        scene.open_gate()
    await scene.daemon.restart()
    turns = await check_told(scene, alice, bob)
    race.outcome = turns[1]["status"]
    assert told_ends(alice)[turn] == told_ends(bob)[turn] == turns[1]["status"]
    await scene.done()


async def shutdown_and_resume(world: World, race: Race) -> None:
    scene = Scene(world, race)
    [alice] = await scene.come("alice")
    await scene.make_thread(alice)
    await scene.leave()
    await trio.sleep(2 * UNLOAD_SECONDS)
    [alice] = await scene.come("alice")
    async with scene.window(ends=True):
        scene.daemon.ask_to_stop()
        resumed = scene.ask(alice, "thread/resume")
    race.outcome = how(resumed)
    scene.check_answers()
    await scene.daemon.restart()
    assert [turn["status"] for turn in await check_told(scene, alice)] == ["completed"]
    await scene.done()


async def shutdown_and_answer(world: World, race: Race) -> None:
    scene = Scene(world, race)
    alice, bob = await scene.come("alice", "bob")
    await scene.make_thread(alice, bob)
    command = f"echo {scene.gate}"
    turn = await alice.start_turn(scene.thread, f"esc {command} | say Done.")
    question = await alice.server_request(APPROVAL)
    async with scene.window(ends=True):
        scene.daemon.ask_to_stop()
        scene.daemon.ask_to_stop()
        bob.answer(question, {"decision": "accept"})
    await scene.daemon.restart()
    turns = await check_told(scene, alice, bob)
    race.outcome = turns[1]["status"]
    assert told_ends(alice)[turn] == told_ends(bob)[turn] == turns[1]["status"]
    for each in (alice, bob):
        assert len(scene.heard(each, "serverRequest/resolved")) == 1
    assert world.commands.started.count(command) <= 1
    await scene.done()


@pytest.mark.parametrize(
    ("race", "bound"),
    [
        (shutdown_and_turn, 1),
        (shutdown_and_add, 1),
        (shutdown_and_completion, 1),
        (shutdown_and_resume, 2),
        (shutdown_and_answer, 1),
    ],
)
def test_what_a_daemon_told_before_its_end_is_durable_in_any_schedule(race: Scenario, bound: int) -> None:
    check_all(race, bound)
