"""What breaks stays where it broke: a turn, a thread, a disk; everybody who waits is answered."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import trio

from actors.messages import TurnPosted
from agent.events import ContextAppended, ItemCompleted, ItemStarted
from persistence.writer import Batch
from protocol.errors import InternalError, RpcError
from protocol.items import AgentMessageItem
from tests.actors.stage import Stage, opened, raw_message, says
from tests.support.in_memory import RecordingPeer


def poisoned(turn_id: str) -> TurnPosted:
    """An event whose step breaks in the middle of the decision."""
    return TurnPosted(turn_id, ItemCompleted(item=None))  # type: ignore[arg-type]


def ends_in(batch: Batch, *kinds: str) -> bool:
    return any(line.payload.get("type") in kinds for line in batch.lines)


async def test_an_exception_in_a_turn_fails_that_turn_and_nothing_else(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    peer = stage.peer()
    thread_id = await stage.start(peer)
    _, turn = await stage.begin(peer, thread_id)
    turn.end(ZeroDivisionError("secret detail"))
    ended = await peer.got("turn/completed")
    assert ended["turn"]["status"] == "failed"
    assert "secret" not in ended["turn"]["error"]["message"]
    assert "ZeroDivisionError" in caplog.text, "it is logged with its traceback"
    order = [name for name in peer.methods() if name in {"error", "turn/completed", "thread/status/changed"}]
    assert order[-3:] == ["thread/status/changed", "error", "turn/completed"]
    assert peer.params("thread/status/changed")[-1]["status"] == {"type": "systemError"}
    await stage.whole_turn(peer, thread_id)
    assert peer.params("thread/status/changed")[-1]["status"] == {"type": "idle"}


async def test_a_broken_actor_answers_everybody_ends_its_turn_and_leaves_the_others_alone(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    peer, other = stage.peer(), stage.peer()
    thread_id, healthy = await stage.start(peer), await stage.start(other)
    turn_id, turn = await stage.begin(peer, thread_id)
    actor = stage.actor(thread_id)
    actor.mailbox.put_always(poisoned(turn_id))
    waiting = [
        stage.read(other, thread_id),
        stage.turn(other, thread_id),
        stage.interrupt(other, thread_id, turn_id),
        stage.unsubscribe(other, thread_id),
        stage.resume(other, thread_id),
    ]
    for reply in waiting:
        with pytest.raises(InternalError, match="failed; resume it to go on"):
            await reply.answer()
    await actor.finished.wait()
    assert turn.cancelled
    assert "Traceback" in caplog.text
    assert peer.params("turn/completed")[0]["turn"]["status"] == "failed"
    assert [params["status"]["type"] for params in other.params("thread/status/changed")][-1] == "systemError"
    assert other.methods()[-1] == "thread/closed"
    await stage.whole_turn(other, healthy)

    result = await stage.resume(peer, thread_id).answer()
    assert [each["status"] for each in result["thread"]["turns"]] == ["failed"]
    await stage.whole_turn(peer, thread_id)


async def test_the_request_whose_own_step_breaks_is_answered_too(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(*_: object) -> None:
        raise ZeroDivisionError

    peer = stage.peer()
    for module, request in (("turns.start", "turn"), ("turns.steer", "steer"), ("attach.read", "read")):
        thread_id = await stage.start(peer)
        with monkeypatch.context() as patched:
            patched.setattr(f"actors.{module}", breaks)
            sent: Any = {
                "turn": lambda thread_id=thread_id: stage.turn(peer, thread_id),
                "steer": lambda thread_id=thread_id: stage.steer(peer, thread_id, "x"),
                "read": lambda thread_id=thread_id: stage.read(peer, thread_id),
            }[request]
            with pytest.raises(InternalError):
                await sent().answer()
        await peer.until(lambda log: log[-1].get("method") == "thread/closed")
        assert stage.supervisor.loaded(thread_id) is None


async def test_a_turn_that_cannot_begin_on_disk_is_refused_and_nobody_hears_of_it(stage: Stage) -> None:
    peer = stage.peer()
    thread_id = await stage.start(peer)
    stage.store.broken = lambda _: True
    peer.log.clear()
    with pytest.raises(InternalError, match="the disk is full"):
        await stage.turn(peer, thread_id).answer()
    await stage.handled(thread_id)
    assert peer.methods() == ["error"]
    assert stage.lines(thread_id) == []
    assert stage.runners[0].turns == []
    stage.store.broken = None
    await stage.whole_turn(peer, thread_id)


@pytest.mark.parametrize("lasting", [True, False])
async def test_a_turn_that_cannot_be_recorded_ends_as_failed_and_shows_nothing_of_what_is_lost(
    stage: Stage, lasting: bool, caplog: pytest.LogCaptureFixture
) -> None:
    peer = stage.peer()
    thread_id = await stage.start(peer)
    turn_id, turn = await stage.begin(peer, thread_id)
    await turn.post(ItemStarted(AgentMessageItem(id="m", started_at_ms=1)))
    stage.store.broken = lambda batch: lasting or ends_in(batch, "item_completed")
    lost = AgentMessageItem(id="m", text="lost", started_at_ms=1, completed_at_ms=1)
    await turn.post(ItemCompleted(lost, context=(raw_message("lost"),)))
    ended = await peer.got("turn/completed")
    assert (ended["turn"]["id"], ended["turn"]["status"]) == (turn_id, "failed")
    assert "could not be recorded: the disk is full" in ended["turn"]["error"]["message"]
    await turn.ended.wait()
    assert turn.cancelled
    assert peer.params("item/completed") == []
    assert stage.terminal_lines(thread_id) == ([] if lasting else [turn_id])
    stage.store.broken = None
    _, after = await stage.begin(peer, thread_id)
    assert after.job.context == [], "what was not recorded is not in the model's context"


async def test_an_interrupt_that_cannot_be_recorded_has_one_answer_and_the_turn_one_end(stage: Stage) -> None:
    peer = stage.peer()
    thread_id = await stage.start(peer)
    turn_id, _ = await stage.begin(peer, thread_id)
    stage.store.broken = lambda batch: ends_in(batch, "turn_aborted")
    with pytest.raises(InternalError, match="the disk is full"):
        await stage.interrupt(peer, thread_id, turn_id).answer()
    await stage.handled(thread_id)
    assert [params["turn"]["status"] for params in peer.params("turn/completed")] == ["failed"]
    assert stage.terminal_lines(thread_id) == [turn_id]


async def test_a_full_disk_does_not_keep_the_daemon_from_ending(stage: Stage) -> None:
    peer = stage.peer()
    thread_id = await stage.start(peer)
    turn_id, turn = await stage.begin(peer, thread_id)
    stage.store.broken = lambda _: True
    await stage.supervisor.stop()
    assert turn.cancelled
    assert [params["turn"]["id"] for params in peer.params("turn/completed")] == [turn_id]


async def test_context_that_cannot_be_recorded_does_not_grow(stage: Stage) -> None:
    peer = stage.peer()
    thread_id = await stage.start(peer)
    _, turn = await stage.begin(peer, thread_id)
    await says(turn, "m1", "kept")
    await stage.handled(thread_id)
    stage.store.broken = lambda _: True
    await turn.post(ContextAppended((raw_message("lost"),)))
    await peer.got("turn/completed")
    stage.store.broken = None
    _, after = await stage.begin(peer, thread_id)
    assert after.job.context == [raw_message("kept")]


async def test_an_ephemeral_thread_touches_no_disk(stage: Stage) -> None:
    peer, other = stage.peer(), stage.peer()
    before = sorted(stage.home.root.rglob("*"))
    stage.store.broken = lambda _: True
    thread_id = await stage.start(peer, ephemeral=True)
    for _ in range(2):
        await stage.whole_turn(peer, thread_id)
    turn_id, turn = await stage.begin(peer, thread_id)
    assert turn.job.context == [raw_message("hi")] * 2
    await stage.interrupt(peer, thread_id, turn_id).answer()
    with pytest.raises(RpcError, match="no rollout found"):
        await stage.resume(other, thread_id).answer()
    with pytest.raises(RpcError, match="ephemeral threads do not support includeTurns"):
        await stage.read(other, thread_id, turns=True).answer()
    stage.shut_down(thread_id)
    await stage.actor(thread_id).finished.wait()
    assert sorted(stage.home.root.rglob("*")) == before


# -- the end of the daemon ----------------------------------------------------------------------------------


async def test_a_draining_daemon_finishes_its_turns_and_takes_no_new_ones(stage: Stage) -> None:
    peer = stage.peer()
    busy, idle = await stage.start(peer), await stage.start(peer)
    turn_id, turn = await stage.begin(peer, busy)
    stage.supervisor.begin_drain()
    refused = [
        stage.turn(peer, idle), stage.turn(peer, busy), stage.steer(peer, busy, turn_id),
        stage.resume(peer, busy),
    ]  # fmt: skip
    for reply in refused:
        with pytest.raises(RpcError) as caught:
            await reply.answer()
        assert caught.value.data == {"reason": "serverShuttingDown"}
    with pytest.raises(RpcError, match="draining"):
        await stage.start(peer)
    assert (await stage.read(peer, busy).answer())["thread"]["status"]["type"] == "active"
    with trio.move_on_after(0) as waiting:
        await stage.supervisor.drained()
    assert waiting.cancelled_caught, "a turn still runs"
    await says(turn, "m", "done")
    turn.end()
    await stage.supervisor.drained()
    assert peer.params("turn/completed")[0]["turn"]["items"][0]["text"] == "done"


async def test_stopping_interrupts_what_runs_and_answers_what_waits(stage: Stage) -> None:
    peer = stage.peer()
    threads = [await stage.start(peer) for _ in range(3)]
    turns = [await stage.begin(peer, thread_id) for thread_id in threads]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.supervisor.stop)
        await trio.lowlevel.checkpoint()
        late = [stage.read(peer, thread_id) for thread_id in threads]
    for reply in late:
        assert reply._done.is_set(), "a request behind the end was never answered"
    ended = [params["turn"] for params in peer.params("turn/completed")]
    assert sorted(turn["id"] for turn in ended) == sorted(turn_id for turn_id, _ in turns)
    assert {turn["status"] for turn in ended} == {"interrupted"}
    assert stage.supervisor.loaded_ids() == []
    for thread_id, (turn_id, _) in zip(threads, turns, strict=True):
        assert stage.terminal_lines(thread_id) == [turn_id]


async def test_stopping_while_a_thread_loads_ends_too(tmp_path: Path) -> None:
    async with opened(tmp_path) as stage:
        peer = stage.peer()
        thread_id = await stage.start(peer)
        await stage.whole_turn(peer, thread_id)
        stage.shut_down(thread_id)
        await stage.actor(thread_id).finished.wait()
        reply = stage.resume(RecordingPeer(99), thread_id)
        await stage.supervisor.stop()
        assert reply._done.is_set()


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
