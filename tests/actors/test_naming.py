"""Names, repository facts and settings: kept, cleared, and never at the price of loading a thread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.archiving import Archive
from actors.naming import SetName, UpdateMetadata
from actors.settings_update import UpdateSettings
from protocol.errors import RpcError
from protocol.lifecycle_methods import MetadataUpdateParams, SearchParams, SettingsUpdateParams
from tests.actors.acts_stage import CommitGate, Scene
from tests.actors.stage import Stage, opened


@pytest.fixture
async def scene(stage: Stage) -> Scene:
    return Scene(stage)


def metadata(**params: Any) -> UpdateMetadata:
    return UpdateMetadata(MetadataUpdateParams.from_wire({"threadId": "", **params}))


async def git_info(scene: Scene, thread_id: str) -> Any:
    return (await scene.read(thread_id))["thread"]["gitInfo"]


@pytest.mark.parametrize("state", ["fresh", "idle", "running", "unloaded"])
async def test_a_name_is_trimmed_and_everywhere(scene: Scene, state: str) -> None:
    thread_id = await scene.thread(state)
    await scene.act(scene.mere, thread_id, SetName("\t the  name \n")).answer()
    assert (await scene.read(thread_id))["thread"]["name"] == "the  name"
    assert scene.where(thread_id) == "sessions"
    for peer in scene.peers:
        assert peer.params("thread/name/updated") == [
            {"threadId": thread_id, "threadName": "the  name"},
        ]
    await scene.agree(thread_id)


@pytest.mark.parametrize("name", ["", "  ", "\n\t"])
@pytest.mark.parametrize("state", ["fresh", "idle", "unloaded"])
async def test_a_blank_name_is_refused(scene: Scene, state: str, name: str) -> None:
    thread_id = await scene.thread(state)
    with pytest.raises(RpcError, match="thread name must not be empty"):
        await scene.act(scene.owner, thread_id, SetName(name)).answer()
    assert scene.where(thread_id) == ("" if state == "fresh" else "sessions")
    await scene.agree(thread_id)


async def test_a_thread_that_is_renamed_without_being_loaded_stays_unloaded(scene: Scene) -> None:
    thread_id = await scene.thread("unloaded")
    gate = CommitGate(scene, lambda batch: bool(batch.facts))
    reply = scene.act(scene.owner, thread_id, SetName("quiet"))
    await gate.reached.wait()
    assert await scene.agree(thread_id) == "notLoaded"
    gate.open.set()
    await reply.answer()
    await scene.gone(thread_id)
    assert await scene.agree(thread_id) == "notLoaded"
    assert scene.news(scene.mere) == ["thread/name/updated"]


async def test_a_resume_behind_a_rename_loads_the_thread_with_its_own_overrides(scene: Scene) -> None:
    thread_id = await scene.thread("unloaded")
    scene.act(scene.owner, thread_id, SetName("quiet"))
    answer = await scene.stage.resume(scene.other, thread_id, model="another", cwd="/tmp").answer()
    assert (answer["thread"]["name"], answer["model"], answer["cwd"]) == ("quiet", "another", "/tmp")
    assert scene.news(scene.mere) == ["thread/name/updated", "status idle", "thread/goal/cleared"]
    assert await scene.agree(thread_id) == "idle"
    _, turn = await scene.stage.begin(scene.other, thread_id)
    assert (turn.job.settings.model, turn.job.settings.cwd) == ("another", "/tmp")


async def test_a_resume_that_is_refused_behind_a_rename_leaves_the_thread_unloaded(scene: Scene) -> None:
    thread_id = await scene.thread("unloaded")
    renamed = scene.act(scene.owner, thread_id, SetName("quiet"))
    with pytest.raises(RpcError, match="Model provider `nope` not found"):
        await scene.stage.resume(scene.other, thread_id, modelProvider="nope").answer()
    assert renamed.value == {}
    await scene.gone(thread_id)
    assert await scene.agree(thread_id) == "notLoaded"


async def test_turns_and_settings_behind_a_rename_of_an_unloaded_thread_find_it_unloaded(
    scene: Scene,
) -> None:
    thread_id = await scene.thread("unloaded")
    scene.act(scene.owner, thread_id, SetName("quiet"))
    replies = [
        scene.stage.turn(scene.owner, thread_id),
        scene.stage.steer(scene.owner, thread_id, "t"),
        scene.stage.interrupt(scene.owner, thread_id, "t"),
        scene.act(scene.owner, thread_id, UpdateSettings(SettingsUpdateParams(thread_id="", model="m"))),
    ]
    for reply in replies:
        with pytest.raises(RpcError, match=f"thread not found: {thread_id}"):
            await reply.answer()
    await scene.gone(thread_id)
    await scene.agree(thread_id)


@pytest.mark.parametrize("state", ["fresh", "idle", "unloaded", "running"])
async def test_a_name_that_could_not_be_recorded_is_not_told(scene: Scene, state: str) -> None:
    thread_id = await scene.thread(state)
    scene.stage.store.broken = lambda batch: bool(batch.facts)
    with pytest.raises(RpcError, match="the disk is full"):
        await scene.act(scene.owner, thread_id, SetName("lost")).answer()
    scene.stage.store.broken = None
    assert [scene.news(peer) for peer in scene.peers] == [["error"], [], []]
    assert (await scene.read(thread_id))["thread"]["name"] is None
    assert scene.turn is None or not scene.turn.cancelled
    await scene.agree(thread_id)
    await scene.act(scene.owner, thread_id, SetName("kept")).answer()
    assert (await scene.read(thread_id))["thread"]["name"] == "kept"


# -- metadata ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["idle", "unloaded", "archived"])
async def test_what_is_left_out_stays_and_what_is_null_is_cleared(scene: Scene, state: str) -> None:
    thread_id = await scene.thread(state)
    everything = {"sha": "abc", "branch": "main", "originUrl": "git@x:y"}
    answer = await scene.act(scene.owner, thread_id, metadata(gitInfo=everything)).answer()
    assert answer["thread"]["gitInfo"] == everything
    await scene.act(scene.owner, thread_id, metadata(gitInfo={"branch": None})).answer()
    assert await git_info(scene, thread_id) == {"sha": "abc", "branch": None, "originUrl": "git@x:y"}
    await scene.act(scene.owner, thread_id, metadata(gitInfo={"sha": "def"})).answer()
    assert await git_info(scene, thread_id) == {"sha": "def", "branch": None, "originUrl": "git@x:y"}
    await scene.agree(thread_id)
    assert scene.news(scene.mere) == []


async def test_the_repository_facts_of_a_fresh_thread_survive_its_first_turn_and_a_restart(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as stage:
        scene = Scene(stage)
        thread_id = await scene.thread("fresh")
        await scene.act(scene.owner, thread_id, metadata(gitInfo={"branch": "mine"})).answer()
        assert scene.where(thread_id) == ""
        await scene.whole_turn(scene.owner, thread_id)
        assert (await git_info(scene, thread_id))["branch"] == "mine"
        await scene.agree(thread_id)
    async with opened(tmp_path) as stage:
        assert (await git_info(Scene(stage), thread_id))["branch"] == "mine"


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({}, "thread metadata update must include at least one field"),
        ({"gitInfo": None}, "thread metadata update must include at least one field"),
        ({"gitInfo": {}}, "gitInfo must include at least one field"),
        ({"gitInfo": {"branch": " "}}, "gitInfo.branch must not be empty"),
        ({"gitInfo": {"originUrl": ""}}, "gitInfo.originUrl must not be empty"),
        ({"projectId": "nope"}, "project not found: nope"),
    ],
)
async def test_what_metadata_refuses(scene: Scene, params: dict[str, Any], text: str) -> None:
    thread_id = await scene.thread("idle")
    with pytest.raises(RpcError) as refused:
        await scene.act(scene.owner, thread_id, metadata(**params)).answer()
    assert refused.value.message == text
    await scene.agree(thread_id)


# -- settings ------------------------------------------------------------------------------------------------


def settings(**params: Any) -> UpdateSettings:
    return UpdateSettings(SettingsUpdateParams.from_wire({"threadId": "", **params}))


async def test_new_settings_are_for_the_next_turn_and_survive_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as stage:
        scene = Scene(stage)
        thread_id = await scene.thread("running")
        assert scene.turn is not None
        before = scene.turn.job.settings.model
        await scene.act(scene.mere, thread_id, settings(model="another", cwd="/tmp")).answer()
        assert scene.news(scene.mere) == ["result"]
        assert scene.news(scene.other) == ["thread/settings/updated"]
        assert scene.turn.job.settings.model == before
        await scene.agree(thread_id)
        scene.turn.end()
        await scene.mere.until(lambda _: scene.told(thread_id) == "idle")
        scene.mark()
        await scene.act(scene.owner, thread_id, settings(model="another")).answer()
        assert scene.news(scene.owner) == ["result"], "nothing has changed"
    async with opened(tmp_path) as stage:
        scene = Scene(stage)
        answer = await stage.resume(scene.owner, thread_id).answer()
        assert (answer["model"], answer["cwd"]) == ("another", "/tmp")
        _, turn = await stage.begin(scene.owner, thread_id)
        assert turn.job.settings.model == "another"


# -- search --------------------------------------------------------------------------------------------------


async def found(scene: Scene, term: str, **params: Any) -> list[str]:
    wire = {"searchTerm": term, **params}
    result = await scene.catalogue.search(SearchParams.from_wire(wire))
    return [hit.thread.id for hit in result.data]


async def test_what_was_said_is_found_with_the_live_status_and_archived_threads_apart(scene: Scene) -> None:
    first = await scene.thread("idle")
    second = await scene.thread("idle")
    assert sorted(await found(scene, "first answer")) == sorted([first, second])
    assert await found(scene, "answer", sortKey="created_at", sortDirection="asc") == [first, second]
    assert await found(scene, "answer", sortKey="created_at", sortDirection="desc") == [second, first]
    assert await found(scene, "answer", sourceKinds=["cli"]) == []
    assert await found(scene, "nobody said this") == []
    await scene.act(scene.owner, first, Archive()).answer()
    assert await found(scene, "answer") == [second]
    assert await found(scene, "answer", archived=True) == [first]
    result = await scene.catalogue.search(SearchParams(search_term="answer"))
    assert result.data[0].thread.status.type == "idle"
    assert "answer" in result.data[0].snippet


@pytest.mark.parametrize(
    "term",
    [
        '"',
        '""',
        "'",
        "answer AND",
        "NEAR(",
        "a*",
        "-answer",
        "(",
        "col:answer",
        "^",
        "%",
        "_",
        "\0",
        "\ud800",
        "x" * 10_000,
    ],
)
async def test_no_term_breaks_the_search(scene: Scene, term: str) -> None:
    await scene.thread("idle")
    assert isinstance(await found(scene, term), list)


@pytest.mark.parametrize("term", ["", " ", "\n"])
async def test_an_empty_term_is_refused(scene: Scene, term: str) -> None:
    with pytest.raises(RpcError, match="thread/search requires a non-empty searchTerm"):
        await found(scene, term)
