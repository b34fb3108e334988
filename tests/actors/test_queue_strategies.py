"""What an add does while a turn runs, adding twice, both wire shapes, and the queue against a model of it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from agent.prompt import completed_message
from persistence.queue import INTERRUPTED, StoredQueue
from protocol.errors import RpcError
from tests.actors.acts_stage import takes
from tests.actors.queue_stage import End, QueueScene, texts
from tests.actors.stage import Stage, opened, text_input
from tests.support.in_memory import PuppetTurn, replay_hint

STRATEGIES = ("enqueue", "steer", "interrupt", "reject")


@pytest.fixture
async def scene(stage: Stage) -> QueueScene:
    return QueueScene(stage)


@pytest.mark.parametrize("busy", STRATEGIES)
async def test_on_an_idle_thread_every_strategy_queues_and_runs(scene: QueueScene, busy: str) -> None:
    thread_id = await scene.stage.start(scene.owner)
    answer = await scene.add(thread_id, "one", busy=busy).answer()
    assert (answer["queuedTurn"]["status"], "turnId" in answer) == ({"type": "pending"}, False)
    await scene.end(thread_id, await scene.next_turn(thread_id))
    assert await scene.said(thread_id) == ["one"]


async def test_a_rejecting_add_names_the_turn_that_runs(scene: QueueScene) -> None:
    thread_id, turn = await scene.busy()
    with pytest.raises(RpcError, match="thread already has an active or pending turn") as caught:
        await scene.add(thread_id, "one", busy="reject").answer()
    assert caught.value.data == {"turnId": turn.job.turn_id}
    assert await scene.rows(thread_id) == []


async def test_a_steering_add_goes_into_the_running_turn(scene: QueueScene) -> None:
    thread_id, turn = await scene.busy()
    await scene.fill(thread_id, "later")
    answer = await scene.add(thread_id, "now", busy="steer").answer()
    assert answer["turnId"] == turn.job.turn_id
    assert answer["queuedTurn"]["status"] == {"type": "started", "turnId": turn.job.turn_id}
    assert await scene.waiting(thread_id) == ["later"]
    await scene.end(thread_id, turn, "interrupt", taken=True)
    await scene.end(thread_id, await scene.next_turn(thread_id))
    assert await scene.said(thread_id) == ["direct", "now", "later"]


async def test_a_steering_add_is_on_disk_before_its_answer_and_once_only(scene: QueueScene) -> None:
    thread_id, turn = await scene.busy()
    answer = await scene.add(thread_id, "now", "c1", busy="steer").answer()
    (row,) = (await scene.stored(thread_id)).rows
    assert (row.state, row.id, row.turn_id) == ("dispatching", answer["queuedTurn"]["id"], turn.job.turn_id)
    again = [await scene.add(thread_id, "now", "c1", busy=busy).answer() for busy in STRATEGIES]
    assert [each["turnId"] for each in again] == [turn.job.turn_id] * len(STRATEGIES)
    gone = await scene.delete(thread_id, row.id).answer()
    assert gone == {"deleted": False, "turnId": turn.job.turn_id}
    await scene.end(thread_id, turn, "interrupt", taken=True)
    assert (await scene.stored(thread_id)).rows == ()
    assert await scene.add(thread_id, "now", "c1", busy="enqueue").answer() == again[0]
    assert await scene.said(thread_id) == ["direct", "now"]


async def test_a_turn_from_a_row_that_is_steered_by_another_records_both_and_claims_neither_any_more(
    scene: QueueScene,
) -> None:
    thread_id = await scene.stage.start(scene.owner)
    await scene.fill(thread_id, "one")
    turn = await scene.next_turn(thread_id)
    await scene.add(thread_id, "two", busy="steer").answer()
    await takes(turn)
    await scene.stage.handled(thread_id)
    assert texts_of(await scene.stored(thread_id)) == ["two"]
    await turn.post(await completed_message(turn.control.unconsumed[0], 1))
    await scene.stage.handled(thread_id)
    assert texts_of(await scene.stored(thread_id)) == []
    assert await scene.said(thread_id) == ["one", "two"]


def texts_of(stored: StoredQueue) -> list[str]:
    return [row.params["input"][0]["text"] for row in stored.rows]


async def test_steering_adds_of_a_daemon_that_was_killed_are_failed_rows_in_the_order_they_came(
    scene: QueueScene,
) -> None:
    thread_id, turn = await scene.busy()
    for text in ("one", "two"):
        await scene.add(thread_id, text, busy="steer").answer()
    # What a kill at this instant leaves.
    left = await scene.stage.store.queue(thread_id)
    assert [(row.params["input"][0]["text"], row.failure) for row in left.rows] == [
        ("one", INTERRUPTED),
        ("two", INTERRUPTED),
    ]
    await scene.end(thread_id, turn, "interrupt", taken=True)


@pytest.mark.parametrize("busy", ["steer", "interrupt"])
async def test_nothing_is_said_to_the_last_turn_of_a_daemon_that_is_about_to_end(
    scene: QueueScene, busy: str
) -> None:
    thread_id, turn = await scene.busy()
    scene.stage.supervisor.begin_drain()
    with pytest.raises(RpcError, match="draining"):
        await scene.add(thread_id, "one", busy=busy).answer()
    assert await scene.rows(thread_id) == []
    await scene.end(thread_id, turn, taken=True)
    assert await scene.said(thread_id) == ["direct"]


@pytest.mark.parametrize("setting", ["drain", "pause"])
async def test_an_interrupting_add_is_answered_ends_the_turn_and_runs_before_all_others(
    tmp_path: Path, setting: str
) -> None:
    async with opened(tmp_path, f'queue.on_interrupt="{setting}"') as stage:
        scene = QueueScene(stage)
        thread_id, turn = await scene.busy()
        await scene.fill(thread_id, "later")
        scene.mark()
        answer = await scene.add(thread_id, "now", busy="interrupt").answer()
        assert answer["queuedTurn"]["status"] == {"type": "pending"}
        assert await scene.over(turn.job.turn_id) == "interrupted"
        assert scene.news(scene.owner)[0] == "result"
        for _ in range(2):
            await scene.end(thread_id, await scene.next_turn(thread_id))
        assert await scene.said(thread_id) == ["direct", "now", "later"]


async def test_interrupting_again_and_again_before_a_message_is_taken_loses_none(scene: QueueScene) -> None:
    thread_id, turn = await scene.busy()
    (later, last) = await scene.fill(thread_id, "later", "last")
    for text in ("one", "two", "three"):
        await scene.add(thread_id, text, busy="interrupt").answer()
        await scene.over(turn.job.turn_id)
        turn = await scene.next_turn(thread_id)
    # The claim is at an order far below by now.
    await scene.reorder(thread_id, [last, later]).answer()
    await scene.same_on_disk(thread_id)
    await scene.end(thread_id, turn)
    for _ in range(2):
        await scene.end(thread_id, await scene.next_turn(thread_id))
    assert await scene.said(thread_id) == ["direct", "one", "two", "three", "last", "later"]


@pytest.mark.parametrize("shape", ["turn", "submission"])
async def test_adding_again_under_the_same_client_id_adds_nothing_at_any_time(
    scene: QueueScene, shape: str
) -> None:
    thread_id, direct = await scene.busy()
    name = "queuedTurn" if shape == "turn" else "queuedSubmission"
    add = scene.add if shape == "turn" else scene.submit
    row_id = (await add(thread_id, "one", "c1").answer())[name]["id"]

    async def again() -> tuple[str, str | None]:
        answer = await add(thread_id, "other words", "c1").answer()
        assert answer[name]["id"] == row_id
        return answer[name]["status"]["type"], answer.get("turnId")

    assert await again() == ("pending", None)
    await scene.end(thread_id, direct, taken=True)
    turn = await scene.next_turn(thread_id)
    turn_id = turn.job.turn_id
    assert await again() == ("started", turn_id)
    assert await scene.delete(thread_id, row_id).answer() == {"deleted": False, "turnId": turn_id}
    await takes(turn)
    await scene.stage.handled(thread_id)
    assert await again() == ("started", turn_id)
    await scene.end(thread_id, turn, taken=True)
    assert await again() == ("started", turn_id)
    await scene.unload(thread_id)
    assert await again() == ("started", turn_id)
    await scene.resume(thread_id)
    assert await again() == ("started", turn_id)
    assert await scene.delete(thread_id, row_id).answer() == {"deleted": False, "turnId": turn_id}
    late = await scene.update(thread_id, row_id, "too late").answer()
    assert (late["turnId"], late["queuedTurn"]["status"]["type"]) == (turn_id, "started")
    assert await scene.said(thread_id) == ["direct", "one"]


async def test_both_wire_shapes_name_the_same_rows_and_an_update_keeps_what_it_does_not_say(
    scene: QueueScene,
) -> None:
    thread_id, direct = await scene.busy()
    canonical = (await scene.add(thread_id, "one", "c1", model="special", effort="low").answer())[
        "queuedTurn"
    ]
    submitted = (await scene.submit(thread_id, "two", "c2").answer())["queuedSubmission"]
    assert await scene.rows(thread_id) == [canonical, submitted]
    assert submitted["turnStartParams"]["threadId"] == thread_id
    assert submitted["clientUserMessageId"] == "c2"
    answer = await scene.update_raw(
        thread_id, queuedSubmissionId=canonical["id"], input=text_input("changed")
    ).answer()
    row = answer["queuedSubmission"]
    assert texts([row]) == ["changed"]
    assert row["clientUserMessageId"] == "c1"
    assert (row["turnStartParams"]["model"], row["turnStartParams"]["effort"]) == ("special", "low")
    await scene.update(thread_id, submitted["id"], "second").answer()
    await scene.same_on_disk(thread_id)
    await scene.end(thread_id, direct, taken=True)
    turn = await scene.next_turn(thread_id)
    assert turn.job.settings.model == "special"
    assert turn.job.submissions[0].client_id == "c1"
    await scene.end(thread_id, turn)
    await scene.end(thread_id, await scene.next_turn(thread_id))
    assert await scene.said(thread_id) == ["direct", "changed", "second"]


class Model:
    """What the queue should be. ``running``: what was said to the turn and is not recorded; None: no turn."""

    def __init__(self, scene: QueueScene, thread_id: str, chance: random.Random, *, pauses: bool) -> None:
        self.scene, self.thread_id, self.chance, self.pauses = scene, thread_id, chance, pauses
        self.queue: list[tuple[str, str]] = []
        self.transcript = ["hello"]
        self.deleted: set[str] = set()
        self.accepted = {"hello"}
        self.running: list[str] | None = None
        self.turn: PuppetTurn | None = None
        self.paused, self.loaded = False, True

    def word(self) -> str:
        text = f"message {len(self.accepted)}"
        self.accepted.add(text)
        return text

    async def drain(self) -> None:
        """The head runs, if it may."""
        if self.loaded and self.running is None and not self.paused and self.queue:
            await self.began([self.queue.pop(0)[1]])

    async def began(self, said: list[str]) -> None:
        self.running = said
        self.turn = await self.scene.next_turn(self.thread_id)

    def over(self, *, interrupted: bool) -> None:
        assert self.running is not None
        self.transcript += self.running
        self.running, self.turn = None, None
        if interrupted:
            self.paused = self.paused or (self.pauses and bool(self.queue))

    async def act(self) -> str:
        acts = "add add add interrupting steer delete update reorder start direct take end end end unload"
        name = self.chance.choice(acts.split())
        await getattr(self, f"_{name}")()
        await self.drain()
        return name

    async def _add(self) -> None:
        text = self.word()
        if self.chance.random() < 0.5:
            row = (await self.scene.add(self.thread_id, text).answer())["queuedTurn"]
        else:
            row = (await self.scene.submit(self.thread_id, text, text).answer())["queuedSubmission"]
        self.queue.append((row["id"], text))

    async def _interrupting(self) -> None:
        text = self.word()
        before = self.turn
        row = (await self.scene.add(self.thread_id, text, busy="interrupt").answer())["queuedTurn"]
        if before is None:
            self.queue.append((row["id"], text))
            return
        await self.scene.over(before.job.turn_id)
        self.over(interrupted=True)
        self.paused = False
        self.queue.insert(0, (row["id"], text))

    async def _steer(self) -> None:
        if self.running is not None:
            text = self.word()
            await self.scene.add(self.thread_id, text, busy="steer").answer()
            self.running.append(text)

    async def _delete(self) -> None:
        if self.queue:
            row_id, text = self.queue.pop(self.chance.randrange(len(self.queue)))
            assert await self.scene.delete(self.thread_id, row_id).answer() == {"deleted": True}
            self.deleted.add(text)

    async def _update(self) -> None:
        if self.queue:
            place = self.chance.randrange(len(self.queue))
            row_id, text = self.queue[place]
            self.deleted.add(text)
            self.queue[place] = row_id, self.word()
            await self.scene.update(self.thread_id, *self.queue[place]).answer()

    async def _reorder(self) -> None:
        self.chance.shuffle(self.queue)
        await self.scene.reorder(self.thread_id, [row_id for row_id, _ in self.queue]).answer()

    async def _start(self) -> None:
        reply = self.scene.go_on(self.thread_id)
        if not self.loaded or self.running is not None or not self.queue:
            with pytest.raises(RpcError):
                await reply.answer()
            return
        await reply.answer()
        self.paused = False
        await self.began([self.queue.pop(0)[1]])

    async def _direct(self) -> None:
        if self.loaded and self.running is None:
            text = self.word()
            _, self.turn = await self.scene.direct(self.thread_id, text)
            self.running = [text]

    async def _take(self) -> None:
        if self.turn is not None and self.running is not None and self.turn.job.submissions:
            await takes(self.turn)
            self.turn.job.submissions.clear()
            self.transcript.append(self.running.pop(0))

    async def _end(self) -> None:
        if self.turn is None:
            return
        how: End = self.chance.choice(("complete", "fail", "interrupt"))
        if how == "complete":
            await self._take()
            if self.running:
                # What was steered in brings another run of the same turn, which takes it.
                turn, self.turn = self.turn, None
                turn.end()
                self.turn = await self.scene.next_turn(self.thread_id)
                await takes(self.turn)
        await self.scene.end(self.thread_id, self.turn, how, taken=True)
        self.over(interrupted=how == "interrupt")
        if how == "complete":
            self.paused = False

    async def _unload(self) -> None:
        """Or resume."""
        if self.loaded:
            await self.scene.unload(self.thread_id)
            if self.running is not None:
                self.over(interrupted=True)
        else:
            await self.scene.resume(self.thread_id)
        self.loaded = not self.loaded

    async def check(self) -> None:
        scene, thread_id = self.scene, self.thread_id
        if self.loaded:
            await scene.stage.handled(thread_id)
        queued = [text for _, text in self.queue]
        assert [(row["id"], row["input"][0]["text"]) for row in await scene.rows(thread_id)] == self.queue
        said = await scene.said(thread_id)
        assert said == self.transcript
        everywhere = [*queued, *said, *self.deleted, *(self.running or [])]
        assert sorted(everywhere) == sorted(self.accepted)
        if self.loaded:
            await scene.same_on_disk(thread_id)
        stored = await scene.stored(thread_id)
        assert stored.paused == self.paused
        left = [row.id for row in stored.rows if row.state != "dispatching"]
        assert left == [row_id for row_id, _ in self.queue]


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_happens_every_message_is_in_exactly_one_place(tmp_path: Path, seed: int) -> None:
    pauses = seed % 2 == 1
    setting = "pause" if pauses else "drain"
    done: list[str] = []
    with replay_hint(seed=seed, done=done):
        async with opened(tmp_path, f'queue.on_interrupt="{setting}"') as stage:
            scene = QueueScene(stage)
            thread_id = await stage.start(scene.owner)
            await scene.whole_turn(scene.owner, thread_id)
            scene._met += stage.runners[-1].turns
            model = Model(scene, thread_id, random.Random(seed), pauses=pauses)
            for _ in range(30):
                done.append(await model.act())
                await model.check()
