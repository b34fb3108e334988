"""The queue while the disk refuses: a message is in exactly one place, and what had to wait goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.disk_watch import PROBE_SECONDS, WELL
from persistence.store import Batch, StoreError
from tests.actors.acts_stage import takes
from tests.actors.queue_stage import QueueScene, texts
from tests.actors.stage import Stage
from tests.support.in_memory import PuppetTurn

ENDED = "the turn ended before its message was recorded"


@pytest.fixture
def mock_clock() -> MockClock:
    """Stands still unless moved; a test that waits for nothing is brought to its limit after 10 s."""
    return MockClock(autojump_threshold=10)


@pytest.fixture
async def scene(stage: Stage) -> AsyncIterator[QueueScene]:
    return QueueScene(stage)


def refusal(*, lasting: bool = False, appended: bool = False) -> StoreError:
    error = StoreError("the disk is broken", "disk", lasting=lasting)
    error.appended = appended
    return error


async def with_a_claim(scene: QueueScene, *behind: str) -> tuple[str, PuppetTurn]:
    """A turn from the queue that has not recorded its message yet, with rows behind it."""
    thread_id, direct = await scene.busy()
    await scene.fill(thread_id, "claimed", *behind)
    await scene.end(thread_id, direct, taken=True)
    return thread_id, await scene.next_turn(thread_id)


async def test_a_message_that_could_not_be_recorded_is_in_the_queue_as_failed_and_nowhere_else(
    scene: QueueScene,
) -> None:
    thread_id, turn = await with_a_claim(scene, "behind")
    scene.stage.store.broken = lambda batch: refusal()
    await takes(turn)
    assert await scene.over(turn.job.turn_id) == "failed"
    scene.stage.store.broken = None
    assert [row["status"]["type"] for row in await scene.rows(thread_id)] == ["failed", "pending"]
    assert (await scene.rows(thread_id))[0]["status"]["error"] == ENDED
    assert "claimed" not in await scene.said(thread_id)


async def test_rows_can_be_sorted_although_the_end_of_a_claim_was_not_stored(scene: QueueScene) -> None:
    thread_id, turn = await with_a_claim(scene, "one", "two")
    scene.stage.store.broken = lambda batch: refusal()
    await takes(turn)
    await scene.over(turn.job.turn_id)
    scene.stage.store.broken = None
    assert [row.state for row in (await scene.stored(thread_id)).rows] == [
        "dispatching",
        "pending",
        "pending",
    ]
    ids = [row["id"] for row in await scene.rows(thread_id)]
    answer = await scene.reorder(thread_id, [ids[2], ids[0], ids[1]]).answer()
    assert texts(answer["queuedTurns"]) == ["two", "claimed", "one"]
    await scene.update(thread_id, ids[0], "claimed again").answer()
    for text in ("two", "claimed again", "one"):
        await scene.end(thread_id, await scene.next_turn(thread_id))
        assert (await scene.said(thread_id))[-1] == text
    await scene.same_on_disk(thread_id)


async def test_a_message_that_stayed_in_the_transcript_is_not_in_the_queue(scene: QueueScene) -> None:
    thread_id, turn = await with_a_claim(scene, "behind")

    def records(batch: Batch) -> bool | StoreError:
        return refusal(appended=True) if batch.queue and batch.lines else False

    scene.stage.store.broken = records
    await takes(turn)
    assert await scene.over(turn.job.turn_id) == "failed"
    scene.stage.store.broken = None
    await scene.stage.handled(thread_id)
    assert "claimed" in await scene.said(thread_id)
    assert "claimed" not in await scene.waiting(thread_id)
    await scene.unload(thread_id)
    await scene.resume(thread_id)
    assert "claimed" not in await scene.waiting(thread_id)
    assert (await scene.said(thread_id)).count("claimed") == 1


async def test_a_claim_that_could_not_be_stored_is_tried_again_when_the_disk_is_well(
    scene: QueueScene, mock_clock: MockClock
) -> None:
    thread_id, direct = await scene.busy()
    await scene.fill(thread_id, "one", "two")
    tried: list[Batch] = []

    def refuses(batch: Batch) -> bool | StoreError:
        tried.append(batch)
        return refusal(lasting=True)

    scene.stage.store.broken = refuses
    await scene.end(thread_id, direct, taken=True)
    for peer in scene.peers:
        assert "the disk is broken" in (await peer.got("warning"))["message"]
    # The end of the turn, and once more to tell why; no claim is tried on a disk that is known to be bad.
    assert not any(batch.queue for batch in tried)
    scene.stage.store.broken = None
    await wait_all_tasks_blocked()
    mock_clock.jump(PROBE_SECONDS)
    for peer in scene.peers:
        assert (await peer.got("warning", 2))["message"] == WELL
    for text in ("one", "two"):
        await scene.end(thread_id, await scene.next_turn(thread_id))
        assert text in await scene.said(thread_id)
    await scene.same_on_disk(thread_id)


async def test_who_comes_while_the_disk_fails_is_told_and_who_comes_later_is_not(
    scene: QueueScene, mock_clock: MockClock
) -> None:
    thread_id, _ = await scene.busy()
    scene.stage.store.broken = lambda batch: refusal(lasting=True)
    with pytest.raises(Exception, match="the disk is broken"):
        await scene.add(thread_id, "lost").answer()
    await scene.owner.got("warning")
    late = scene.stage.peer()
    assert "the disk is broken" in late.params("warning")[0]["message"]
    scene.stage.store.broken = None
    await wait_all_tasks_blocked()
    mock_clock.jump(PROBE_SECONDS)
    await late.got("warning", 2)
    assert scene.stage.peer().params("warning") == []
