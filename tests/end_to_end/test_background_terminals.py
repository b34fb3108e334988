"""Commands that go on after their call was answered: clients see them, and can end them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import trio

from spoold.client import Client, RpcFailed
from tests.support.daemon_process import open_daemon

NOBODY = "00000000-0000-7000-8000-000000000000"


def background(command: str) -> str:
    """A step of the script that leaves the command running."""
    return f"call exec_command {json.dumps({'cmd': command, 'yield_time_ms': 250})}"


async def thread_with(client: Client, *commands: str) -> dict[str, str]:
    """A thread that has left these running; the params that name it."""
    started = await client.call("thread/start", {})
    steps = [*map(background, commands), "say they run"]
    await client.run_turn(started["thread"]["id"], " | ".join(steps))
    return {"threadId": started["thread"]["id"]}


async def listed(client: Client, of_thread: dict[str, str], **page: Any) -> dict[str, Any]:
    answer: dict[str, Any] = await client.call("thread/backgroundTerminals/list", {**of_thread, **page})
    return answer


async def gone(pid: int) -> None:
    """Wait until a process of the daemon's has ended and is reaped."""
    while await trio.Path(f"/proc/{pid}").exists():  # noqa: ASYNC110 - it is not our child
        await trio.sleep(0.01)


async def test_a_command_that_outlives_its_call_is_listed_with_its_process(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        of_thread = await thread_with(daemon.client, "sleep 71", "sleep 72; echo over")
        answer = await listed(daemon.client, of_thread)
        assert answer["nextCursor"] is None
        assert {entry["command"] for entry in answer["data"]} == {"sleep 71", "sleep 72; echo over"}
        for entry in answer["data"]:
            os.killpg(entry["osPid"], 0)
            assert entry["cwd"] == str(daemon.work)
            started = next(
                note["params"]["item"]
                for note in daemon.client.seen
                if note["method"] == "item/started" and note["params"]["item"]["id"] == entry["itemId"]
            )
            assert started["processId"] == entry["processId"]


async def test_a_command_that_has_ended_and_one_that_is_waited_for_are_not_listed(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        of_thread = await thread_with(daemon.client)
        await daemon.client.run_turn(of_thread["threadId"], "shell echo done")
        assert (await listed(daemon.client, of_thread))["data"] == []
        await daemon.client.call(
            "turn/start",
            {**of_thread, "input": [{"type": "text", "text": "shell touch begun; sleep 70"}]},
        )
        while not (daemon.work / "begun").exists():  # noqa: ASYNC110 - only the command knows
            await trio.sleep(0.01)
        assert (await listed(daemon.client, of_thread))["data"] == []


async def test_the_command_of_an_interrupted_turn_is_listed(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        of_thread = await thread_with(daemon.client)
        turn = await daemon.client.call(
            "turn/start",
            {**of_thread, "input": [{"type": "text", "text": "shell touch begun; sleep 73"}]},
        )
        while not (daemon.work / "begun").exists():  # noqa: ASYNC110 - only the command knows
            await trio.sleep(0.01)
        await daemon.client.call("turn/interrupt", {**of_thread, "turnId": turn["turn"]["id"]})
        await daemon.client.wait_for("turn/completed")
        [entry] = (await listed(daemon.client, of_thread))["data"]
        assert entry["command"] == "touch begun; sleep 73"


async def test_the_list_comes_in_pages(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        of_thread = await thread_with(daemon.client, "sleep 71", "sleep 72", "sleep 73")
        whole = (await listed(daemon.client, of_thread))["data"]
        first = await listed(daemon.client, of_thread, limit=2)
        second = await listed(daemon.client, of_thread, limit=2, cursor=first["nextCursor"])
        assert first["data"] + second["data"] == whole
        assert second["nextCursor"] is None
        assert len((await listed(daemon.client, of_thread, limit=0))["data"]) == 1


async def test_terminate_ends_one_command_and_clean_the_others(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        client = daemon.client
        of_thread = await thread_with(client, "sleep 71", "sleep 72", "sleep 73")
        one, *others = (await listed(client, of_thread))["data"]
        named = {**of_thread, "processId": one["processId"]}
        assert await client.call("thread/backgroundTerminals/terminate", named) == {"terminated": True}
        assert (await listed(client, of_thread))["data"] == others
        assert await client.call("thread/backgroundTerminals/terminate", named) == {"terminated": False}
        await gone(one["osPid"])
        assert await client.call("thread/backgroundTerminals/clean", of_thread) == {}
        assert (await listed(client, of_thread))["data"] == []
        for entry in others:
            await gone(entry["osPid"])
        # The thread goes on as if they had never been.
        turn = await client.run_turn(of_thread["threadId"], "shell echo still $((40+2)) | say yes")
        assert turn["status"] == "completed"


@pytest.mark.parametrize(
    ("method", "more", "problem"),
    [
        ("list", {"cursor": "x"}, "invalid cursor: x"),
        ("list", {"cursor": ""}, "invalid cursor: "),
        ("terminate", {"processId": "x"}, "invalid background terminal process id: x"),
        ("terminate", {"processId": "-1"}, "invalid background terminal process id: -1"),
        ("list", {"threadId": NOBODY}, f"thread not found: {NOBODY}"),
        ("clean", {"threadId": NOBODY}, f"thread not found: {NOBODY}"),
        ("terminate", {"threadId": NOBODY, "processId": "1"}, f"thread not found: {NOBODY}"),
    ],
)
async def test_what_names_nothing_is_refused(
    tmp_path: Path, method: str, more: dict[str, Any], problem: str
) -> None:
    async with open_daemon(tmp_path) as daemon:
        of_thread = await thread_with(daemon.client)
        with pytest.raises(RpcFailed) as refusal:
            await daemon.client.call(f"thread/backgroundTerminals/{method}", {**of_thread, **more})
        assert (refusal.value.code, refusal.value.message) == (-32600, problem)


async def test_no_provider_signs_in_through_a_gateway(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        answer = await daemon.client.call("account/gatewayOAuth/read", {})
        assert answer == {
            "providerId": "scripted",
            "providerName": "scripted model",
            "required": False,
            "supportsDeviceAuth": False,
            "status": None,
            "error": None,
        }
        with pytest.raises(RpcFailed, match="Model provider `none` not found"):
            await daemon.client.call("account/gatewayOAuth/read", {"modelProvider": "none"})
