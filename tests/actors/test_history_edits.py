"""Injecting items, reverting and rolling back: what clients, the model and the disk know afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio.testing

from actors.history_edits import InjectItems, Revert, Rollback
from actors.naming import SetName
from actors.read_state import UpdateReadState
from agent.events import ModelResponded
from persistence.store import Batch, StoreError
from protocol.errors import RpcError
from protocol.lifecycle_methods import ReadStateUpdateParams
from protocol.threads import TokenCounts
from tests.actors.acts_stage import Scene, takes
from tests.actors.stage import Stage, opened, raw_message, says
from tests.persistence.sessions import START_MS, create, turn_begin, turn_end, turn_of, uuid_of


@pytest.fixture
async def scene(stage: Stage) -> Scene:
    return Scene(stage)


async def three_turns(scene: Scene) -> tuple[str, list[str]]:
    """A thread whose turns cost 10, 20 and 30 tokens, and the ids of its turns."""
    thread_id = await scene.stage.start(scene.owner)
    await scene.stage.resume(scene.other, thread_id).answer()
    turns = []
    for number, word in enumerate(("one", "two", "three"), 1):
        turn_id, turn = await scene.stage.begin(scene.owner, thread_id, f"tell {word}")
        await takes(turn)
        await says(turn, f"msg-{word}", f"answer {word}")
        await turn.post(ModelResponded(f"resp-{word}", TokenCounts(total_tokens=10 * number)))
        turn.end()
        await scene.owner.got("turn/completed", number)
        turns.append(turn_id)
    await scene.agree(thread_id)
    scene.mark()
    return thread_id, turns


async def told(scene: Scene, thread_id: str) -> str:
    """What the model of the thread's next turn is told."""
    _, turn = await scene.stage.begin(scene.owner, thread_id, "next")
    context = json.dumps(turn.job.context)
    turn.end()
    await scene.mere.until(lambda _: scene.told(thread_id) == "idle")
    return context


async def turn_ids(scene: Scene, thread_id: str) -> list[str]:
    return [turn["id"] for turn in (await scene.read(thread_id, turns=True))["thread"]["turns"]]


AGAIN = ["status notLoaded", "status idle"]


@pytest.mark.parametrize("loaded", [True, False])
@pytest.mark.parametrize("method", ["revert", "rollback"])
async def test_what_was_taken_back_is_gone_for_clients_model_and_counters(
    scene: Scene, method: str, loaded: bool
) -> None:
    thread_id, turns = await three_turns(scene)
    await scene.act(scene.owner, thread_id, SetName("mine")).answer()
    if not loaded:
        await scene.unload(thread_id)
    scene.mark()
    act = Revert(turns[1]) if method == "revert" else Rollback(2)
    answer = await scene.act(scene.owner, thread_id, act).answer()
    if not loaded:
        await scene.gone(thread_id)
    before = AGAIN if loaded else []
    assert scene.news(scene.owner) == [*before, "result", "thread/reverted"]
    assert scene.news(scene.mere) == [*before, "thread/reverted"]
    assert await scene.agree(thread_id) == ("idle" if loaded else "notLoaded")
    thread = answer["thread"]
    assert (thread["name"], thread["preview"]) == ("mine", "tell one")
    if method == "revert":
        assert thread["turns"] == []
        assert (answer["turnsBackwardsCursor"] is None, answer["itemsBackwardsCursor"] is None) == (
            False,
            False,
        )
    else:
        assert [turn["id"] for turn in thread["turns"]] == turns[:1]
    assert await turn_ids(scene, thread_id) == turns[:1]
    resumed = scene.stage.resume(scene.owner, thread_id)
    await resumed.answer()
    usage = scene.owner.params("thread/tokenUsage/updated")[-1]
    assert (usage["tokenUsage"]["total"]["totalTokens"], usage["turnId"]) == (10, turns[0])
    context = await told(scene, thread_id)
    assert "answer one" in context
    assert "answer two" not in context
    await scene.agree(thread_id)


