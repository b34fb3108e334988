"""Every act on a thread in every state: the answer, who is told what in which order, what is left."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from actors.acts import Act
from actors.archiving import Archive, Delete, Unarchive
from actors.forking import Fork
from actors.history_edits import InjectItems, Revert, Rollback
from actors.naming import SetName, UpdateMetadata
from actors.read_state import UpdateReadState
from actors.settings_update import UpdateSettings
from protocol.errors import RpcError
from protocol.lifecycle_methods import (
    MetadataUpdateParams,
    ReadStateUpdateParams,
    SettingsUpdateParams,
    ThreadForkParams,
)
from tests.actors.acts_stage import STATES, Scene
from tests.actors.stage import Stage, raw_message

NO_ROLLOUT = "no rollout found for thread id {id}"
NOT_FOUND = "thread not found: {id}"
ARCHIVED = "session {id} is archived. Run `codex unarchive {id}` to unarchive it first."
NO_METADATA = "ephemeral thread does not support metadata updates: {id}"

ACTS: dict[str, Callable[[str], Act]] = {
    "name": lambda _: SetName("  a name "),
    "metadata": lambda _: UpdateMetadata(
        MetadataUpdateParams.from_wire({"threadId": "", "gitInfo": {"branch": "b"}})
    ),
    "settings": lambda _: UpdateSettings(SettingsUpdateParams(thread_id="", model="another")),
    "inject": lambda _: InjectItems([raw_message("injected")]),
    "readState": lambda _: UpdateReadState(
        ReadStateUpdateParams.from_wire(
            {"threadId": "", "operation": {"type": "read"}, "expectedRevision": "x"}
        )
    ),
    "fork": lambda thread_id: Fork(ThreadForkParams(thread_id=thread_id)),
    "revert": lambda _: Revert("no such turn"),
    "rollback": lambda _: Rollback(1),
    "archive": lambda _: Archive(),
    "unarchive": lambda _: Unarchive(),
    "delete": lambda _: Delete(),
}

CUT = ["status idle", "turn/completed"]
GONE = ["status notLoaded"]

# (act, state) -> what the owner, another subscriber and a mere connection get; or an error's text.
EXPECTED: dict[tuple[str, str], tuple[list[str], list[str], list[str]] | str] = {}


def expect(
    act: str,
    states: str,
    owner: str | list[str],
    other: list[str] | None = None,
    mere: list[str] | None = None,
) -> None:
    for state in states.split():
        EXPECTED[act, state] = owner if isinstance(owner, str) else (owner, other or [], mere or [])


NAMED = ["thread/name/updated"]
expect("name", "fresh idle failed running unloaded", ["result", *NAMED], NAMED, NAMED)
expect("name", "ephemeral", NO_METADATA)
expect("name", "archived unknown", NO_ROLLOUT)
expect("metadata", "fresh idle failed running unloaded archived", ["result"])
expect("metadata", "ephemeral", NO_METADATA)
expect("metadata", "unknown", NO_ROLLOUT)
SET = ["thread/settings/updated"]
expect("settings", "fresh ephemeral", ["result", *SET])
expect("settings", "idle failed running", ["result", *SET], SET)
expect("settings", "unloaded archived unknown", NOT_FOUND)
expect("inject", "fresh idle failed running ephemeral", ["result"])
expect("inject", "unloaded archived unknown", NOT_FOUND)
expect("readState", "idle failed running unloaded archived", "read state changed")
expect("readState", "fresh ephemeral unknown", NO_ROLLOUT)
FORKED = ["result", "thread/started"]
expect("fork", "idle failed running unloaded", FORKED, FORKED[1:], FORKED[1:])
expect("fork", "fresh ephemeral unknown", NO_ROLLOUT)
expect("fork", "archived", ARCHIVED)
expect("revert", "idle failed running unloaded", "turn not found: no such turn")
expect("revert", "fresh ephemeral", NO_ROLLOUT)
expect("revert", "archived", ARCHIVED)
expect("revert", "unknown", NOT_FOUND)
AGAIN = ["status notLoaded", "status idle"]
REVERTED = ["thread/reverted"]
expect("rollback", "failed", [*AGAIN, "result", *REVERTED], [*AGAIN, *REVERTED], [*AGAIN, *REVERTED])
# The only turn, which was unread, is no more.
READ = ["thread/readState/changed"]
expect(
    "rollback", "idle", [*READ, *AGAIN, "result", *REVERTED], [*READ, *AGAIN, *REVERTED], [*AGAIN, *REVERTED]
)
expect("rollback", "unloaded", ["result", *REVERTED], REVERTED, REVERTED)
expect("rollback", "running", "cannot roll back while a turn is in progress")
expect("rollback", "fresh ephemeral unknown", NO_ROLLOUT)
expect("rollback", "archived", ARCHIVED)
AWAY = ["thread/archived"]
expect("archive", "idle failed", [*GONE, "result", *AWAY], [*GONE, *AWAY], [*GONE, *AWAY])
expect(
    "archive", "running", [*CUT, *GONE, "result", *AWAY], [*CUT, *GONE, *AWAY], ["status idle", *GONE, *AWAY]
)
expect("archive", "unloaded", ["result", *AWAY], AWAY, AWAY)
expect("archive", "fresh ephemeral archived unknown", NO_ROLLOUT)
BACK = ["thread/unarchived"]
expect("unarchive", "archived", ["result", *BACK], BACK, BACK)
expect("unarchive", "fresh idle failed running ephemeral", "thread {id} already has an active writer")
expect("unarchive", "unloaded unknown", "no archived rollout found for thread id {id}")
LOST = ["thread/deleted"]
expect("delete", "idle failed fresh ephemeral", [*GONE, "result", *LOST], [*GONE, *LOST], [*GONE, *LOST])
expect(
    "delete", "running", [*CUT, *GONE, "result", *LOST], [*CUT, *GONE, *LOST], ["status idle", *GONE, *LOST]
)
expect("delete", "unloaded archived", ["result", *LOST], LOST, LOST)
expect("delete", "unknown", NO_ROLLOUT)

LEFT = {"archive": "archived", "unarchive": "sessions", "delete": ""}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("act", ACTS)
async def test_an_act_on_a_thread_in_any_state(stage: Stage, act: str, state: str) -> None:
    scene = Scene(stage)
    thread_id = await scene.thread(state)
    before, text = scene.where(thread_id), stage.lines(thread_id)
    expected = EXPECTED[act, state]
    reply = scene.act(scene.owner, thread_id, ACTS[act](thread_id))
    if isinstance(expected, str):
        with pytest.raises(RpcError) as refused:
            await reply.answer()
        assert refused.value.message == expected.format(id=thread_id)
        assert refused.value.code == -32600
        expected = (["error"], [], [])
        assert scene.where(thread_id) == before
        assert stage.lines(thread_id) == text
    else:
        await reply.answer()
    if scene.told(thread_id) == "notLoaded":
        await scene.gone(thread_id)
    assert (scene.news(scene.owner), scene.news(scene.other), scene.news(scene.mere)) == expected
    after = await scene.agree(thread_id)
    if reply.failure is None and act in LEFT:
        assert (scene.where(thread_id), after) == (LEFT[act], "notLoaded")
        assert not stage.supervisor._requests
    elif scene.turn is not None:
        assert (after, scene.turn.cancelled) == ("active", False)
        scene.turn.end()
        await scene.other.got("turn/completed")
        await scene.agree(thread_id)
    if act == "fork" and reply.failure is None:
        assert await scene.agree(reply.value["thread"]["id"]) == "idle"


@pytest.mark.parametrize("act", ACTS)
async def test_a_malformed_id_is_told_and_makes_nothing(stage: Stage, act: str) -> None:
    scene = Scene(stage)
    with pytest.raises(RpcError, match="invalid thread id: "):
        await scene.act(scene.owner, "nope", ACTS[act]("nope")).answer()
    assert not stage.runners
