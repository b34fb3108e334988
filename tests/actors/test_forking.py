"""Forks: what they have of their source, that the source does not notice, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from actors.archiving import Archive, Delete
from agent.events import ContextAppended
from persistence.store import StoreError
from protocol.errors import RpcError
from protocol.lifecycle_methods import ThreadForkParams
from tests.actors.acts_stage import Scene
from tests.actors.stage import Stage, opened, says
from tests.persistence.sessions import create, uuid_of
from tests.support.in_memory import RecordingPeer, RecordingReply


@pytest.fixture
async def scene(stage: Stage) -> Scene:
    return Scene(stage)


def fork(scene: Scene, peer: RecordingPeer, thread_id: str, **params: Any) -> RecordingReply:
    reply = peer.reply()
    try:
        scene.stage.supervisor.fork(ThreadForkParams.from_wire({"threadId": thread_id, **params}), reply)
    except RpcError as error:
        reply.error(error)
    return reply


async def forked(scene: Scene, thread_id: str, **params: Any) -> dict[str, Any]:
    """A fork that must succeed, agreed upon by everybody: the answer."""
    answer: dict[str, Any] = await fork(scene, scene.other, thread_id, **params).answer()
    await scene.agree(answer["thread"]["id"])
    return answer


def shown(turns: list[dict[str, Any]]) -> list[tuple[str, str, list[str]]]:
    return [(turn["id"], turn["status"], [item["id"] for item in turn["items"]]) for turn in turns]


async def context_of_next_turn(scene: Scene, thread_id: str) -> str:
    """What the model of the thread's next turn is told, as text."""
    _, turn = await scene.stage.begin(scene.other, thread_id, "next")
    told = json.dumps(turn.job.context)
    turn.end()
    await scene.stage.handled(thread_id)
    return told


async def test_a_fork_has_the_turns_of_its_source_under_the_same_ids_and_goes_its_own_way(
    scene: Scene,
) -> None:
    stage = scene.stage
    source = await scene.thread("idle")
    await scene.whole_turn(scene.owner, source, "the second answer")
    before, lines = (await scene.read(source, turns=True))["thread"], stage.lines(source)
    scene.mark()
    answer = await forked(scene, source)
    thread = answer["thread"]
    assert scene.news(scene.mere) == ["thread/started"]
    assert scene.mere.params("thread/started")[-1]["thread"]["turns"] == []
    assert thread["turns"] == before["turns"]
    assert (thread["forkedFromId"], thread["sessionId"], thread["name"]) == (source, thread["id"], None)
    assert (thread["preview"], thread["status"]["type"]) == (before["preview"], "idle")
    assert stage.lines(source) == lines
    assert "the second answer" in await context_of_next_turn(scene, thread["id"])
    await scene.whole_turn(scene.owner, source)
    mine = (await scene.read(thread["id"], turns=True))["thread"]["turns"]
    theirs = (await scene.read(source, turns=True))["thread"]["turns"]
    assert (len(mine), len(theirs)) == (3, 3)
    assert mine[2]["id"] != theirs[2]["id"]
    await scene.agree(source)


async def test_a_fork_of_a_fork(scene: Scene) -> None:
    source = await scene.thread("idle")
    child = (await forked(scene, source))["thread"]["id"]
    await scene.whole_turn(scene.other, child, "said in the child")
    grandchild = (await forked(scene, child))["thread"]
    assert grandchild["forkedFromId"] == child
    assert len(grandchild["turns"]) == 2
    assert "said in the child" in await context_of_next_turn(scene, grandchild["id"])
    await scene.act(scene.owner, child, Delete()).answer()
    await scene.agree(grandchild["id"])
    assert len((await scene.read(grandchild["id"], turns=True))["thread"]["turns"]) == 3


@pytest.mark.parametrize("ephemeral", [False, True])
async def test_a_running_turn_is_interrupted_in_the_fork_and_goes_on_in_the_source(
    scene: Scene, ephemeral: bool
) -> None:
    source = await scene.thread("running")
    assert scene.turn is not None
    await says(scene.turn, "half", "the half of it")
    await scene.stage.handled(source)
    thread = (await forked(scene, source, ephemeral=ephemeral))["thread"]
    assert [turn["status"] for turn in thread["turns"]] == ["completed", "interrupted"]
    assert thread["turns"][1]["items"][-1]["text"] == "the half of it"
    assert (await scene.agree(source), scene.turn.cancelled) == ("active", False)
    _, next_turn = await scene.stage.begin(scene.other, thread["id"], "next")
    assert next_turn.job.interrupted_before
    assert "the half of it" in json.dumps(next_turn.job.context)
    scene.turn.end()
    await scene.owner.got("turn/completed", 2)
    assert scene.owner.params("turn/completed")[-1]["turn"]["status"] == "completed"
    await scene.stage.handled(source)
    turns = (await scene.read(source, turns=True))["thread"]["turns"]
    assert [turn["status"] for turn in turns] == ["completed", "completed"]


