"""What the simulated world promises: the daemon in it is real, and dies, fails and waits as it is told."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest
import trio

from persistence.fault_points import NAMES
from spoold.client import ConnectionLost, RpcFailed
from spoold.testing import SimulatedClient, World, simulate

Json = dict[str, Any]
OF_A_RESTART = ("before a claim is settled", "after a claim is settled")


def queued(thread_id: str, text: str) -> Json:
    said = {"threadId": thread_id, "input": [{"type": "text", "text": text}], "clientUserMessageId": text}
    return {"threadId": thread_id, "turnStartParams": said}


def messages(turns: list[Json]) -> list[str]:
    """What users said in these turns."""
    items = [item for turn in turns for item in turn["items"] if item["type"] == "userMessage"]
    return [item["content"][0]["text"] for item in items]


async def rows(client: SimulatedClient, thread_id: str) -> list[Json]:
    found: list[Json] = (await client.call("thread/queue/list", threadId=thread_id))["data"]
    return found


@pytest.mark.parametrize("power", [False, True], ids=["killed", "power lost"])
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("point", NAMES)
def test_a_crash_at_any_point_leaves_each_queued_message_in_one_place(
    point: str, seed: int, power: bool
) -> None:
    async def scenario(world: World) -> None:
        daemon = world.daemon
        alice = await world.client("alice")
        thread = await alice.start_thread()
        await alice.turn_ended(await alice.start_turn(thread, "say first"))
        if point in OF_A_RESTART:
            daemon.disk.crash_at("after COMMIT", 1, power=power)  # of the claim
        else:
            daemon.disk.crash_at(point, seed, power=power)
        added = []
        try:
            for number in range(6):
                await alice.call("thread/queue/add", **queued(thread, f"say {number}"))
                added.append(f"say {number}")
            await daemon.settled()
            await alice.call("thread/name/set", threadId=thread, name="a name")
        except ConnectionLost:
            pass
        await daemon.ended()
        if point in OF_A_RESTART:
            daemon.disk.crash_at(point, power=power)
            await daemon.restart()
            await alice.connect()
            with pytest.raises(ConnectionLost):
                await alice.call("thread/resume", threadId=thread)
            await daemon.ended()
        assert daemon.disk.points[point] > 0
        await daemon.restart()
        await alice.connect()
        await alice.call("thread/resume", threadId=thread)
        await daemon.settled()
        read = await alice.call("thread/read", threadId=thread, includeTurns=True)
        shown = read["thread"]["turns"]
        waiting = [row["turnStartParams"]["input"][0]["text"] for row in await rows(alice, thread)]
        ran = messages(shown)[1:]
        for text in added:
            assert (waiting + ran).count(text) == 1, f"{text}: {waiting} {ran}"
        assert shown[0]["status"] == "completed"
        assert messages(shown)[0] == "say first"

    simulate(scenario, seed)


@pytest.mark.parametrize("seed", range(4))
def test_what_was_flushed_survives_the_loss_of_power_and_what_was_not_may_go(seed: int) -> None:
    async def scenario(world: World) -> None:
        alice = await world.client("alice")
        thread = await alice.start_thread()
        await alice.turn_ended(await alice.start_turn(thread, "say one two three"))
        [path] = world.daemon.home.rglob("rollout-*.jsonl")
        flushed = path.read_bytes()
        await alice.start_turn(thread, "hold gate four five")
        await world.model.held("gate")
        await world.daemon.settled()
        written = path.read_bytes()
        await world.daemon.crash(power=True)
        await world.daemon.restart()
        left = path.read_bytes()
        assert left.startswith(flushed)
        assert written.startswith(left.rstrip(b"\0"))

    simulate(scenario, seed)


@pytest.mark.parametrize("seed", range(4))
def test_what_a_killed_daemon_had_not_flushed_is_on_the_disk_when_the_next_one_has_read_it(seed: int) -> None:
    async def scenario(world: World) -> None:
        daemon = world.daemon
        alice = await world.client("alice")
        thread = await alice.start_thread()
        await alice.turn_ended(await alice.start_turn(thread, "say one"))
        await alice.start_turn(thread, "hold gate two three")
        await world.model.held("gate")
        await daemon.settled()
        [path] = daemon.home.rglob("rollout-*.jsonl")
        written = path.read_bytes()
        await daemon.crash()
        await daemon.restart()
        await alice.connect()
        await alice.call("thread/list")
        await daemon.crash(power=True)
        await daemon.restart()
        assert path.read_bytes() == written

    simulate(scenario, seed)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("what", ["archive", "unarchive", "delete", "fork"])
def test_what_a_client_was_told_of_a_thread_is_so_after_the_loss_of_power(what: str, seed: int) -> None:
    async def scenario(world: World) -> None:
        alice = await world.client("alice")
        threads = {False: set[str](), True: set[str]()}
        thread = await alice.start_thread()
        await alice.turn_ended(await alice.start_turn(thread, "say one"))
        if what == "unarchive":
            await alice.call("thread/archive", threadId=thread)
        told = await alice.call(f"thread/{what}", threadId=thread)
        await world.daemon.crash(power=True)
        await world.daemon.restart()
        await alice.connect()
        if what != "delete":
            threads[what == "archive"].add(thread)
        if what == "fork":
            threads[False].add(told["thread"]["id"])
        for archived, expected in threads.items():
            listed = (await alice.call("thread/list", archived=archived))["data"]
            assert {each["id"] for each in listed} == expected

    simulate(scenario, seed)


def test_a_killed_daemon_leaves_everything_it_has_written_and_says_nothing_more() -> None:
    async def scenario(world: World) -> None:
        alice = await world.client("alice")
        thread = await alice.start_thread()
        turn = alice.send("turn/start", threadId=thread, input=[{"type": "text", "text": "say one"}])
        world.daemon.disk.crash_at("after COMMIT")
        with pytest.raises(ConnectionLost):
            await turn.result()
        await world.daemon.ended()
        heard = len(alice.log)
        [path] = world.daemon.home.with_name("home.kept").rglob("rollout-*.jsonl")
        kinds = [json.loads(line)["payload"].get("type") for line in path.read_text().splitlines()]
        assert "task_started" in kinds
        with pytest.raises(ConnectionRefusedError):
            await alice.connect()
        await world.daemon.restart()
        assert len(alice.log) == heard
        assert alice.closed == (1006, "the process is gone")

    simulate(scenario, 3)


@pytest.mark.parametrize("what", ["append", "half an append", "flush", "commit"])
def test_a_failing_disk_fails_one_request_and_the_next_one_works(what: Any) -> None:
    async def scenario(world: World) -> None:
        alice = await world.client("alice")
        thread = await alice.start_thread()
        await alice.turn_ended(await alice.start_turn(thread, "say one"))
        world.daemon.disk.fail(what, times=2)
        if what == "commit":
            with pytest.raises(RpcFailed, match="disk I/O error"):
                await alice.call("thread/queue/add", **queued(thread, "say no"))
        elif what == "flush":
            turn = await alice.turn_ended(await alice.start_turn(thread, "say two"))
            assert turn["status"] == "failed"
        else:
            with pytest.raises(RpcFailed) as told:
                await alice.start_turn(thread, "say two")
            assert str(errno.ENOSPC) in told.value.message or "No space" in told.value.message
        world.daemon.disk.heal()
        turn = await alice.turn_ended(await alice.start_turn(thread, "say three"))
        assert turn["status"] == "completed"
        assert world.complaints == []

    simulate(scenario, 5)


def test_a_slow_disk_delays_the_answer_and_not_the_other_clients() -> None:
    async def scenario(world: World) -> None:
        alice, bob = await world.client("alice"), await world.client("bob")
        thread = await alice.start_thread()
        world.daemon.disk.slowness = 60.0
        begun = trio.current_time()
        turn = alice.send("turn/start", threadId=thread, input=[{"type": "text", "text": "say one"}])
        await bob.call("thread/loaded/list")
        assert trio.current_time() == begun
        await turn.result()
        assert trio.current_time() > begun

    simulate(scenario, 2)


def test_others_go_on_between_an_append_and_its_commit() -> None:
    async def scenario(world: World) -> None:
        alice, bob = await world.client("alice"), await world.client("bob")
        thread = await alice.start_thread()
        await alice.turn_ended(await alice.start_turn(thread, "say one"))
        [path] = world.daemon.home.rglob("rollout-*.jsonl")
        size, points = path.stat().st_size, dict(world.daemon.disk.points)
        world.daemon.disk.slowness = 60.0
        turn = alice.send("turn/start", threadId=thread, input=[{"type": "text", "text": "say two"}])
        for _ in range(600):
            await trio.sleep(0.1)
            if path.stat().st_size > size:
                break
        assert world.daemon.disk.points["before COMMIT"] == points["before COMMIT"]
        read = await bob.call("thread/read", threadId=thread, includeTurns=True)
        assert read["thread"]["turns"][0]["status"] == "completed"
        assert (await turn.result())["turn"]["status"] == "inProgress"

    simulate(scenario, 4)


def test_half_an_hour_without_anybody_passes_at_once_and_unloads_the_thread() -> None:
    async def scenario(world: World) -> None:
        alice = await world.client("alice")
        thread = await alice.start_thread()
        await alice.turn_ended(await alice.start_turn(thread, "say one"))
        await alice.call("thread/unsubscribe", threadId=thread)
        await alice.notification("thread/closed", threadId=thread)
        assert (await alice.call("thread/loaded/list"))["data"] == []
        assert 1800 <= trio.current_time() < 1900

    simulate(scenario, 1)


def test_a_client_that_does_not_read_is_disconnected_and_the_others_are_not() -> None:
    async def scenario(world: World) -> None:
        alice, bob = await world.client("alice"), await world.client("bob")
        thread = await alice.start_thread()
        await bob.call("thread/resume", threadId=thread)
        bob.stop_reading()
        for _ in range(8):
            turn = await alice.turn_ended(await alice.start_turn(thread, "burst 50 400"))
            assert turn["status"] == "completed"
        await trio.sleep(20)
        bob.go_on_reading()
        with pytest.raises(ConnectionLost):
            await bob.wait_for(lambda each: False)
        assert bob.closed is not None
        assert bob.closed[0] == 4008
        assert alice.connected

    simulate(scenario, 1, settings=["spoold.outbox_bytes=100000"])


def test_a_client_that_is_slow_for_a_moment_gets_fewer_deltas_in_a_world_that_says_so() -> None:
    deltas = []

    async def scenario(world: World) -> None:
        alice = await world.client("alice")
        thread = await alice.start_thread()
        text = "some words " * 20
        turn = await alice.start_turn(thread, f"deltas 50 {text}")
        await alice.turn_ended(turn)
        assert alice.threads[thread].text(turn) == text.strip()
        deltas.append(sum(each.get("method") == "item/agentMessage/delta" for each in alice.log))

    World(1).run(scenario)
    World(1, merge_above=500).run(scenario)
    assert deltas[0] == 50 > deltas[1]


def test_a_command_that_is_interrupted_and_one_that_runs_out_of_time_end_as_killed_processes_do() -> None:
    async def scenario(world: World) -> None:
        alice = await world.client("alice")
        thread = await alice.start_thread(approvalPolicy="never", sandbox="danger-full-access")
        world.model.script('call exec_command {"cmd": "echo on; hold ever", "timeout_ms": 2000}')
        turn = await alice.turn_ended(await alice.start_turn(thread, "go"))
        item = next(
            each["params"]["item"]
            for each in alice.log
            if each.get("method") == "item/completed" and each["params"]["item"]["type"] == "commandExecution"
        )
        assert (turn["status"], item["exitCode"]) == ("completed", 124)
        assert item["aggregatedOutput"] == "on\n"
        assert world.commands.started == ["echo on; hold ever"]

    simulate(scenario, 1)


def test_a_failure_says_how_to_replay_it_and_what_happened_last() -> None:
    async def scenario(world: World) -> None:
        await world.client("alice")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as failed:
        simulate(scenario, 77)
    notes = "\n".join(failed.value.__notes__)
    assert "seed=77" in notes
    assert 'alice > {"id":1,"method":"initialize"' in notes


def test_a_failure_keeps_its_cause() -> None:
    async def scenario(world: World) -> None:
        try:
            raise ZeroDivisionError
        except ZeroDivisionError as error:
            raise AssertionError("a rule") from error

    with pytest.raises(AssertionError) as failed:
        simulate(scenario, 1)
    assert isinstance(failed.value.__cause__, ZeroDivisionError)


def test_of_several_failures_a_broken_rule_is_told_first_and_the_others_are_not_kept_quiet() -> None:
    async def scenario(world: World) -> None:
        async with trio.open_nursery() as nursery:
            for error in (ZeroDivisionError("early"), AssertionError("a rule"), AssertionError("a rule")):
                nursery.start_soon(raises, error)

    async def raises(error: Exception) -> None:
        raise error

    with pytest.raises(AssertionError, match="a rule") as failed:
        simulate(scenario, 1)
    notes = "\n".join(failed.value.__notes__)
    assert "beside it: ZeroDivisionError('early')" in notes
    assert "beside it: AssertionError('a rule')" in notes
