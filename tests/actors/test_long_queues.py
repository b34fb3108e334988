"""Long queues: what a step costs does not depend on how many rows wait, and all run in their order."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from persistence import queue as rows
from persistence.queue import QueuedTurn
from persistence.store import Batch
from tests.actors.acts_stage import takes
from tests.actors.queue_stage import QueueScene, row_of, texts
from tests.actors.stage import Stage, opened
from tests.persistence.sessions import uuid_of
from tests.support.counted_lines import counted_lines
from tests.support.in_memory import PuppetTurn, replay_hint

FEW, MANY = 100, 2000
"""As few as are shown at once of any number, and many more."""


@pytest.fixture
async def scene(stage: Stage) -> QueueScene:
    return QueueScene(stage)


@dataclass
class Long:
    """A loaded thread in which a turn of its queue runs and rows wait behind it.

    Attributes:
        ids: of the rows, in order; their client ids are the same.
        turn: the running one, which has taken its message.
        stored: how many operations each commit had for the queue, so far.
        added: how many rows were added.
    """

    scene: QueueScene
    thread_id: str
    ids: list[str]
    turn: PuppetTurn
    stored: list[int] = field(default_factory=list)
    added: int = 0

    async def add(self) -> None:
        self.added += 1
        await self.scene.submit(self.thread_id, "new", f"new {self.added}").answer()

    async def add_again(self) -> None:
        name = self.ids[len(self.ids) * 2 // 3]
        again = await self.scene.submit(self.thread_id, "again", name).answer()
        assert again["queuedSubmission"]["id"] == name

    async def update(self) -> None:
        await self.scene.update(self.thread_id, self.ids[len(self.ids) // 3], "changed").answer()

    async def delete(self) -> None:
        gone = self.ids.pop(len(self.ids) * 4 // 5)
        assert await self.scene.delete(self.thread_id, gone).answer() == {"deleted": True}

    async def list_the_end(self) -> None:
        page = await self.scene.page(self.thread_id, cursor=str(len(self.ids) - 20)).answer()
        assert [row["id"] for row in page["data"]][:20] == self.ids[-20:]

    async def run_a_row(self) -> None:
        await self.scene.end(self.thread_id, self.turn, taken=True)
        self.turn = await self.scene.next_turn(self.thread_id)
        await takes(self.turn)
        await self.scene.stage.handled(self.thread_id)
        del self.ids[0]


async def long_queue(scene: QueueScene, count: int) -> Long:
    """A queue of so many rows, as it is loaded from the disk."""
    thread_id = await scene.stage.start(scene.owner)
    await scene.whole_turn(scene.owner, thread_id)
    await scene.unload(thread_id)
    scene._met += scene.stage.runners[-1].turns
    ids = [uuid_of(0xF0000 + (count << 20) + number) for number in range(count + 1)]
    named = [
        QueuedTurn(row_id, {**row_of(thread_id, "", 0, "row").params, "clientUserMessageId": row_id}, order)
        for order, row_id in enumerate(ids)
    ]
    await scene.stage.store.commit(Batch(thread_id, queue=[rows.insert(thread_id, row) for row in named]))
    await scene.resume(thread_id)
    turn = await scene.next_turn(thread_id)
    await takes(turn)
    await scene.stage.handled(thread_id)
    long = Long(scene, thread_id, ids[1:], turn)

    def committed(batch: Batch) -> bool:
        if batch.thread_id == thread_id and batch.queue:
            long.stored.append(len(batch.queue))
        return False

    scene.stage.store.broken = committed
    return long


async def cost(long: Long, act: str) -> tuple[Counter[str], list[int]]:
    """The lines that an act takes, and what it stores. The second time: the first prepares what is used."""
    await getattr(long, act)()
    long.stored.clear()
    with counted_lines() as lines:
        await getattr(long, act)()
    return lines, long.stored


STORED = {
    "add": [1],
    "add_again": [],
    "update": [1],
    "delete": [1],
    "list_the_end": [],
    # The claim; then the row goes and its turn is remembered.
    "run_a_row": [1, 2],
}
"""What an act stores: operations by commit."""


@pytest.mark.parametrize("act", list(STORED))
async def test_a_step_costs_as_much_in_a_long_queue_as_in_a_short_one(scene: QueueScene, act: str) -> None:
    few, stored_by_few = await cost(await long_queue(scene, FEW), act)
    many, stored_by_many = await cost(await long_queue(scene, MANY), act)
    more = (many - few).most_common(5)
    # A few lines more are those of looking a place up by halves. One for each row would be 1,900.
    assert many.total() - few.total() < 100, f"{few.total()} lines became {many.total()}: {more}"
    assert stored_by_few == stored_by_many == STORED[act]


async def test_reordering_costs_the_same_by_row_and_is_stored_by_one_statement(scene: QueueScene) -> None:
    by_row: list[float] = []
    for count in (FEW, MANY):
        long = await long_queue(scene, count)
        for _ in range(2):
            long.stored.clear()
            with counted_lines() as lines:
                await scene.reorder(long.thread_id, long.ids[::-1], submissions=True).answer()
            long.ids.reverse()
        assert long.stored == [1]
        by_row.append(lines.total() / count)
    assert by_row[1] <= by_row[0]


async def test_hundreds_of_rows_run_one_by_one_in_the_order_that_they_were_last_given(tmp_path: Path) -> None:
    count, seed = 300, 7
    chance = random.Random(seed)
    with replay_hint(count=count, seed=seed):
        async with opened(tmp_path, limit=120) as stage:
            scene = QueueScene(stage)
            thread_id, direct = await scene.busy()
            said = [f"row {number}" for number in range(count)]
            ids = await scene.fill(thread_id, *said)
            order = chance.sample(range(count), count)
            answer = await scene.reorder(thread_id, [ids[place] for place in order]).answer()
            expected = [said[place] for place in order]
            assert texts(answer["queuedTurns"]) == expected
            await scene.same_on_disk(thread_id)
            turn = direct
            for left in range(count, 0, -1):
                await scene.end(thread_id, turn, taken=True)
                turn = await scene.next_turn(thread_id)
                assert scene.owner.params("thread/queue/changed")[-1]["total"] == left - 1
                await takes(turn)
                scene.owner.log.clear()
            await scene.end(thread_id, turn, taken=True)
            assert scene.running(thread_id) is None
            assert await scene.said(thread_id) == ["direct", *expected]
            assert (await scene.stored(thread_id)).rows == ()
            await scene.same_on_disk(thread_id)
