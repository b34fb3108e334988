"""Archiving, bringing back and deleting: who goes along, and every race with what else clients do."""

from __future__ import annotations

import re
from typing import Any

import pytest
import trio
import trio.testing

from actors.archiving import Archive, Delete, Unarchive
from actors.naming import SetName
from protocol.errors import RpcError
from tests.actors.acts_stage import CommitGate, Scene
from tests.actors.stage import Stage, question
from tests.persistence.sessions import create, uuid_of
from tests.support.in_memory import RecordingReply

PARENT, CHILD, GRANDCHILD, STRANGER = (uuid_of(number) for number in range(0xA01, 0xA05))
FAMILY = (PARENT, CHILD, GRANDCHILD)


@pytest.fixture
async def scene(stage: Stage) -> Scene:
    return Scene(stage)


@pytest.fixture
async def family(scene: Scene) -> Scene:
    """Three generations and a stranger, none of them loaded."""
    store = scene.stage.store
    await create(store, PARENT, "parent", model_provider="openai")
    await create(store, CHILD, "child", model_provider="openai", parent_thread_id=PARENT)
    await create(store, GRANDCHILD, "grandchild", model_provider="openai", parent_thread_id=CHILD)
    await create(store, STRANGER, "stranger", model_provider="openai")
    for thread_id in (*FAMILY, STRANGER):
        store.release(thread_id)
    return scene


def fails(reply: RecordingReply, text: str) -> None:
    assert reply.failure is not None, f"answered with {reply.value}"
    assert text in reply.failure.message


def notes(scene: Scene, method: str) -> list[str]:
    return [params["threadId"] for params in scene.mere.params(method)]


# -- descendants ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loaded", [(), FAMILY, (CHILD,), (GRANDCHILD,)])
@pytest.mark.parametrize(
    ("act", "method", "where"), [(Archive(), "thread/archived", "archived"), (Delete(), "thread/deleted", "")]
)
async def test_descendants_go_with_their_parent(
    family: Scene, act: Any, method: str, where: str, loaded: tuple[str, ...]
) -> None:
    for thread_id in loaded:
        await family.stage.resume(family.owner, thread_id).answer()
    await family.act(family.owner, PARENT, act).answer()
    await family.gone(PARENT)
    for thread_id in FAMILY:
        assert await family.agree(thread_id) == "notLoaded"
        assert family.where(thread_id) == where
    assert notes(family, method) == list(FAMILY)
    assert family.where(STRANGER) == "sessions"


async def test_a_turn_of_a_descendant_is_interrupted_and_its_question_settled(family: Scene) -> None:
    stage, owner = family.stage, family.owner
    await stage.resume(owner, CHILD).answer()
    turn_id, turn = await stage.begin(owner, CHILD)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turn.port.ask, question())
        await owner.got("item/commandExecution/requestApproval")
        await family.act(owner, PARENT, Archive()).answer()
        await turn.ended.wait()
        nursery.cancel_scope.cancel()
    assert owner.params("turn/completed")[0]["turn"]["status"] == "interrupted"
    assert len(owner.params("serverRequest/resolved")) == 1
    last = (await family.read(CHILD, turns=True))["thread"]["turns"][-1]
    assert (last["id"], last["status"]) == (turn_id, "interrupted")
    assert last["completedAt"] is not None
    await family.agree(CHILD)


async def test_a_thread_whose_provider_is_gone_can_be_renamed_archived_and_deleted_all_the_same(
    scene: Scene,
) -> None:
    await create(scene.stage.store, PARENT, "old", model_provider="gone")
    scene.stage.store.release(PARENT)
    with pytest.raises(RpcError, match="Model provider `gone` not found"):
        await scene.stage.resume(scene.owner, PARENT).answer()
    for act, where in (
        (SetName("kept"), "sessions"),
        (Archive(), "archived"),
        (Unarchive(), "sessions"),
        (Delete(), ""),
    ):
        await scene.act(scene.owner, PARENT, act).answer()
        assert scene.where(PARENT) == where
        await scene.agree(PARENT)


async def test_a_descendant_that_is_archived_already_is_not_told_again_and_is_deleted_all_the_same(
    family: Scene,
) -> None:
    await family.act(family.owner, CHILD, Archive()).answer()
    assert notes(family, "thread/archived") == [CHILD, GRANDCHILD]
    await family.act(family.owner, PARENT, Archive()).answer()
    assert notes(family, "thread/archived") == [CHILD, GRANDCHILD, PARENT]
    await family.act(family.owner, PARENT, Delete()).answer()
    assert notes(family, "thread/deleted") == list(FAMILY)
    for thread_id in FAMILY:
        await family.agree(thread_id)


