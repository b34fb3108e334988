"""The queue of a thread: adding, listing, changing, and how its rows become turns."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
import trio.testing

from actors.archiving import Archive, Delete, Unarchive
from actors.effects import Decision
from actors.naming import SetName
from actors.queue_claims import message_recorded
from actors.queue_rows import Queue
from agent.events import Submission
from agent.prompt import completed_message
from persistence.queue import INTERRUPTED, QueuedTurn
from persistence.store import Batch
from protocol.errors import RpcError
from protocol.user_input import MAX_INPUT_CHARS, TextInput
from tests.actors.acts_stage import takes
from tests.actors.queue_stage import End, QueueScene, row_of, texts
from tests.actors.stage import Stage, opened, text_input
from tests.actors.test_turn_slot import TURN, state_in
from tests.persistence.sessions import uuid_of

ROW = uuid_of(0xB01)


@pytest.fixture
async def scene(stage: Stage) -> QueueScene:
    return QueueScene(stage)


async def asleep(scene: QueueScene) -> str:
    """A thread that is not loaded."""
    thread_id = await scene.stage.start(scene.owner)
    await scene.whole_turn(scene.owner, thread_id)
    await scene.unload(thread_id)
    scene.mark()
    scene._met += scene.stage.runners[-1].turns
    return thread_id


async def test_an_add_to_an_idle_thread_is_answered_and_shown_before_it_becomes_a_turn(
    scene: QueueScene,
) -> None:
    thread_id = await scene.stage.start(scene.owner)
    scene.mark()
    answer = await scene.add(thread_id, "one").answer()
    assert answer["queuedTurn"]["status"] == {"type": "pending"}
    assert "turnId" not in answer
    turn = await scene.next_turn(thread_id)
    changed = "thread/queue/changed"
    assert scene.news(scene.owner) == ["result", changed, changed, "status active", "turn/started"]
    notes = scene.owner.params(changed)
    assert [(texts(note["queuedTurns"]), note["total"]) for note in notes] == [(["one"], 1), ([], 0)]
    await takes(turn)
    await scene.stage.handled(thread_id)
    await scene.same_on_disk(thread_id)
    assert await scene.said(thread_id) == ["one"]


async def test_an_ephemeral_thread_has_no_queue(scene: QueueScene) -> None:
    thread_id = await scene.stage.start(scene.owner, ephemeral=True)
    with pytest.raises(RpcError, match=f"ephemeral thread does not support queued turns: {thread_id}"):
        await scene.add(thread_id, "one").answer()
    with pytest.raises(RpcError, match="ephemeral thread does not support queued submissions"):
        await scene.submit(thread_id, "one", "c1").answer()


async def test_a_busy_thread_lists_its_queue_in_pages(scene: QueueScene) -> None:
    thread_id, _ = await scene.busy()
    said = [f"row {number}" for number in range(30)]
    await scene.fill(thread_id, *said)
    first = await scene.page(thread_id).answer()
    assert (texts(first["data"]), first["nextCursor"]) == (said[:25], "25")
    rest = await scene.page(thread_id, cursor="25").answer()
    assert (texts(rest["data"]), rest["nextCursor"]) == (said[25:], None)
    few = await scene.page(thread_id, cursor="28", limit=2).answer()
    assert (texts(few["data"]), few["nextCursor"]) == (said[28:], None)
    assert (await scene.page(thread_id, cursor="99").answer())["data"] == []


async def test_rows_can_be_reordered_and_deleted_while_a_turn_runs(scene: QueueScene) -> None:
    thread_id, turn = await scene.busy()
    one, two, three = await scene.fill(thread_id, "one", "two", "three")
    answer = await scene.reorder(thread_id, [three, one, two]).answer()
    assert texts(answer["queuedTurns"]) == ["three", "one", "two"]
    assert await scene.reorder(thread_id, [three, two, one], submissions=True).answer() == {}
    assert await scene.delete(thread_id, two).answer() == {"deleted": True}
    assert await scene.delete(thread_id, two).answer() == {"deleted": False}
    await scene.same_on_disk(thread_id)
    assert texts(scene.owner.params("thread/queue/changed")[-1]["queuedTurns"]) == ["three", "one"]
    await scene.end(thread_id, turn, taken=True)
    for _ in range(2):
        await scene.end(thread_id, await scene.next_turn(thread_id))
    assert await scene.said(thread_id) == ["direct", "three", "one"]


async def test_rows_run_one_after_another_and_only_when_a_direct_turn_is_over(scene: QueueScene) -> None:
    thread_id = await scene.stage.start(scene.owner)
    # Both are in the mailbox before the thread has done anything.
    begun = scene.stage.turn(scene.owner, thread_id, "direct")
    added = scene.add(thread_id, "one")
    await begun.answer()
    await added.answer()
    await scene.fill(thread_id, "two")
    for expected in ("direct", "one", "two"):
        turn = await scene.next_turn(thread_id)
        assert [part.text for part in turn.job.submissions[0].input] == [expected]  # type: ignore[union-attr]
        await takes(turn)
        await scene.stage.handled(thread_id)
        await scene.same_on_disk(thread_id)
        await scene.end(thread_id, turn, taken=True)
    assert await scene.said(thread_id) == ["direct", "one", "two"]
    assert len(scene.owner.params("turn/started")) == 3


async def test_of_several_who_start_a_row_at_once_one_wins_and_it_runs_once(scene: QueueScene) -> None:
    thread_id = await asleep(scene)
    await scene.store_row(thread_id, row_of(thread_id, ROW, 1, "one"))
    await scene.stage.resume(scene.owner, thread_id).answer()
    # The drain that the resume has caused is one more.
    replies = [scene.go_on(thread_id, ROW), scene.go_on(thread_id), scene.go_on(thread_id, ROW)]
    for reply in replies:
        with contextlib.suppress(RpcError):
            await reply.answer()
    await scene.end(thread_id, await scene.next_turn(thread_id))
    started = [note["turn"]["id"] for note in scene.owner.params("turn/started")]
    assert len(started) == len(set(started)) == 2, "the turn that the thread had, and one of the row"
    assert (await scene.said(thread_id)).count("one") == 1
    won = [reply for reply in replies if reply.failure is None]
    assert len(won) <= 1
    assert {str(reply.failure) for reply in replies} - {"None"} == {
        "thread already has an active or pending turn"
    }


@pytest.mark.parametrize("how", ["complete", "fail", "interrupt"])
async def test_the_queue_drains_however_the_turn_before_has_ended(scene: QueueScene, how: End) -> None:
    thread_id, turn = await scene.busy()
    await scene.fill(thread_id, "one", "two")
    await scene.end(thread_id, turn, how, taken=True)
    one = await scene.next_turn(thread_id)
    await scene.end(thread_id, one, how)
    await scene.end(thread_id, await scene.next_turn(thread_id))
    assert await scene.said(thread_id) == ["direct", "one", "two"]


@pytest.mark.parametrize("goes_on", ["start", "turn"])
async def test_with_the_pause_setting_an_interrupt_stops_the_queue_until_it_is_told_to_go_on(
    tmp_path: Path, goes_on: str
) -> None:
    async with opened(tmp_path, 'queue.on_interrupt="pause"') as stage:
        scene = QueueScene(stage)
        thread_id, turn = await scene.busy()
        await scene.fill(thread_id, "one", "two")
        await scene.end(thread_id, turn, "interrupt", taken=True)
        await scene.same_on_disk(thread_id)
        # The pause outlives the actor.
        await scene.unload(thread_id)
        await scene.resume(thread_id)
        assert scene.running(thread_id) is None
        if goes_on == "start":
            turn_id = (await scene.go_on(thread_id).answer())["turn"]["id"]
        else:
            _, direct = await scene.direct(thread_id, "again")
            await scene.end(thread_id, direct)
            turn_id = scene.running(thread_id)
        one = await scene.next_turn(thread_id)
        assert one.job.turn_id == turn_id
        await scene.end(thread_id, one)
        await scene.end(thread_id, await scene.next_turn(thread_id))
        again = ["again"] if goes_on == "turn" else []
        assert await scene.said(thread_id) == ["direct", *again, "one", "two"]
        await scene.same_on_disk(thread_id)


@pytest.mark.parametrize("cure", ["delete", "update", "reorder"])
async def test_a_failed_head_blocks_the_others_until_it_is_dealt_with(scene: QueueScene, cure: str) -> None:
    thread_id = await asleep(scene)
    await scene.store_row(thread_id, row_of(thread_id, ROW, -4))
    good = (await scene.add(thread_id, "good").answer())["queuedTurn"]["id"]
    await scene.resume(thread_id)
    head, behind = await scene.rows(thread_id)
    assert head["status"]["type"] == "failed"
    assert behind["status"] == {"type": "pending"}
    assert scene.running(thread_id) is None
    await scene.same_on_disk(thread_id)
    match cure:
        case "delete":
            await scene.delete(thread_id, ROW).answer()
        case "update":
            await scene.update(thread_id, ROW, "mended").answer()
        case _:
            await scene.reorder(thread_id, [good, ROW]).answer()
    await scene.end(thread_id, await scene.next_turn(thread_id))
    if cure == "update":
        await scene.end(thread_id, await scene.next_turn(thread_id))
    assert (await scene.said(thread_id))[1:] == (["mended", "good"] if cure == "update" else ["good"])


async def test_starting_a_row_that_cannot_be_read_is_refused_and_the_row_has_failed(
    scene: QueueScene,
) -> None:
    thread_id = await asleep(scene)
    await scene.store_row(thread_id, row_of(thread_id, ROW, 1))
    await scene.resume(thread_id)
    with pytest.raises(RpcError, match="the queued turn cannot be read"):
        await scene.go_on(thread_id).answer()
    assert [row["status"]["type"] for row in await scene.rows(thread_id)] == ["failed"]


async def test_a_claim_is_cleared_only_by_the_message_of_its_own_turn(scene: QueueScene) -> None:
    thread_id, direct = await scene.busy()
    await scene.fill(thread_id, "one")
    await scene.end(thread_id, direct, taken=True)
    turn = await scene.next_turn(thread_id)
    # What the turn before still posts is not the claimed message.
    await takes(direct)
    await scene.stage.handled(thread_id)
    assert [row.state for row in (await scene.stored(thread_id)).rows] == ["dispatching"]
    await takes(turn)
    await scene.stage.handled(thread_id)
    assert (await scene.stored(thread_id)).rows == ()


async def test_another_message_in_its_turn_does_not_end_a_claim(scene: QueueScene) -> None:
    thread_id = await scene.stage.start(scene.owner)
    await scene.fill(thread_id, "one")
    turn = await scene.next_turn(thread_id)
    await turn.post(await completed_message(Submission("another", [TextInput(text="and this")]), 1))
    await scene.stage.handled(thread_id)
    assert [row.state for row in (await scene.stored(thread_id)).rows] == ["dispatching"]
    await takes(turn)
    await scene.stage.handled(thread_id)
    assert (await scene.stored(thread_id)).rows == ()


async def test_a_turn_that_ends_without_its_message_leaves_a_failed_row_that_is_shown(
    scene: QueueScene,
) -> None:
    thread_id = await scene.stage.start(scene.owner)
    await scene.fill(thread_id, "one")
    turn = await scene.next_turn(thread_id)
    turn.end()
    await scene.over(turn.job.turn_id)
    await scene.stage.handled(thread_id)
    shown = scene.owner.params("thread/queue/changed")[-1]["queuedTurns"]
    why = "the turn ended before its message was recorded"
    assert [row["status"] for row in shown] == [{"type": "failed", "error": why}]
    await scene.same_on_disk(thread_id)


async def test_a_claim_that_a_crash_has_left_is_failed_and_says_so(scene: QueueScene) -> None:
    thread_id = await asleep(scene)
    left = row_of(thread_id, ROW, 1, "one", state="dispatching", turn_id=uuid_of(1), item_id=uuid_of(2))
    await scene.store_row(thread_id, left)
    await scene.resume(thread_id)
    (row,) = await scene.rows(thread_id)
    assert row["status"] == {"type": "failed", "error": INTERRUPTED}
    assert INTERRUPTED == "queued turn dispatch was interrupted while app-server restarted"
    await scene.same_on_disk(thread_id)
    turn_id = (await scene.go_on(thread_id).answer())["turn"]["id"]
    await scene.end(thread_id, await scene.next_turn(thread_id))
    assert await scene.delete(thread_id, ROW).answer() == {"deleted": False, "turnId": turn_id}


async def test_a_claim_whose_message_is_in_the_rollout_is_gone_after_a_crash(scene: QueueScene) -> None:
    thread_id = await asleep(scene)
    (turn,) = (await scene.read(thread_id, turns=True))["thread"]["turns"]
    item = next(item["id"] for item in turn["items"] if item["type"] == "userMessage")
    left = row_of(thread_id, ROW, 1, "hello", state="dispatching", turn_id=turn["id"], item_id=item)
    await scene.store_row(thread_id, left)
    await scene.resume(thread_id)
    assert await scene.rows(thread_id) == []
    assert await scene.delete(thread_id, ROW).answer() == {"deleted": False, "turnId": turn["id"]}
    await scene.same_on_disk(thread_id)


async def test_a_thread_that_is_not_loaded_keeps_its_rows_until_it_is_resumed(scene: QueueScene) -> None:
    thread_id = await asleep(scene)
    await scene.fill(thread_id, "one", "two")
    await scene.act(scene.owner, thread_id, SetName("quiet")).answer()
    with pytest.raises(RpcError, match=f"thread not found: {thread_id}"):
        await scene.go_on(thread_id).answer()
    await scene.gone(thread_id)
    assert scene.owner.params("turn/started")[1:] == []
    assert [row.state for row in (await scene.stored(thread_id)).rows] == ["pending", "pending"]
    await scene.resume(thread_id)
    for _ in range(2):
        await scene.end(thread_id, await scene.next_turn(thread_id))
    assert (await scene.said(thread_id))[1:] == ["one", "two"]


async def test_an_archived_thread_keeps_its_rows_and_a_deleted_one_does_not(scene: QueueScene) -> None:
    thread_id = await asleep(scene)
    await scene.fill(thread_id, "one")
    await scene.act(scene.owner, thread_id, Archive()).answer()
    with pytest.raises(RpcError, match="is archived"):
        await scene.add(thread_id, "two").answer()
    assert len((await scene.stored(thread_id)).rows) == 1
    await scene.act(scene.owner, thread_id, Unarchive()).answer()
    assert await scene.waiting(thread_id) == ["one"]
    await scene.act(scene.owner, thread_id, Delete()).answer()
    assert (await scene.stored(thread_id)).rows == ()


async def test_deleting_a_thread_that_never_had_a_turn_removes_its_rows(scene: QueueScene) -> None:
    thread_id = await scene.stage.start(scene.owner)
    added = scene.add(thread_id, "one")
    deleted = scene.act(scene.owner, thread_id, Delete())
    await added.answer()
    await deleted.answer()
    assert (await scene.stored(thread_id)).rows == ()


async def test_an_add_that_cannot_be_stored_fails_and_shows_nothing(scene: QueueScene) -> None:
    thread_id, turn = await scene.busy()
    scene.stage.store.broken = lambda batch: bool(batch.queue)
    with pytest.raises(RpcError, match="the disk is full"):
        await scene.add(thread_id, "one").answer()
    scene.stage.store.broken = None
    assert scene.news(scene.owner) == ["error"]
    assert await scene.waiting(thread_id) == []
    await scene.same_on_disk(thread_id)
    await scene.end(thread_id, turn, taken=True)


async def test_a_claim_that_cannot_be_stored_is_not_tried_again_and_again(scene: QueueScene) -> None:
    thread_id, turn = await scene.busy()
    await scene.fill(thread_id, "one", "two")
    tried: list[Batch] = []

    def broken(batch: Batch) -> bool:
        claims = bool(batch.queue) and bool(batch.lines)
        if claims:
            tried.append(batch)
        return claims

    scene.stage.store.broken = broken
    await scene.end(thread_id, turn, taken=True)
    # Comes back only when no task has anything to do.
    await trio.testing.wait_all_tasks_blocked()
    count = len(tried)
    await trio.testing.wait_all_tasks_blocked()
    assert count == len(tried) <= 3
    assert len(scene.stage.actor(thread_id).mailbox) == 0
    scene.stage.store.broken = None
    assert await scene.waiting(thread_id) == ["one", "two"]
    # The next thing that happens to the thread tries it.
    await scene.end(thread_id, await scene.next_turn(thread_id))


async def test_a_daemon_that_drains_leaves_the_queue_alone_and_rests(scene: QueueScene) -> None:
    thread_id, turn = await scene.busy()
    await scene.fill(thread_id, "one")
    scene.stage.supervisor.begin_drain()
    await scene.end(thread_id, turn, taken=True)
    # Comes back only when no task has anything to do.
    await trio.testing.wait_all_tasks_blocked()
    assert len(scene.stage.actor(thread_id).mailbox) == 0
    assert scene.running(thread_id) is None
    assert [row.state for row in (await scene.stored(thread_id)).rows] == ["pending"]


async def test_a_row_of_a_fresh_thread_is_found_again_although_its_turn_never_began(
    scene: QueueScene,
) -> None:
    thread_id = await scene.stage.start(scene.owner)
    scene.stage.supervisor.begin_drain()
    await scene.fill(thread_id, "one")
    assert await scene.stage.store.thread(thread_id) is not None
    assert [line["type"] for line in scene.stage.lines(thread_id)] == ["session_meta"]
    await scene.unload(thread_id)
    assert await scene.waiting(thread_id) == ["one"]


async def test_a_row_that_is_added_beside_a_claim_stands_behind_it(scene: QueueScene) -> None:
    thread_id = await scene.stage.start(scene.owner)
    await scene.fill(thread_id, "one")
    turn = await scene.next_turn(thread_id)
    await scene.fill(thread_id, "two")
    await scene.same_on_disk(thread_id)
    await scene.end(thread_id, turn)
    await scene.end(thread_id, await scene.next_turn(thread_id))
    assert await scene.said(thread_id) == ["one", "two"]


async def test_rows_can_be_reordered_whatever_their_orders_and_beside_a_claim(scene: QueueScene) -> None:
    thread_id = await asleep(scene)
    ids = [uuid_of(0xC00 + number) for number in range(3)]
    for order, row_id in zip((-1, 0, 1), ids, strict=True):
        await scene.store_row(thread_id, row_of(thread_id, row_id, order, f"row {order}"))
    await scene.reorder(thread_id, [ids[2], ids[0], ids[1]]).answer()
    assert await scene.waiting(thread_id) == ["row 1", "row -1", "row 0"]
    await scene.resume(thread_id)
    assert scene.running(thread_id) is not None
    await scene.reorder(thread_id, [ids[1], ids[0]]).answer()
    assert await scene.waiting(thread_id) == ["row 0", "row -1"]
    await scene.same_on_disk(thread_id)


async def test_bad_requests_are_refused_in_words(scene: QueueScene) -> None:
    thread_id, _ = await scene.busy()
    one, two = await scene.fill(thread_id, "one", "two")
    other = {"threadId": ROW, "input": text_input("x")}
    empty = {"threadId": thread_id, "input": []}
    large = text_input("x" * (MAX_INPUT_CHARS + 1))
    every = "queue reorder must include every visible queued turn exactly once"
    for reply, error in (
        (scene.add_raw(thread_id, turnStartParams=empty), "only user input can be added"),
        (scene.add_raw(thread_id, input=[], clientUserMessageId="c"), "only user input can be added"),
        (scene.add_raw(thread_id, turnStartParams=other), "`threadId` must match `turnStartParams.threadId`"),
        (scene.add_raw(thread_id, clientUserMessageId="c"), "missing field `input`"),
        (scene.add_raw(thread_id, input=text_input("x")), "missing field `clientUserMessageId`"),
        (scene.add_raw(thread_id, input=large, clientUserMessageId="c"), "exceeds the maximum length"),
        (scene.update_raw(thread_id, queuedTurnId=one, turnStartParams=empty), "only user input"),
        (scene.update(thread_id, ROW, "x"), f"queued turn not found: {ROW}"),
        (scene.page(thread_id, cursor="x"), "invalid cursor: x"),
        (scene.page(thread_id, cursor="-1"), "invalid cursor: -1"),
        (scene.reorder(thread_id, [one]), every),
        (scene.reorder(thread_id, [one, one]), every),
        (scene.reorder(thread_id, [one, two, two]), every),
        (scene.reorder(thread_id, [one, ROW]), every),
        (scene.reorder(thread_id, [one], submissions=True), "every queued submission exactly once"),
        (scene.go_on(thread_id), "thread already has an active or pending turn"),
        (scene.add(ROW, "x"), f"thread not found: {ROW}"),
    ):
        with pytest.raises(RpcError, match=error):
            await reply.answer()
    assert await scene.waiting(thread_id) == ["one", "two"]
    await scene.same_on_disk(thread_id)


async def test_starting_an_empty_queue_is_refused(scene: QueueScene) -> None:
    thread_id = await scene.stage.start(scene.owner)
    with pytest.raises(RpcError, match="queue is empty"):
        await scene.go_on(thread_id).answer()


def test_a_row_goes_with_a_line_that_is_on_the_disk_itself() -> None:
    state = state_in("running")
    row = QueuedTurn("row", {}, 1, "dispatching", turn_id=TURN, item_id="message")
    state = replace(state, queue=Queue(claims=(row,)))
    recorded = Decision(state)
    message_recorded(recorded, "message")
    assert (recorded.fsync, recorded.state.queue.claims, len(recorded.queue)) == (True, (), 2)
    another = Decision(state)
    message_recorded(another, "another")
    assert (another.fsync, another.state, another.queue) == (False, state, [])
