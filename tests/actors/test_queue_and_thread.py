"""What becomes of a queue when its thread is deleted, in all the ways it can be, or its file is away."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.archiving import Archive, Delete
from persistence import queue as rows
from persistence.queue import QueuedTurn, StoredQueue
from persistence.store import Batch
from protocol.errors import RpcError
from tests.actors.acts_stage import takes
from tests.actors.queue_stage import QueueScene, row_of
from tests.actors.stage import Stage
from tests.persistence.sessions import create, uuid_of

PARENT, CHILD, GRANDCHILD, STRANGER = (uuid_of(number) for number in range(0xA01, 0xA05))
FAMILY = (PARENT, CHILD, GRANDCHILD)


@pytest.fixture
async def family(stage: Stage) -> QueueScene:
    """Three generations and a stranger, none of them loaded, each with rows that wait and one that ran."""
    scene = QueueScene(stage)
    parent: str | None = None
    for thread_id in (*FAMILY, STRANGER):
        above = parent if thread_id in FAMILY else None
        await create(stage.store, thread_id, "old", model_provider="openai", parent_thread_id=above)
        parent = thread_id
        waiting = [row_of(thread_id, f"{place} of {thread_id}", place, f"row {place}") for place in (1, 2, 3)]
        ran = QueuedTurn(f"ran {thread_id}", {}, 0, turn_id=uuid_of(7))
        operations = [rows.insert(thread_id, each) for each in waiting] + rows.started(thread_id, ran)
        await stage.store.commit(Batch(thread_id, queue=operations))
        stage.store.release(thread_id)
    return scene


async def left(scene: QueueScene, thread_id: str) -> tuple[StoredQueue, bool]:
    """The queue on disk, and whether it is remembered what ran."""
    started = await scene.stage.store.queued_turn_started(thread_id, row_id=f"ran {thread_id}")
    return await scene.stored(thread_id), started is not None


@pytest.mark.parametrize("loaded", [(), (PARENT,), (CHILD,), FAMILY])
async def test_the_queues_of_descendants_go_with_a_deleted_thread_and_nobody_elses(
    family: QueueScene, loaded: tuple[str, ...]
) -> None:
    for thread_id in loaded:
        # Its head runs: one has taken its message, the others have not.
        await family.resume(thread_id)
        turn = await family.next_turn(thread_id)
        if thread_id == CHILD:
            await takes(turn)
            await family.stage.handled(thread_id)
    await family.act(family.owner, PARENT, Delete()).answer()
    for thread_id in FAMILY:
        assert await left(family, thread_id) == (StoredQueue(), False)
    queue, remembered = await left(family, STRANGER)
    assert (len(queue.rows), remembered) == (3, True)


async def test_the_queue_of_an_archived_descendant_goes_with_a_deleted_thread(family: QueueScene) -> None:
    await family.act(family.owner, CHILD, Archive()).answer()
    await family.act(family.owner, PARENT, Delete()).answer()
    for thread_id in FAMILY:
        assert await left(family, thread_id) == (StoredQueue(), False)


async def test_a_thread_whose_file_is_away_keeps_its_queue_until_it_is_back(
    family: QueueScene, tmp_path: Path
) -> None:
    record = await family.stage.store.thread(STRANGER)
    assert record is not None
    before = await left(family, STRANGER)
    away = record.path.rename(tmp_path / "away")
    with pytest.raises(RpcError, match=f"thread not found: {STRANGER}"):
        await family.page(STRANGER).answer()
    with pytest.raises(RpcError, match="no rollout found"):
        await family.act(family.owner, STRANGER, Delete()).answer()
    await family.gone(STRANGER)
    assert await left(family, STRANGER) == before
    away.rename(record.path)
    await family.resume(STRANGER)
    for _ in range(3):
        await family.end(STRANGER, await family.next_turn(STRANGER))
    assert await family.said(STRANGER) == ["old", "row 1", "row 2", "row 3"]


async def test_a_row_waits_while_the_file_of_its_loaded_thread_is_away(
    family: QueueScene, tmp_path: Path
) -> None:
    stage = family.stage
    await family.resume(STRANGER)
    turn = await family.next_turn(STRANGER)
    await takes(turn)
    await stage.handled(STRANGER)
    record = await stage.store.thread(STRANGER)
    assert record is not None
    away = record.path.rename(tmp_path / "away")
    await family.add(STRANGER, "meanwhile").answer()
    await family.end(STRANGER, turn, taken=True)
    stored, _ = await left(family, STRANGER)
    assert [row.state for row in stored.rows] == ["pending"] * 3
    away.rename(record.path)
    await family.resume(STRANGER)
    for _ in range(3):
        await family.end(STRANGER, await family.next_turn(STRANGER))
    assert await family.said(STRANGER) == ["old", "row 1", "row 2", "row 3", "meanwhile"]