async def test_unarchive_brings_back_the_thread_alone(family: Scene) -> None:
    await family.act(family.owner, PARENT, Archive()).answer()
    await family.act(family.owner, PARENT, Unarchive()).answer()
    assert [family.where(each) for each in FAMILY] == ["sessions", "archived", "archived"]
    for thread_id in FAMILY:
        await family.agree(thread_id)


def relocation_of(scene: Scene, thread_id: str) -> CommitGate:
    return CommitGate(scene, lambda batch: batch.thread_id == thread_id and batch.relocate is not None)


@pytest.mark.parametrize("loaded", [False, True])
async def test_a_descendant_that_is_resumed_while_its_parent_goes_is_archived_and_says_so(
    family: Scene, loaded: bool
) -> None:
    stage = family.stage
    if loaded:
        await stage.resume(family.owner, CHILD).answer()
    gate = relocation_of(family, PARENT)
    archived = family.act(family.owner, PARENT, Archive())
    await gate.reached.wait()
    late = stage.resume(family.other, CHILD)
    await trio.testing.wait_all_tasks_blocked()
    assert late.failure is None, "it may not be read before it is where it will be"
    gate.open.set()
    await archived.answer()
    with pytest.raises(RpcError, match=f"session {CHILD} is archived"):
        await late.answer()
    await family.gone(CHILD)
    await family.agree(CHILD)


async def test_a_descendant_can_be_resumed_when_its_parent_could_not_be_archived(family: Scene) -> None:
    stage = family.stage
    await stage.resume(family.owner, CHILD).answer()
    stage.store.broken = lambda batch: batch.relocate is not None
    gate = relocation_of(family, PARENT)
    refused = family.act(family.owner, PARENT, Archive())
    await gate.reached.wait()
    resumed = stage.resume(family.owner, CHILD)
    gate.open.set()
    with pytest.raises(RpcError, match="the disk is full"):
        await refused.answer()
    await resumed.answer()
    assert await family.agree(CHILD) == "idle"
    assert notes(family, "thread/archived") == []
    stage.store.broken = None
    await family.act(family.owner, PARENT, Archive()).answer()
    assert notes(family, "thread/archived") == list(FAMILY)
    await family.agree(CHILD)


@pytest.mark.parametrize(
    "order", [(PARENT, CHILD, GRANDCHILD), (GRANDCHILD, CHILD, PARENT), (CHILD, PARENT, GRANDCHILD)]
)
@pytest.mark.parametrize("loaded", [(), FAMILY, (CHILD,)])
async def test_a_family_that_is_archived_one_by_one_at_once_is_told_once_each(
    family: Scene, order: tuple[str, ...], loaded: tuple[str, ...]
) -> None:
    for thread_id in loaded:
        await family.stage.resume(family.owner, thread_id).answer()
    replies = [family.act(family.owner, each, Archive()) for each in order]
    resumed = [family.stage.resume(family.other, each) for each in order]
    for reply in [*replies, *resumed]:
        await reply._done.wait()
        if reply.failure is not None:
            assert re.search("no rollout found|is archived", reply.failure.message)
    for each in FAMILY:
        await family.gone(each)
        assert family.where(each) == "archived"
        await family.agree(each)
    assert sorted(notes(family, "thread/archived")) == list(FAMILY)


@pytest.mark.parametrize("act", [Archive(), Delete()])
async def test_a_circle_of_parents_comes_to_an_end(scene: Scene, act: Any) -> None:
    store = scene.stage.store
    await create(store, PARENT, "one", model_provider="openai", parent_thread_id=GRANDCHILD)
    await create(store, CHILD, "two", model_provider="openai", parent_thread_id=PARENT)
    await create(store, GRANDCHILD, "three", model_provider="openai", parent_thread_id=CHILD)
    for thread_id in FAMILY:
        store.release(thread_id)
    replies = [scene.act(scene.owner, each, act) for each in FAMILY]
    for reply in replies:
        await reply._done.wait()
        if reply.failure is not None:
            fails(reply, "no rollout found")
    for each in FAMILY:
        await scene.gone(each)
        assert scene.where(each) != "sessions"
        await scene.agree(each)


# -- races on one thread -------------------------------------------------------------------------------------


