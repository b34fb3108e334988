"""Goals and questions through the program: what outlives the daemon, and what clients are asked."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import trio

from spoold.client import Client, RpcFailed
from tests.support.daemon_process import open_daemon
from tests.support.every_message import user_text
from tests.support.scripted_model import open_scripted_model

TOOL = {
    "type": "function",
    "name": "lookup",
    "description": "looks something up",
    "inputSchema": {"type": "object", "properties": {"k": {"type": "string"}}},
}
COMPLETE = 'call update_goal {"status": "complete"}'


async def new_thread(client: Client, **params: Any) -> dict[str, str]:
    return {"threadId": (await client.call("thread/start", params))["thread"]["id"]}


async def test_a_goal_is_worked_on_until_the_model_says_that_it_is_reached(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, settings={"approval_policy": "never"}) as daemon:
        client, model = daemon.client, daemon.model
        of_thread = await new_thread(client)
        model.script("shell echo one", "say more to do", COMPLETE, "say all is done")
        goal = (await client.call("thread/goal/set", {**of_thread, "objective": "reach it"}))["goal"]
        assert (goal["status"], goal["tokensUsed"]) == ("active", 0)
        first = await client.wait_for("turn/completed")
        await client.wait_for("thread/goal/updated", lambda note: note["goal"]["status"] == "complete")
        second = await client.wait_for("turn/completed")
        assert first["params"]["turn"]["id"] != second["params"]["turn"]["id"]
        assert second["params"]["turn"]["items"][-1]["text"] == "all is done"
        goal = (await client.call("thread/goal/get", of_thread))["goal"]
        assert (goal["status"], goal["tokensUsed"]) == ("complete", 4 * 13)
        read = await client.call("thread/read", {**of_thread, "includeTurns": True})
        kinds = [item["type"] for turn in read["thread"]["turns"] for item in turn["items"]]
        assert "userMessage" not in kinds
        assert len(model.requests) == 4


async def test_a_goal_goes_on_after_a_restart_when_its_thread_is_resumed(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery, open_scripted_model(nursery) as model:
        async with open_daemon(tmp_path, model=model) as daemon:
            of_thread = await new_thread(daemon.client)
            model.script("hold h one two")
            await daemon.client.call("thread/goal/set", {**of_thread, "objective": "reach it"})
            await model.held("h")
            await daemon.end(signal.SIGKILL)
        model.script(COMPLETE, "say reached")
        async with open_daemon(tmp_path, model=model) as daemon:
            client = daemon.client
            assert (await client.call("thread/goal/get", of_thread))["goal"]["status"] == "active"
            await client.call("thread/resume", of_thread)
            note = await client.wait_for("thread/goal/updated")
            assert note["params"]["goal"]["objective"] == "reach it"
            await client.wait_for("thread/goal/updated", lambda note: note["goal"]["status"] == "complete")
            await client.wait_for("turn/completed")
            assert len(model.requests) == 3


async def test_an_interrupted_goal_rests_until_it_is_made_active_again(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        client, model = daemon.client, daemon.model
        of_thread = await new_thread(client)
        model.script("hold h one two")
        await client.call("thread/goal/set", {**of_thread, "objective": "reach it"})
        turn_id = (await client.wait_for("turn/started"))["params"]["turn"]["id"]
        await client.wait_for("item/agentMessage/delta")
        await client.call("turn/interrupt", {**of_thread, "turnId": turn_id})
        ended = await client.wait_for("turn/completed")
        assert ended["params"]["turn"]["status"] == "interrupted"
        assert (await client.call("thread/goal/get", of_thread))["goal"]["status"] == "paused"
        model.script(COMPLETE, "say reached")
        await client.call("thread/goal/set", {**of_thread, "status": "active"})
        await client.wait_for("turn/completed")
        assert (await client.call("thread/goal/clear", of_thread)) == {"cleared": True}
        assert (await client.call("thread/goal/clear", of_thread)) == {"cleared": False}
        with pytest.raises(RpcFailed, match="no goal exists"):
            await client.call("thread/goal/set", {**of_thread, "status": "active"})


async def test_a_client_s_tools_are_still_known_after_a_restart_and_in_a_fork(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery, open_scripted_model(nursery) as model:
        async with open_daemon(tmp_path, model=model) as daemon:
            of_thread = await new_thread(daemon.client, dynamicTools=[TOOL])
            await daemon.client.run_turn(of_thread["threadId"], "say hello")
        async with open_daemon(tmp_path, model=model) as daemon:
            client = daemon.client
            await client.call("thread/resume", of_thread)
            fork = (await client.call("thread/fork", of_thread))["thread"]["id"]
            for thread_id in (of_thread["threadId"], fork):
                script = user_text('call lookup {"k": "v"} | say done')
                await client.call("turn/start", {"threadId": thread_id, "input": script})
                question = await client.wait_for("item/tool/call")
                assert question["params"]["threadId"] == thread_id
                found = {"contentItems": [{"type": "inputText", "text": "found it"}], "success": True}
                await client.answer(question, found)
                await client.wait_for("turn/completed")
                told = model.requests[-1].body["input"][-1]
                assert (told["type"], told["output"]) == ("function_call_output", "found it")
                page = await client.call("thread/items/list", {"threadId": thread_id})
                item = next(row["item"] for row in page["data"] if row["item"]["type"] == "dynamicToolCall")
                assert (item["status"], item["arguments"]) == ("completed", {"k": "v"})


async def test_tools_that_cannot_be_offered_are_refused_when_the_thread_starts(tmp_path: Path) -> None:
    async with open_daemon(tmp_path) as daemon:
        for tools in ([TOOL, TOOL], [{**TOOL, "name": "two words"}], [{"type": "function"}], [5]):
            with pytest.raises(RpcFailed):
                await daemon.client.call("thread/start", {"dynamicTools": tools})
        assert (await daemon.client.call("thread/loaded/list"))["data"] == []


async def test_while_nobody_is_there_a_question_is_answered_by_the_policy(tmp_path: Path) -> None:
    config = '[server_requests]\nunattended_secs = 0.2\nunattended = "decline"\n'
    async with open_daemon(tmp_path, config=config) as daemon:
        client = daemon.client
        of_thread = await new_thread(client)
        ask = {"questions": [{"id": "c", "header": "Colour", "question": "Which?"}]}
        script = user_text(f"call request_user_input {json.dumps(ask)} | say I chose myself")
        await client.call("turn/start", {**of_thread, "input": script})
        await client.wait_for("item/tool/requestUserInput")
        await client.call("thread/unsubscribe", of_thread)
        await client.wait_for("thread/status/changed", lambda note: note["status"]["type"] == "idle")
        told = daemon.model.requests[-1].body["input"][-1]
        assert told["output"] == "request_user_input failed: nobody was there to answer"