@pytest.mark.parametrize("lost", [False, True])
async def test_what_was_taken_back_stays_gone_after_a_restart(tmp_path: Path, lost: bool) -> None:
    async with opened(tmp_path) as stage:
        scene = Scene(stage)
        thread_id, turns = await three_turns(scene)
        await scene.act(scene.owner, thread_id, SetName("mine")).answer()
        await scene.act(scene.owner, thread_id, Revert(turns[2])).answer()
        await scene.act(scene.owner, thread_id, InjectItems([raw_message("put in")])).answer()
        fourth = await scene.whole_turn(scene.owner, thread_id, "answer four")
    if lost:
        for file in stage.home.root.glob("*.sqlite*"):
            file.unlink()
    async with opened(tmp_path) as stage:
        scene = Scene(stage)
        # Names come back with the rebuild, for which a list waits.
        assert list(await scene.listed()) == [thread_id]
        await stage.resume(scene.owner, thread_id).answer()
        assert await turn_ids(scene, thread_id) == [*turns[:2], fourth]
        assert (await scene.read(thread_id))["thread"]["name"] == "mine"
        assert scene.owner.params("thread/tokenUsage/updated")[-1]["tokenUsage"]["total"]["totalTokens"] == 30
        context = await told(scene, thread_id)
        assert all(text in context for text in ("answer two", "put in", "answer four"))
        assert "answer three" not in context
        await scene.agree(thread_id)


async def test_a_thread_can_be_reverted_again_and_to_nothing(scene: Scene) -> None:
    thread_id, turns = await three_turns(scene)
    for count in (2, 1, 0):
        await scene.act(scene.owner, thread_id, Revert(turns[count])).answer()
        assert await turn_ids(scene, thread_id) == turns[:count]
        await scene.agree(thread_id)
    context = await told(scene, thread_id)
    assert "answer" not in context


@pytest.mark.parametrize("which", ["an earlier turn", "the running turn"])
async def test_a_running_turn_is_interrupted_by_a_revert_and_leaves_nothing(scene: Scene, which: str) -> None:
    thread_id, turns = await three_turns(scene)
    running, turn = await scene.stage.begin(scene.owner, thread_id, "never seen")
    await takes(turn)
    await says(turn, "late", "never kept")
    await scene.stage.handled(thread_id)
    scene.mark()
    first = running if which == "the running turn" else turns[1]
    await scene.act(scene.owner, thread_id, Revert(first)).answer()
    assert scene.news(scene.other) == [
        "status idle", "turn/completed", *AGAIN, "thread/reverted",
    ]  # fmt: skip
    assert scene.owner.params("turn/completed")[-1]["turn"]["status"] == "interrupted"
    await turn.ended.wait()
    assert await scene.agree(thread_id) == "idle"
    assert await turn_ids(scene, thread_id) == turns[: 3 if first == running else 1]
    assert "never" not in await told(scene, thread_id)
    await scene.agree(thread_id)


async def test_a_revert_that_is_refused_leaves_the_running_turn_alone(scene: Scene) -> None:
    thread_id = await scene.thread("running")
    assert scene.turn is not None
    with pytest.raises(RpcError, match="turn not found: none"):
        await scene.act(scene.owner, thread_id, Revert("none")).answer()
    assert (await scene.agree(thread_id), scene.turn.cancelled) == ("active", False)


async def test_a_rollback_takes_back_as_many_turns_as_there_are(scene: Scene) -> None:
    thread_id = uuid_of(0xC01)
    store = scene.stage.store
    await create(store, thread_id, model_provider="openai")
    lines = []
    for number in range(1, 1005):
        turn_id = turn_of(thread_id, number)
        lines += turn_begin(thread_id, turn_id, "more", START_MS)
        lines += turn_end(thread_id, turn_id, "answer", START_MS)
    await store.commit(Batch(thread_id, lines))
    store.release(thread_id)
    answer = await scene.act(scene.owner, thread_id, Rollback(1003)).answer()
    assert [turn["id"] for turn in answer["thread"]["turns"]] == [
        turn_of(thread_id, 0),
        turn_of(thread_id, 1),
    ]
    answer = await scene.act(scene.owner, thread_id, Rollback(2**32 - 1)).answer()
    assert answer["thread"]["turns"] == []
    scene.mark()
    assert (await scene.act(scene.owner, thread_id, Rollback(1)).answer())["thread"]["turns"] == []
    assert scene.news(scene.mere) == [], "nothing was taken back"


