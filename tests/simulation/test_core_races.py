"""The races of one thread: every schedule up to a bound, not a sample; see ``spoold.testing.systematic``.

A failure names its schedule: ``replay(RACE, schedule=[...])`` of ``spoold.testing.races`` runs it again.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spoold.testing import World
from spoold.testing.races import Race, Scenario
from tests.simulation.race_stage import APPROVAL, Loads, Scene, check_all, until_unloaded

# -- loading and unloading ----------------------------------------------------------------------------------


def two_resumes(loads: Loads) -> Scenario:
    async def two_resumes(world: World, race: Race) -> None:
        scene = Scene(world, race)
        alice, bob = await scene.come("alice", "bob")
        await scene.make_thread(alice)
        await scene.leave()
        await until_unloaded()
        await scene.come("alice", "bob")
        assert not loads.living(scene.thread)
        loads.of.clear()
        async with scene.window():
            answers = [scene.ask(each, "thread/resume") for each in (alice, bob)]
        assert loads.of == [scene.thread]
        assert len(loads.living(scene.thread)) == 1
        for each in answers:
            assert (await each.result())["thread"]["status"] == {"type": "idle"}
        await scene.check_shown()
        await scene.done()

    return two_resumes


def resume_and_unload(loads: Loads) -> Scenario:
    async def resume_and_unload(world: World, race: Race) -> None:
        scene = Scene(world, race)
        [alice] = await scene.come("alice")
        await scene.make_thread(alice)
        await scene.leave()
        alice, bob = await scene.come("alice", "bob")
        loads.of.clear()
        async with scene.window():
            await until_unloaded()
            answers = [scene.ask(alice, "thread/resume"), scene.start_turn(alice, "say two")]
        turn = (await answers[1].result())["turn"]["id"]
        assert len(loads.living(scene.thread)) == 1
        # Whom the old actor answers needs no new one, and hears nothing of its end.
        closed = scene.heard(bob, "thread/closed")
        assert len(closed) == len(loads.of) <= 1
        race.outcome = "loaded again" if closed else "stayed"
        order = [
            each.get("method")
            for each in alice.log
            if "method" not in each or each["method"] == "thread/closed"
        ]
        assert order[-1] is None
        assert scene.check_ends(turn) == "completed"
        await scene.check_shown()
        await scene.done()

    return resume_and_unload


def resume_and_turn(loads: Loads) -> Scenario:
    async def resume_and_turn(world: World, race: Race) -> None:
        scene = Scene(world, race)
        alice, bob = await scene.come("alice", "bob")
        await scene.make_thread(alice)
        async with scene.window():
            started = scene.start_turn(alice, "say two")
            scene.ask(bob, "thread/resume")
        turn = (await started.result())["turn"]["id"]
        assert turn in bob.threads[scene.thread].turns
        said = [each["params"]["turnId"] for each in bob.log if each.get("method") == "item/completed"]
        race.outcome = f"{said.count(turn)} items after the snapshot"
        await scene.check_shown()
        await scene.done()

    return resume_and_turn


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Loads:
    return Loads(monkeypatch)


@pytest.mark.parametrize(("race", "bound"), [(two_resumes, 2), (resume_and_unload, 2), (resume_and_turn, 2)])
def test_who_attaches_in_any_schedule_finds_one_actor_and_misses_nothing(
    race: Callable[[Loads], Scenario], bound: int, loads: Loads
) -> None:
    check_all(race(loads), bound)


# -- the queue ----------------------------------------------------------------------------------------------


async def add_and_drain(world: World, race: Race) -> None:
    scene = Scene(world, race)
    alice, bob = await scene.come("alice", "bob")
    await scene.make_thread(alice, bob)
    await scene.hold_turn(alice)
    await scene.add(alice, "say two").result()
    async with scene.window():
        scene.open_gate()
        scene.add(bob, "say three")
    assert await scene.waiting() == []
    assert (await scene.said())[1:] == ["say two", "say three"]
    await scene.check_shown()
    await scene.done()


async def two_adds_and_a_turn(world: World, race: Race) -> None:
    scene = Scene(world, race)
    alice, bob = await scene.come("alice", "bob")
    await scene.make_thread(alice, bob)
    async with scene.window():
        scene.add(alice, "say two")
        started = scene.start_turn(bob, "say three")
    said = await scene.said()
    assert await scene.waiting() == []
    # A turn/start while a turn runs is said to that turn.
    assert sorted(said) == ["say three", "say two"]
    race.outcome = f"{len(await scene.history())} turns"
    assert started.answer is not None
    await scene.check_shown()
    await scene.done()


async def delete_and_drain(world: World, race: Race) -> None:
    scene = Scene(world, race)
    alice, bob = await scene.come("alice", "bob")
    await scene.make_thread(alice, bob)
    await scene.hold_turn(alice)
    row = (await scene.add(alice, "say two").result())["queuedTurn"]["id"]
    async with scene.window():
        scene.open_gate()
        deleted = scene.ask(bob, "thread/queue/delete", queuedTurnId=row)
    result = await deleted.result()
    race.outcome = "deleted" if result["deleted"] else "ran"
    assert await scene.waiting() == []
    assert (await scene.said())[1:] == ([] if result["deleted"] else ["say two"])
    await scene.check_shown()
    await scene.done()


@pytest.mark.parametrize(
    ("race", "bound"), [(add_and_drain, 1), (two_adds_and_a_turn, 1), (delete_and_drain, 2)]
)
def test_a_queued_message_is_in_one_place_in_any_schedule(race: Scenario, bound: int) -> None:
    check_all(race, bound)


# -- the end of a turn --------------------------------------------------------------------------------------


async def interrupt_and_completion(world: World, race: Race) -> None:
    scene = Scene(world, race)
    alice, bob = await scene.come("alice", "bob")
    await scene.make_thread(alice, bob)
    turn = await scene.hold_turn(alice)
    async with scene.window():
        scene.open_gate()
        interrupted = scene.ask(bob, "turn/interrupt", turnId=turn)
    status = race.outcome = scene.check_ends(turn)
    assert interrupted.answer is not None
    assert (status == "interrupted") == ("result" in interrupted.answer), (status, interrupted.answer)
    assert [each["status"] for each in await scene.history()] == ["completed", status]
    await scene.check_shown()
    await scene.done()


async def answer_cancel_and_disconnect(world: World, race: Race) -> None:
    scene = Scene(world, race)
    alice, bob, carol = await scene.come("alice", "bob", "carol")
    await scene.make_thread(alice, bob, carol)
    command = f"echo {scene.gate}"
    turn = await alice.start_turn(scene.thread, f"esc {command} | say Done.")
    question = await alice.server_request(APPROVAL)
    async with scene.window():
        alice.answer(question, {"decision": "accept"})
        await alice.disconnect()
        scene.ask(bob, "turn/interrupt", turnId=turn)
        carol.answer(question, {"decision": "decline"})
    status = race.outcome = scene.check_ends(turn)
    resolved = {"threadId": scene.thread, "requestId": question["id"]}
    for each in (bob, carol):
        assert scene.heard(each, "serverRequest/resolved") == [resolved], each.name
    assert world.commands.started.count(command) <= 1
    assert status in ("interrupted", "completed")
    await scene.check_shown()
    await scene.done()


@pytest.mark.parametrize(
    ("race", "bound"), [(interrupt_and_completion, 2), (answer_cancel_and_disconnect, 2)]
)
def test_a_turn_and_its_question_end_once_in_any_schedule(race: Scenario, bound: int) -> None:
    check_all(race, bound)
