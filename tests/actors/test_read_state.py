"""Read states: one truth for all clients, and nobody overwrites what he has not seen."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from actors.archiving import Archive, Unarchive
from actors.read_state import UpdateReadState
from protocol.errors import RpcError
from protocol.lifecycle_methods import ReadStateUpdateParams
from protocol.thread_methods import ThreadListParams
from tests.actors.acts_stage import Scene
from tests.actors.stage import Stage, opened
from tests.support.in_memory import RecordingPeer, RecordingReply


@pytest.fixture
async def scene(stage: Stage) -> Scene:
    return Scene(stage)


def mark(scene: Scene, peer: RecordingPeer, thread_id: str, what: str, revision: str) -> RecordingReply:
    wire = {"threadId": thread_id, "operation": {"type": what}, "expectedRevision": revision}
    return scene.act(peer, thread_id, UpdateReadState(ReadStateUpdateParams.from_wire(wire)))


async def state_of(scene: Scene, thread_id: str) -> Any:
    """What thread/read says; the list must say the same."""
    known = (await scene.read(thread_id))["readState"]
    page = await scene.catalogue.list_threads(ThreadListParams())
    listed = {key: state.to_wire() for key, state in page.read_states.items()}
    if thread_id in {row.id for row in page.data}:
        assert listed.get(thread_id) == known
    return known


def unread(state: Any) -> str | None:
    first = state["firstUnread"]
    return None if first is None else first["turnId"]


async def test_turns_make_a_thread_unread_from_the_first_on_and_reading_ends_that(scene: Scene) -> None:
    thread_id = await scene.stage.start(scene.owner)
    assert await state_of(scene, thread_id) is None
    first = await scene.whole_turn(scene.owner, thread_id)
    one = await state_of(scene, thread_id)
    second = await scene.whole_turn(scene.owner, thread_id)
    two = await state_of(scene, thread_id)
    assert (unread(one), unread(two)) == (first, first)
    assert one["revision"] != two["revision"]
    scene.mark()
    answer = await mark(scene, scene.mere, thread_id, "read", two["revision"]).answer()
    assert unread(answer["readState"]) is None
    assert scene.news(scene.owner) == ["thread/readState/changed"]
    assert scene.news(scene.mere) == ["result"]
    assert await state_of(scene, thread_id) == answer["readState"]
    answer = await mark(scene, scene.mere, thread_id, "unread", answer["readState"]["revision"]).answer()
    assert unread(answer["readState"]) == second
    await scene.agree(thread_id)


async def test_a_turn_that_fails_is_something_to_read_and_an_interrupted_one_is_not(scene: Scene) -> None:
    failed = await scene.thread("failed")
    assert unread(await state_of(scene, failed)) is not None
    thread_id = await scene.stage.start(scene.owner)
    turn_id, _ = await scene.stage.begin(scene.owner, thread_id)
    await scene.stage.interrupt(scene.owner, thread_id, turn_id).answer()
    assert unread(await state_of(scene, thread_id)) is None


@pytest.mark.parametrize("state", ["idle", "unloaded", "archived", "running"])
@pytest.mark.parametrize("order", list(permutations(("read", "unread"))))
async def test_of_two_clients_with_one_revision_the_first_wins(
    scene: Scene, state: str, order: tuple[str, str]
) -> None:
    thread_id = await scene.thread(state)
    before = await state_of(scene, thread_id)
    one = mark(scene, scene.owner, thread_id, order[0], before["revision"])
    two = mark(scene, scene.other, thread_id, order[1], before["revision"])
    winner = (await one.answer())["readState"]
    with pytest.raises(RpcError, match="read state changed"):
        await two.answer()
    assert await state_of(scene, thread_id) == winner
    again = (await mark(scene, scene.other, thread_id, order[1], winner["revision"]).answer())["readState"]
    assert await state_of(scene, thread_id) == again
    assert len({before["revision"], winner["revision"], again["revision"]}) == 3


async def test_a_read_state_survives_archive_unload_and_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as stage:
        scene = Scene(stage)
        thread_id = await scene.thread("idle")
        known = await state_of(scene, thread_id)
        await scene.act(scene.owner, thread_id, Archive()).answer()
        assert await state_of(scene, thread_id) == known
        await scene.act(scene.owner, thread_id, Unarchive()).answer()
        await stage.resume(scene.owner, thread_id).answer()
        assert await state_of(scene, thread_id) == known
    async with opened(tmp_path) as stage:
        assert await state_of(Scene(stage), thread_id) == known


async def test_a_read_state_that_could_not_be_recorded_has_not_changed(scene: Scene) -> None:
    thread_id = await scene.thread("running")
    before = await state_of(scene, thread_id)
    scene.stage.store.broken = lambda batch: batch.read_state is not None
    with pytest.raises(RpcError, match="the disk is full"):
        await mark(scene, scene.owner, thread_id, "read", before["revision"]).answer()
    scene.stage.store.broken = None
    assert [scene.news(peer) for peer in scene.peers] == [["error"], [], []]
    assert await state_of(scene, thread_id) == before
    assert scene.turn is not None
    assert not scene.turn.cancelled
    await mark(scene, scene.owner, thread_id, "read", before["revision"]).answer()
    await scene.agree(thread_id)