async def test_what_stands_behind_an_archive_is_answered_once_as_for_an_archived_thread(scene: Scene) -> None:
    stage = scene.stage
    thread_id = await scene.thread("idle")
    replies = {
        "archive": scene.act(scene.owner, thread_id, Archive()),
        "turn": stage.turn(scene.owner, thread_id),
        "steer": stage.steer(scene.owner, thread_id, "t"),
        "interrupt": stage.interrupt(scene.owner, thread_id, "t"),
        "resume": stage.resume(scene.other, thread_id),
        "read": stage.read(scene.mere, thread_id, turns=True),
        "name": scene.act(scene.owner, thread_id, SetName("late")),
        "unsubscribe": stage.unsubscribe(scene.owner, thread_id),
        "again": scene.act(scene.other, thread_id, Archive()),
    }
    await replies["again"]._done.wait()
    await scene.gone(thread_id)
    for name in ("turn", "steer", "interrupt"):
        fails(replies[name], f"thread not found: {thread_id}")
    fails(replies["resume"], f"session {thread_id} is archived")
    fails(replies["name"], f"no rollout found for thread id {thread_id}")
    fails(replies["again"], f"no rollout found for thread id {thread_id}")
    assert replies["archive"].value == {}
    assert replies["unsubscribe"].value == {"status": "notLoaded"}
    read = replies["read"].value["thread"]
    assert (read["status"]["type"], len(read["turns"]), "archived_sessions" in read["path"]) == (
        "notLoaded",
        1,
        True,
    )
    assert notes(scene, "thread/archived") == [thread_id]
    await scene.agree(thread_id)


async def test_what_stands_behind_a_delete_is_answered_once_as_for_an_unknown_thread(scene: Scene) -> None:
    stage = scene.stage
    thread_id = await scene.thread("running")
    replies = {
        "delete": scene.act(scene.owner, thread_id, Delete()),
        "turn": stage.turn(scene.owner, thread_id),
        "resume": stage.resume(scene.other, thread_id),
        "read": stage.read(scene.mere, thread_id),
        "name": scene.act(scene.owner, thread_id, SetName("late")),
        "unarchive": scene.act(scene.owner, thread_id, Unarchive()),
        "again": scene.act(scene.other, thread_id, Delete()),
    }
    await replies["again"]._done.wait()
    await scene.gone(thread_id)
    assert replies["delete"].value == {}
    fails(replies["turn"], f"thread not found: {thread_id}")
    fails(replies["resume"], f"no rollout found for thread id {thread_id}")
    fails(replies["read"], f"thread not loaded: {thread_id}")
    fails(replies["name"], f"no rollout found for thread id {thread_id}")
    fails(replies["unarchive"], f"no archived rollout found for thread id {thread_id}")
    fails(replies["again"], f"no rollout found for thread id {thread_id}")
    assert notes(scene, "thread/deleted") == [thread_id]
    await scene.agree(thread_id)


async def test_a_resume_behind_an_unarchive_finds_the_thread(scene: Scene) -> None:
    thread_id = await scene.thread("archived")
    back = scene.act(scene.owner, thread_id, Unarchive())
    resumed = scene.stage.resume(scene.other, thread_id, model="another-model")
    answer = await resumed.answer()
    assert back.value["thread"]["status"]["type"] == "notLoaded"
    assert answer["model"] == "another-model"
    assert await scene.agree(thread_id) == "idle"
    await scene.whole_turn(scene.other, thread_id)
    await scene.agree(thread_id)


async def test_an_archive_and_an_unarchive_keep_what_was_said_and_when(scene: Scene) -> None:
    thread_id = await scene.thread("idle")
    before = (await scene.read(thread_id, turns=True))["thread"]
    await scene.act(scene.owner, thread_id, SetName("mine")).answer()
    await scene.act(scene.owner, thread_id, Archive()).answer()
    back = (await scene.act(scene.owner, thread_id, Unarchive()).answer())["thread"]
    after = (await scene.read(thread_id, turns=True))["thread"]
    assert (after["turns"], after["path"]) == (before["turns"], before["path"])
    assert (back["name"], back["turns"], back["path"]) == ("mine", [], before["path"])
    assert back["recencyAt"] == before["recencyAt"]
    await scene.agree(thread_id)


async def test_nobody_is_subscribed_to_what_was_archived_and_brought_back(scene: Scene) -> None:
    stage = scene.stage
    thread_id = await scene.thread("idle")
    await scene.act(scene.owner, thread_id, Archive()).answer()
    await scene.act(scene.owner, thread_id, Unarchive()).answer()
    await stage.resume(scene.mere, thread_id).answer()
    scene.mark()
    await scene.whole_turn(scene.mere, thread_id)
    assert set(scene.news(scene.owner)) == {"status active", "status idle"}
    await scene.agree(thread_id)