async def test_a_fork_up_to_a_turn_or_before_it(scene: Scene) -> None:
    source = await scene.thread("idle")
    second = await scene.whole_turn(scene.owner, source, "the second answer")
    await scene.whole_turn(scene.owner, source, "the third answer")
    turns = (await scene.read(source, turns=True))["thread"]["turns"]
    up_to = (await forked(scene, source, lastTurnId=second))["thread"]
    assert up_to["turns"] == turns[:2]
    before = (await forked(scene, source, beforeTurnId=second))["thread"]
    assert before["turns"] == turns[:1]
    none = (await forked(scene, source, beforeTurnId=turns[0]["id"]))["thread"]
    assert none["turns"] == []
    told = await context_of_next_turn(scene, up_to["id"])
    assert "the second answer" in told
    assert "the third answer" not in told
    without = (await forked(scene, source, lastTurnId=second, excludeTurns=True))["thread"]
    assert without["turns"] == []
    assert (await scene.read(without["id"], turns=True))["thread"]["turns"] == turns[:2]


async def test_what_a_fork_refuses(scene: Scene) -> None:
    source = await scene.thread("running")
    for params, text in (
        ({"lastTurnId": "a", "beforeTurnId": "b"}, "`beforeTurnId` cannot be combined with `lastTurnId`"),
        ({"lastTurnId": "none"}, "turn not found: none"),
        ({"beforeTurnId": "none"}, "turn not found: none"),
        ({"lastTurnId": scene.turn_id}, f"lastTurnId '{scene.turn_id}' identifies an in-progress turn"),
        ({"modelProvider": "nope"}, "failed to load configuration: Model provider `nope` not found"),
        ({"permissions": "p", "sandbox": "read-only"}, "`permissions` cannot be combined with `sandbox`"),
    ):
        with pytest.raises(RpcError) as refused:
            await fork(scene, scene.other, source, **params).answer()
        assert refused.value.message == text
    assert list(await scene.listed()) == [source]
    assert scene.news(scene.mere) == []
    assert await scene.agree(source) == "active"
    before_it = (await forked(scene, source, beforeTurnId=scene.turn_id))["thread"]
    assert [turn["status"] for turn in before_it["turns"]] == ["completed"]


@pytest.mark.parametrize("ephemeral", [False, True])
async def test_a_fork_runs_with_its_own_settings(scene: Scene, ephemeral: bool) -> None:
    source = await scene.thread("idle")
    answer = await forked(
        scene,
        source,
        ephemeral=ephemeral,
        model="another",
        cwd="/tmp",
        approvalPolicy="never",
        sandbox="read-only",
    )
    assert (answer["model"], answer["cwd"], answer["approvalPolicy"]) == ("another", "/tmp", "never")
    assert answer["sandbox"]["type"] == "readOnly"
    _, turn = await scene.stage.begin(scene.other, answer["thread"]["id"])
    assert (turn.job.settings.model, turn.job.settings.cwd) == ("another", "/tmp")
    same = await forked(scene, source, ephemeral=ephemeral)
    assert (same["model"], same["cwd"]) != ("another", "/tmp")


async def test_an_ephemeral_fork_is_nowhere_on_disk_and_knows_what_was_said(scene: Scene) -> None:
    source = await scene.thread("idle")
    files = sorted(scene.stage.home.sessions.rglob("*"))
    thread = (await forked(scene, source, ephemeral=True))["thread"]
    assert (thread["ephemeral"], thread["path"], len(thread["turns"])) == (True, None, 1)
    assert sorted(scene.stage.home.sessions.rglob("*")) == files
    assert "the first answer" in await context_of_next_turn(scene, thread["id"])
    assert sorted(scene.stage.home.sessions.rglob("*")) == files
    with pytest.raises(RpcError, match="no rollout found"):
        await fork(scene, scene.other, thread["id"]).answer()


async def test_a_fork_of_a_thread_that_is_not_loaded_does_not_load_it(scene: Scene) -> None:
    source = await scene.thread("unloaded")
    await forked(scene, source)
    await scene.gone(source)
    assert await scene.agree(source) == "notLoaded"
    assert scene.news(scene.mere) == ["thread/started"]