@pytest.mark.parametrize("state", ["idle", "running"])
async def test_a_revert_that_cannot_be_written_changes_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    thread_id = await scene.thread(state)
    turns = await turn_ids(scene, thread_id)

    async def full(*_: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise StoreError("the disk is full", "disk")

    monkeypatch.setattr(scene.stage.store, "revert", full)
    with pytest.raises(RpcError, match="the disk is full"):
        await scene.act(scene.owner, thread_id, Revert(turns[0])).answer()
    monkeypatch.undo()
    assert [scene.news(peer) for peer in scene.peers] == [["error"], [], []]
    assert await turn_ids(scene, thread_id) == turns
    assert scene.turn is None or not scene.turn.cancelled
    await scene.agree(thread_id)
    await scene.act(scene.owner, thread_id, Revert(turns[0])).answer()
    assert await turn_ids(scene, thread_id) == []
    await scene.agree(thread_id)


@pytest.mark.parametrize("state", ["idle", "running", "unloaded"])
@pytest.mark.parametrize("reading", ["resume_state", "history_cursors"])
async def test_a_history_that_cannot_be_read_after_a_revert_is_read_anew_by_the_next_resume(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, state: str, reading: str
) -> None:
    thread_id = await scene.thread(state)
    turns = await turn_ids(scene, thread_id)
    store, revert = scene.stage.store, scene.stage.store.revert

    async def unreadable(*_: Any, **__: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise StoreError("the disk cannot be read", "disk")

    async def and_then_fails(*arguments: Any) -> None:
        await revert(*arguments)
        monkeypatch.setattr(store, reading, unreadable)

    monkeypatch.setattr(store, "revert", and_then_fails)
    with pytest.raises(RpcError, match="the disk cannot be read"):
        await scene.act(scene.owner, thread_id, Revert(turns[0])).answer()
    await scene.gone(thread_id)
    assert ("thread/closed" in scene.news(scene.other)) == (state != "unloaded")
    monkeypatch.undo()
    assert await scene.agree(thread_id) == "notLoaded"
    if scene.turn is not None:
        assert scene.owner.params("turn/completed")[-1]["turn"]["status"] == "interrupted"
    await scene.stage.resume(scene.owner, thread_id).answer()
    assert await turn_ids(scene, thread_id) == []
    await scene.whole_turn(scene.owner, thread_id)
    assert await scene.agree(thread_id) == "idle"


@pytest.mark.parametrize("state", ["idle", "unloaded"])
async def test_a_thread_whose_history_was_cut_leaves_when_the_rest_cannot_be_recorded(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    thread_id = await scene.thread(state)
    turns = await turn_ids(scene, thread_id)
    store = scene.stage.store

    async def full(*_: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise StoreError("the disk is full", "disk")

    # The first unread turn is taken back: that is to be recorded, too.
    monkeypatch.setattr(store, "commit", full)
    with pytest.raises(RpcError, match="the disk is full"):
        await scene.act(scene.owner, thread_id, Revert(turns[0])).answer()
    await scene.gone(thread_id)
    assert ("thread/closed" in scene.news(scene.other)) == (state != "unloaded")
    monkeypatch.undo()
    assert await scene.agree(thread_id) == "notLoaded"
    await scene.stage.resume(scene.owner, thread_id).answer()
    assert await turn_ids(scene, thread_id) == []
    await scene.whole_turn(scene.owner, thread_id)
    assert await scene.agree(thread_id) == "idle"


async def test_an_unread_turn_that_is_taken_back_is_not_unread_any_more(scene: Scene) -> None:
    thread_id, turns = await three_turns(scene)
    state = (await scene.read(thread_id))["readState"]
    assert state["firstUnread"]["turnId"] == turns[0]
    wire = {"threadId": thread_id, "operation": {"type": "unread"}, "expectedRevision": state["revision"]}
    act = UpdateReadState(ReadStateUpdateParams.from_wire(wire))
    state = (await scene.act(scene.owner, thread_id, act).answer())["readState"]
    assert state["firstUnread"]["turnId"] == turns[2]
    scene.mark()
    await scene.act(scene.owner, thread_id, Revert(turns[2])).answer()
    after = (await scene.read(thread_id))["readState"]
    assert after["firstUnread"] is None
    assert after["revision"] != state["revision"]
    assert "thread/readState/changed" in scene.news(scene.other)
    assert "thread/readState/changed" not in scene.news(scene.mere)
    assert scene.other.params("thread/readState/changed")[-1]["readState"] == after
    await scene.agree(thread_id)


# -- inject_items --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["fresh", "idle", "failed", "ephemeral"])
async def test_what_was_injected_reaches_the_next_turn_and_is_shown_nowhere(scene: Scene, state: str) -> None:
    thread_id = await scene.thread(state)
    items = [raw_message("put in"), {"type": "of_a_kind_nobody_knows", "x": 1}]
    await scene.act(scene.mere, thread_id, InjectItems([*items])).answer()
    assert [scene.news(peer) for peer in scene.peers] == [[], [], ["result"]]
    assert scene.where(thread_id) == ("" if state == "ephemeral" else "sessions")
    await scene.agree(thread_id)
    if state in ("idle", "failed"):
        shown = json.dumps((await scene.read(thread_id, turns=True))["thread"])
        assert "put in" not in shown
    _, turn = await scene.stage.begin(scene.owner, thread_id)
    assert turn.job.context[-2:] == items


async def test_what_was_injected_while_a_turn_runs_reaches_the_next_one(scene: Scene) -> None:
    thread_id = await scene.thread("running")
    assert scene.turn is not None
    await scene.act(scene.owner, thread_id, InjectItems([raw_message("put in")])).answer()
    await says(scene.turn, "m", "the end")
    scene.turn.end()
    await scene.mere.until(lambda _: scene.told(thread_id) == "idle")
    assert "put in" in await told(scene, thread_id)


async def test_what_was_injected_into_a_fresh_thread_survives_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as stage:
        scene = Scene(stage)
        thread_id = await scene.thread("fresh")
        await scene.act(scene.owner, thread_id, InjectItems([raw_message("put in")])).answer()
    async with opened(tmp_path) as stage:
        scene = Scene(stage)
        await stage.resume(scene.owner, thread_id).answer()
        assert "put in" in await told(scene, thread_id)
        await scene.agree(thread_id)


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([], "items must not be empty"),
        (["x"], r"items\[0\] is not a valid response item: "),
        ([{"type": "x"}, {}], r"items\[1\] is not a valid response item: missing field `type`"),
        ([{"type": "message", "role": "user"}], r"items\[0\] is not a valid response item: "),
    ],
)
@pytest.mark.parametrize("state", ["fresh", "idle"])
async def test_items_that_are_none_are_refused_together(
    scene: Scene, items: list[Any], text: str, state: str
) -> None:
    thread_id = await scene.thread(state)
    lines = scene.stage.lines(thread_id)
    with pytest.raises(RpcError, match=text):
        await scene.act(scene.owner, thread_id, InjectItems([*items])).answer()
    assert scene.stage.lines(thread_id) == lines
    await scene.agree(thread_id)


@pytest.mark.parametrize("state", ["fresh", "idle", "running"])
async def test_items_that_could_not_be_recorded_are_not_in_the_context(scene: Scene, state: str) -> None:
    thread_id = await scene.thread(state)
    scene.stage.store.broken = lambda _: True
    with pytest.raises(RpcError, match="the disk is full"):
        await scene.act(scene.owner, thread_id, InjectItems([raw_message("put in")])).answer()
    scene.stage.store.broken = None
    assert [scene.news(peer) for peer in scene.peers] == [["error"], [], []]
    await scene.agree(thread_id)
    if scene.turn is not None:
        assert not scene.turn.cancelled, "the turn had nothing to do with it"
        scene.turn.end()
        await scene.mere.until(lambda _: scene.told(thread_id) == "idle")
    assert "put in" not in await told(scene, thread_id)