@pytest.mark.parametrize("first", ["archive", "turn"])
async def test_a_turn_and_an_archive_in_either_order(scene: Scene, first: str) -> None:
    thread_id = await scene.thread("idle")
    moves = {
        "archive": lambda: scene.act(scene.owner, thread_id, Archive()),
        "turn": lambda: scene.stage.turn(scene.owner, thread_id, "one more"),
    }
    replies = {name: moves[name]() for name in sorted(moves, key=lambda name: name != first)}
    await replies["archive"].answer()
    await scene.gone(thread_id)
    if first == "archive":
        fails(replies["turn"], f"thread not found: {thread_id}")
    else:
        assert replies["turn"].value["turn"]["status"] == "inProgress"
        assert scene.owner.params("turn/completed")[-1]["turn"]["status"] == "interrupted"
        turns = (await scene.read(thread_id, turns=True))["thread"]["turns"]
        assert [turn["status"] for turn in turns] == ["completed", "interrupted"]
        said = [item for item in turns[1]["items"] if item["type"] == "userMessage"]
        assert [part["text"] for item in said for part in item["content"]] == ["one more"]
    await scene.agree(thread_id)


async def test_a_client_that_has_gone_before_its_resume_was_served_pins_nothing(scene: Scene) -> None:
    thread_id = await scene.thread("idle")
    gate = relocation_of(scene, thread_id)
    scene.act(scene.owner, thread_id, Archive())
    await gate.reached.wait()
    scene.act(scene.owner, thread_id, Unarchive())
    scene.stage.resume(scene.other, thread_id)
    scene.stage.supervisor.peer_gone(scene.other)
    gate.open.set()
    await scene.mere.until(lambda _: scene.told(thread_id) == "idle")
    await scene.stage.handled(thread_id)
    state = scene.stage.supervisor.live_state(thread_id)
    assert state is not None
    assert state.subscribers == {}


# -- a disk that fails ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["idle", "unloaded"])
@pytest.mark.parametrize("act", [Archive(), Delete()])
async def test_a_thread_that_cannot_be_put_away_stays_as_it_was(scene: Scene, act: Any, state: str) -> None:
    thread_id = await scene.thread(state)
    lines = scene.stage.lines(thread_id)
    scene.stage.store.broken = lambda batch: batch.relocate is not None
    with pytest.raises(RpcError, match="the disk is full"):
        await scene.act(scene.owner, thread_id, act).answer()
    assert [scene.news(peer) for peer in scene.peers] == [["error"], [], []]
    assert scene.stage.lines(thread_id) == lines
    await scene.agree(thread_id)
    scene.stage.store.broken = None
    await scene.act(scene.owner, thread_id, act).answer()
    await scene.gone(thread_id)
    await scene.agree(thread_id)


@pytest.mark.parametrize("act", [Archive(), Delete()])
async def test_a_turn_that_was_ended_for_an_act_that_then_fails_has_ended_for_everybody(
    scene: Scene, act: Archive | Delete
) -> None:
    thread_id = await scene.thread("running")
    scene.stage.store.broken = lambda batch: batch.relocate is not None
    with pytest.raises(RpcError, match="the disk is full"):
        await scene.act(scene.owner, thread_id, act).answer()
    await scene.owner.got("turn/completed", 2)
    await scene.stage.handled(thread_id)
    assert await scene.agree(thread_id) == "idle"
    ended = scene.owner.params("turn/completed")[-1]["turn"]
    assert (ended["id"], ended["status"]) == (scene.turn_id, "interrupted")
    assert scene.stage.terminal_lines(thread_id).count(scene.turn_id) == 1
    assert scene.owner.params("thread/archived") == scene.owner.params("thread/deleted") == []
    scene.stage.store.broken = None
    await scene.whole_turn(scene.owner, thread_id)
    await scene.agree(thread_id)


async def test_an_archived_thread_that_cannot_be_brought_back_stays_archived(scene: Scene) -> None:
    thread_id = await scene.thread("archived")
    scene.stage.store.broken = lambda batch: batch.relocate is not None
    with pytest.raises(RpcError, match="the disk is full"):
        await scene.act(scene.owner, thread_id, Unarchive()).answer()
    await scene.gone(thread_id)
    assert scene.news(scene.mere) == []
    await scene.agree(thread_id)
    scene.stage.store.broken = None
    await scene.act(scene.owner, thread_id, Unarchive()).answer()
    await scene.agree(thread_id)