async def test_a_fork_of_a_spawned_thread_is_the_clients_own(scene: Scene) -> None:
    parent, child = uuid_of(0xB01), uuid_of(0xB02)
    await create(scene.stage.store, parent, "parent", model_provider="openai")
    await create(scene.stage.store, child, "child", model_provider="openai", parent_thread_id=parent)
    thread = (await forked(scene, child))["thread"]
    assert (thread["parentThreadId"], thread["source"], thread["forkedFromId"]) == (None, "vscode", child)
    await scene.act(scene.owner, parent, Archive()).answer()
    assert await scene.agree(thread["id"]) == "idle"


async def test_a_draining_daemon_does_not_fork(scene: Scene) -> None:
    source = await scene.thread("running")
    scene.stage.supervisor.begin_drain()
    with pytest.raises(RpcError, match="Server is draining") as refused:
        await fork(scene, scene.other, source).answer()
    assert refused.value.data == {"reason": "serverShuttingDown"}


@pytest.mark.parametrize("state", ["idle", "unloaded", "running"])
async def test_a_fork_that_cannot_be_written_leaves_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    source = await scene.thread(state)

    async def full(*_: Any, **__: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise StoreError("the disk is full", "disk")

    monkeypatch.setattr(scene.stage.store, "fork", full)
    with pytest.raises(RpcError, match="the disk is full"):
        await fork(scene, scene.other, source).answer()
    monkeypatch.undo()
    assert [scene.news(peer) for peer in scene.peers] == [[], ["error"], []]
    assert list(await scene.listed()) == [source]
    await scene.agree(source)
    await forked(scene, source)


@pytest.mark.parametrize("failing", ["read", "write"])
async def test_a_fork_that_cannot_be_opened_leaves_nothing(scene: Scene, failing: str) -> None:
    source = await scene.thread("idle")
    store = scene.stage.store
    if failing == "read":
        store.unreadable = True
    else:
        store.broken = lambda batch: batch.thread_id != source and batch.relocate is None
    with pytest.raises(RpcError, match="the disk"):
        await fork(scene, scene.other, source).answer()
    await trio.testing.wait_all_tasks_blocked()
    store.unreadable, store.broken = False, None
    assert [scene.news(peer) for peer in scene.peers] == [[], ["error"], []]
    assert list(await scene.listed()) == [source]
    assert scene.stage.supervisor.loaded_ids() == [source]
    await forked(scene, source)


@pytest.mark.parametrize("ephemeral", [False, True])
async def test_a_client_that_has_gone_before_its_fork_was_made_pins_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, ephemeral: bool
) -> None:
    source = await scene.thread("idle")
    fork(scene, scene.other, source, ephemeral=ephemeral)
    scene.stage.supervisor.peer_gone(scene.other)
    started = await scene.mere.got("thread/started", 2)
    thread_id = started["thread"]["id"]
    await scene.stage.handled(thread_id)
    state = scene.stage.supervisor.live_state(thread_id)
    assert state is not None
    assert state.subscribers == {}


async def test_a_fork_is_there_after_a_restart_with_its_counters(tmp_path: Path) -> None:
    async with opened(tmp_path) as stage:
        scene = Scene(stage)
        source = await scene.thread("idle")
        thread_id = (await forked(scene, source))["thread"]["id"]
    async with opened(tmp_path) as stage:
        scene = Scene(stage)
        await stage.resume(scene.other, thread_id).answer()
        assert await scene.agree(thread_id) == "idle"
        thread = (await scene.read(thread_id, turns=True))["thread"]
        assert (thread["forkedFromId"], len(thread["turns"])) == (source, 1)
        assert "the first answer" in await context_of_next_turn(scene, thread_id)


async def test_a_call_without_its_output_is_answered_in_what_the_fork_s_model_is_told(scene: Scene) -> None:
    source = await scene.thread("running")
    assert scene.turn is not None
    call = {"type": "function_call", "name": "exec_command", "arguments": "{}", "call_id": "open"}
    await scene.turn.post(ContextAppended((call,)))
    await scene.stage.handled(source)
    for ephemeral in (False, True):
        thread_id = (await forked(scene, source, ephemeral=ephemeral))["thread"]["id"]
        _, turn = await scene.stage.begin(scene.other, thread_id)
        assert [item for item in turn.job.context if item.get("call_id") == "open"] == [call]
