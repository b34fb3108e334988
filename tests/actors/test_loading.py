"""Loading and unloading: one actor, one load; an idle thread leaves, and no message is lost on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from protocol.errors import InvalidRequest, Overloaded, RpcError
from tests.actors.stage import LIMIT, Stage, opened
from tests.support.in_memory import RecordingPeer

DELAY = 30 * 60


@pytest.fixture
def mock_clock() -> MockClock:
    """Stands still unless moved; a test that waits for nothing is brought to its limit after 10 s."""
    return MockClock(autojump_threshold=10)


async def stored(stage: Stage, turns: int = 1) -> str:
    """A thread that is on disk and not loaded."""
    peer = stage.peer()
    thread_id = await stage.start(peer)
    for _ in range(turns):
        await stage.whole_turn(peer, thread_id)
    actor = stage.actor(thread_id)
    stage.shut_down(thread_id)
    await actor.finished.wait()
    stage.supervisor.peer_gone(peer)
    return thread_id


async def test_resumes_at_the_same_time_share_one_actor_and_one_load(stage: Stage) -> None:
    thread_id = await stored(stage)
    peers = [stage.peer() for _ in range(5)]
    runners = len(stage.runners)
    replies = [stage.resume(peer, thread_id) for peer in peers]
    results = [await reply.answer() for reply in replies]
    assert (stage.store.loads, len(stage.runners)) == (1, runners + 1)
    assert all(result["thread"] == results[0]["thread"] for result in results)
    state = stage.actor(thread_id).state
    assert state is not None
    assert sorted(state.subscribers) == [peer.id for peer in peers]
    assert len(peers[0].params("thread/status/changed")) == 1


async def test_what_follows_a_resume_waits_for_the_load(stage: Stage) -> None:
    thread_id = await stored(stage)
    peer = stage.peer()
    resumed, turn = stage.resume(peer, thread_id), stage.turn(peer, thread_id)
    await resumed.answer()
    assert (await turn.answer())["turn"]["status"] == "inProgress"
    puppet = await stage.runners[-1].turn()
    assert len(puppet.job.context) == 1, "the context of the first turn"


async def test_a_thread_nobody_knows_is_refused_to_each_and_leaves_nothing(stage: Stage) -> None:
    thread_id = "0190aaaa-0000-7000-8000-000000000001"
    replies = [stage.resume(stage.peer(), thread_id) for _ in range(3)]
    for reply in replies:
        with pytest.raises(RpcError, match=f"no rollout found for thread id {thread_id}"):
            await reply.answer()
    assert stage.supervisor.loaded(thread_id) is None
    with pytest.raises(RpcError, match="thread not found"):
        await stage.turn(stage.peer(), thread_id).answer()


async def test_a_wrong_resume_does_not_spoil_the_one_behind_it(stage: Stage) -> None:
    thread_id = await stored(stage)
    peer = stage.peer()
    wrong = stage.resume(peer, thread_id, path="/nowhere")
    also_wrong = stage.resume(peer, thread_id, modelProvider="nobody")
    right = stage.resume(peer, thread_id)
    with pytest.raises(InvalidRequest, match="/nowhere"):
        await wrong.answer()
    with pytest.raises(InvalidRequest, match="nobody"):
        await also_wrong.answer()
    assert (await right.answer())["thread"]["id"] == thread_id


async def test_a_request_behind_a_load_that_fails_hears_that_no_such_thread_is_loaded(stage: Stage) -> None:
    thread_id = await stored(stage)
    peer = stage.peer()
    wrong, turn = stage.resume(peer, thread_id, path="/nowhere"), stage.turn(peer, thread_id)
    with pytest.raises(InvalidRequest, match="/nowhere"):
        await wrong.answer()
    with pytest.raises(InvalidRequest, match="thread not found"):
        await turn.answer()


# -- unloading ----------------------------------------------------------------------------------------------


def closed(peer: RecordingPeer) -> list[str]:
    return [
        entry["method"] + (":" + entry["params"]["status"]["type"] if "status" in entry["params"] else "")
        for entry in peer.log
        if entry.get("method") in {"thread/status/changed", "thread/closed"}
    ]


async def test_an_idle_thread_without_a_watcher_is_unloaded_after_the_delay(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with opened(tmp_path, f"thread_unload_delay_secs={DELAY}", limit=1000 * DELAY) as stage:
        owner, other = stage.peer(), stage.peer()
        thread_id = await stage.start(owner)
        await stage.whole_turn(owner, thread_id)
        mock_clock.jump(10 * DELAY)
        await trio.testing.wait_all_tasks_blocked()
        assert stage.supervisor.loaded(thread_id) is not None, "somebody watches"

        stage.supervisor.peer_gone(owner)
        await stage.handled(thread_id)
        other.log.clear()
        mock_clock.jump(DELAY - 1)
        await stage.handled(thread_id)
        mock_clock.jump(DELAY - 1)
        await trio.testing.wait_all_tasks_blocked()
        assert closed(other) == [], "the read in between was activity"
        actor = stage.actor(thread_id)
        mock_clock.jump(1)
        await actor.finished.wait()
        assert closed(other) == ["thread/status/changed:notLoaded", "thread/closed"]
        assert stage.supervisor.loaded_ids() == []

        other.log.clear()
        await stage.resume(other, thread_id).answer()
        assert closed(other) == ["thread/status/changed:idle"]


async def test_a_running_turn_keeps_a_thread_that_nobody_watches(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with opened(tmp_path, f"thread_unload_delay_secs={DELAY}", limit=1000 * DELAY) as stage:
        owner, other = stage.peer(), stage.peer()
        thread_id = await stage.start(owner)
        _, turn = await stage.begin(owner, thread_id)
        stage.supervisor.peer_gone(owner)
        await stage.handled(thread_id)
        mock_clock.jump(10 * DELAY)
        await trio.testing.wait_all_tasks_blocked()
        actor = stage.actor(thread_id)
        assert not turn.cancelled
        turn.end()
        await other.until(lambda _: "thread/status/changed:idle" in closed(other))
        await stage.handled(thread_id)
        mock_clock.jump(DELAY)
        await actor.finished.wait()
        assert closed(other)[-2:] == ["thread/status/changed:notLoaded", "thread/closed"]


async def test_a_message_that_comes_at_the_deadline_is_answered(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with opened(tmp_path, f"thread_unload_delay_secs={DELAY}", limit=1000 * DELAY) as stage:
        owner = stage.peer()
        thread_id = await stage.start(owner)
        await stage.whole_turn(owner, thread_id)
        for first in ("message", "deadline"):
            await stage.unsubscribe(owner, thread_id).answer()
            await stage.handled(thread_id)
            # Both happen before the actor's task runs again, in either order.
            if first == "deadline":
                mock_clock.jump(DELAY)
            resumed = stage.resume(owner, thread_id)
            if first == "message":
                mock_clock.jump(DELAY)
            await resumed.answer()
            await stage.whole_turn(owner, thread_id)


async def test_a_resume_right_behind_the_unloading_makes_the_next_incarnation(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with opened(tmp_path, f"thread_unload_delay_secs={DELAY}", limit=1000 * DELAY) as stage:
        owner = stage.peer()
        thread_id = await stage.start(owner)
        await stage.whole_turn(owner, thread_id)
        old = stage.actor(thread_id)
        await stage.unsubscribe(owner, thread_id).answer()
        await stage.handled(thread_id)
        mock_clock.jump(DELAY)
        # As soon as the client hears of the end it asks again: the old task may not have finished yet.
        await owner.got("thread/closed")
        await stage.resume(owner, thread_id).answer()
        assert stage.actor(thread_id) is not old
        assert old.finished.is_set()
        await stage.whole_turn(owner, thread_id)
        seqs = [entry["seq"] for entry in owner.log if "seq" in entry]
        assert seqs == sorted(set(seqs)), "a number never means two things in one epoch"


async def test_the_next_incarnation_reads_the_disk_only_when_the_old_one_has_finished(stage: Stage) -> None:
    peer = stage.peer()
    thread_id = await stage.start(peer)
    await stage.whole_turn(peer, thread_id)
    old, may_end = stage.actor(thread_id), trio.Event()

    async def lingers() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(LIMIT, shield=True):
                await may_end.wait()

    nursery = stage.runners[0].bound
    assert nursery is not None
    nursery.start_soon(lingers)
    try:
        stage.shut_down(thread_id)
        await trio.testing.wait_all_tasks_blocked()
        assert stage.supervisor.loaded(thread_id) is None
        reply = stage.resume(peer, thread_id)
        await trio.testing.wait_all_tasks_blocked()
        assert (stage.store.loads, old.finished.is_set()) == (0, False)
    finally:
        may_end.set()
    assert (await reply.answer())["thread"]["id"] == thread_id
    assert old.finished.is_set()


async def test_a_fresh_thread_vanishes_entirely(tmp_path: Path, mock_clock: MockClock) -> None:
    async with opened(tmp_path, f"thread_unload_delay_secs={DELAY}", limit=1000 * DELAY) as stage:
        owner = stage.peer()
        thread_id = await stage.start(owner)
        actor = stage.actor(thread_id)
        await stage.unsubscribe(owner, thread_id).answer()
        await stage.handled(thread_id)
        mock_clock.jump(DELAY)
        await actor.finished.wait()
        with pytest.raises(RpcError, match="no rollout found"):
            await stage.resume(owner, thread_id).answer()
        assert not list(stage.home.sessions.rglob("*"))


# -- the mailbox --------------------------------------------------------------------------------------------


async def test_a_full_mailbox_refuses_at_once_and_everybody_gets_one_answer(tmp_path: Path) -> None:
    async with opened(tmp_path, "spoold.mailbox_length=8") as stage:
        peer = stage.peer()
        thread_id = await stage.start(peer)
        await stage.whole_turn(peer, thread_id)
        # Nothing runs between these calls, so the actor takes none of them.
        replies = [stage.read(peer, thread_id, turns=True) for _ in range(50)]
        refused = [reply for reply in replies if isinstance(reply.failure, Overloaded)]
        assert len(refused) == 42
        for reply in replies:
            if reply not in refused:
                assert (await reply.answer())["thread"]["id"] == thread_id
        assert refused[0].failure is not None
        assert refused[0].failure.to_wire() == {
            "code": -32001,
            "message": "Server overloaded; retry later.",
        }
        await stage.read(peer, thread_id).answer()


async def test_the_daemon_itself_is_never_refused_by_a_full_mailbox(tmp_path: Path) -> None:
    async with opened(tmp_path, "spoold.mailbox_length=4") as stage:
        peer = stage.peer()
        thread_id = await stage.start(peer, ephemeral=True)
        _, turn = await stage.begin(peer, thread_id)
        reads = [stage.read(peer, thread_id) for _ in range(4)]
        turn.end()
        stage.supervisor.peer_gone(peer)
        for reply in reads:
            await reply.answer()
        await stage.handled(thread_id)
        state = stage.actor(thread_id).state
        assert state is not None
        assert not state.subscribers
