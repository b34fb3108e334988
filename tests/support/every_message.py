"""A conversation in which the daemon sends every kind of message that it can send."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from protocol.notifications import SERVER_NOTIFICATIONS
from protocol.server_requests import SERVER_REQUESTS
from spoold.client import Client, RpcFailed
from tests.support.daemon_process import DaemonProcess, open_daemon
from tests.support.scripted_model import ScriptedModel
from tests.support.traffic import Received
from transport.methods import METHODS

_CONFIG = """
[model_providers.patient]
name = "asked once more"
base_url = "{base_url}"
request_max_retries = 1
stream_max_retries = 1

[queue]
on_interrupt = "pause"

[projects."/somewhere"]
trust_level = "trusted"
"""


def user_text(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text, "text_elements": []}]


async def converse(folder: Path, model: ScriptedModel) -> list[Received]:
    """Hold the conversation; what the clients got. Leaves a home with threads below ``folder``."""
    received: list[Received] = []
    async with open_daemon(
        folder,
        model=model,
        config=_CONFIG.format(base_url=model.base_url),
        settings={"approval_policy": "untrusted"},
        check_messages=False,
    ) as daemon:
        await _errors(daemon)
        thread_id = await _first_thread(daemon)
        await _commands(daemon, thread_id)
        await _interrupt_with_an_audience(daemon, thread_id)
        await _retries_and_failures(daemon)
        await _reads(daemon.client, thread_id)
        await daemon.client.call("thread/start", {"ephemeral": True, "config": {"no_such_key": 1}})
        await daemon.client.wait_for("warning")
        await _lifecycle(daemon.client)
        await _questions(daemon.client)
        await _goal(daemon)
        await _surroundings(daemon.client)
        await _queue(daemon)
        received += [message for traffic in daemon.traffic for message in traffic]
    async with open_daemon(folder, model=model, check_messages=False) as daemon:
        await _after_a_restart(daemon, thread_id)
        received += [message for traffic in daemon.traffic for message in traffic]
    return received


def missing(received: list[Received]) -> set[str]:
    """What of the tables never came."""
    came = {(message.kind, message.method) for message in received}
    tables = {("result", row.name) for row in METHODS.values() if row.offered}
    tables |= {("notification", name) for name in SERVER_NOTIFICATIONS}
    tables |= {("request", name) for name in SERVER_REQUESTS}
    return {f"{kind} {method}" for kind, method in tables - came}


async def _lifecycle(client: Client) -> None:
    thread_id = (await client.call("thread/start"))["thread"]["id"]
    first = await client.run_turn(thread_id, "say one")
    second = await client.run_turn(thread_id, "say two")
    of_thread = {"threadId": thread_id}
    await client.call("thread/name/set", {**of_thread, "name": "a name"})
    await client.call("thread/metadata/update", {**of_thread, "gitInfo": {"branch": "main"}})
    await client.call("thread/settings/update", {**of_thread, "model": "another"})
    message = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "by the way"}]}
    await client.call("thread/inject_items", {**of_thread, "items": [message]})
    read = await client.call("thread/read", of_thread)
    revision = read["readState"]["revision"]
    await client.call(
        "thread/readState/update",
        {**of_thread, "operation": {"type": "read"}, "expectedRevision": revision},
    )
    await client.call("thread/search", {"searchTerm": "two"})
    await client.call("thread/fork", {**of_thread, "lastTurnId": first["id"]})
    await client.call("thread/revert", {**of_thread, "beforeTurnId": second["id"]})
    await client.call("thread/rollback", {**of_thread, "numTurns": 1})
    await client.call("thread/backgroundTerminals/list", of_thread)
    await client.call("thread/backgroundTerminals/terminate", {**of_thread, "processId": "1"})
    await client.call("thread/backgroundTerminals/clean", of_thread)
    await client.call("thread/archive", of_thread)
    await client.call("thread/unarchive", of_thread)
    await client.call("thread/delete", of_thread)


async def _queue(daemon: DaemonProcess) -> None:
    client, model = daemon.client, daemon.model
    thread_id = (await client.call("thread/start"))["thread"]["id"]
    of_thread = {"threadId": thread_id}
    await client.call("turn/start", {**of_thread, "input": user_text("hold q first")})
    await model.held("q")
    turn = {"turnStartParams": {**of_thread, "input": user_text("say third")}}
    third = (await client.call("thread/queue/add", {**of_thread, **turn}))["queuedTurn"]["id"]
    message = {"input": user_text("say second"), "clientUserMessageId": "m-2"}
    second = (await client.call("thread/queue/add", {**of_thread, **message}))["queuedSubmission"]["id"]
    with pytest.raises(RpcFailed):
        await client.call("thread/queue/start", of_thread)
    await client.call("thread/queue/update", {**of_thread, "queuedTurnId": third, **turn})
    await client.call("thread/queue/reorder", {**of_thread, "queuedTurnIds": [second, third]})
    await client.call("thread/queue/list", of_thread)
    model.release("q")
    for _ in range(3):
        await client.wait_for("turn/completed")
    await client.call("thread/queue/delete", {**of_thread, "queuedTurnId": third})
    running = await client.call("turn/start", {**of_thread, "input": user_text("hold r first")})
    await model.held("r")
    await client.call("thread/queue/add", {**of_thread, **turn})
    gone = (await client.call("thread/queue/add", {**of_thread, **turn}))["queuedTurn"]["id"]
    assert (await client.call("thread/queue/delete", {**of_thread, "queuedTurnId": gone}))["deleted"]
    await client.call("turn/interrupt", {**of_thread, "turnId": running["turn"]["id"]})
    await client.wait_for("turn/completed")
    await client.call("thread/queue/start", of_thread)
    await client.wait_for("turn/completed")


async def _questions(client: Client) -> None:
    tool = {
        "type": "function",
        "name": "lookup",
        "description": "looks up",
        "inputSchema": {"type": "object"},
    }
    space = {"type": "namespace", "name": "desk", "description": "a desk", "tools": [tool]}
    started = await client.call("thread/start", {"dynamicTools": [tool, space]})
    thread_id = started["thread"]["id"]
    contents: list[Any] = [
        {"type": "inputText", "text": "found"},
        {"type": "inputImage", "imageUrl": "data:image/png;base64,AAAA"},
        {"type": "inputAudio", "audioUrl": "data:audio/wav;base64,AAAA"},
    ]
    for name, success in (("lookup", True), ("desk__lookup", False)):
        script = f'call {name} {{"k": "v"}} | say done'
        await client.call("turn/start", {"threadId": thread_id, "input": user_text(script)})
        question = await client.wait_for("item/tool/call")
        await client.answer(question, {"contentItems": contents, "success": success})
        await client.wait_for("turn/completed")
    options = [{"label": "Red", "description": "warm"}, {"label": "Blue", "description": "cold"}]
    asked = {"questions": [{"id": "c", "header": "Colour", "question": "Which?", "options": options}]}
    script = f"call request_user_input {json.dumps(asked)} | say done"
    await client.call("turn/start", {"threadId": thread_id, "input": user_text(script)})
    question = await client.wait_for("item/tool/requestUserInput")
    await client.answer(question, {"answers": {"c": {"answers": ["Red"]}}})
    await client.wait_for("turn/completed")


async def _goal(daemon: DaemonProcess) -> None:
    client = daemon.client
    of_thread = {"threadId": (await client.call("thread/start"))["thread"]["id"]}
    await client.call("thread/goal/get", of_thread)
    daemon.model.script('call update_goal {"status": "complete"}', "say reached")
    await client.call("thread/goal/set", {**of_thread, "objective": "reach it", "tokenBudget": 1000})
    await client.wait_for("turn/completed")
    await client.call("thread/goal/get", of_thread)
    await client.call("thread/goal/clear", of_thread)


async def _surroundings(client: Client) -> None:
    for method in ("hooks/list", "skills/list"):
        await client.call(method, {"cwds": ["/"]})
    for method in (
        "collaborationMode/list",
        "configRequirements/read",
        "account/bedrock/checkGovCloudRequirements",
        "plugin/installed",
        "account/gatewayOAuth/read",
        "permissionProfile/list",
        "mcpServerStatus/list",
        "experimentalFeature/list",
    ):
        await client.call(method)
    with pytest.raises(RpcFailed):
        await client.call("account/rateLimits/read")


async def _errors(daemon: DaemonProcess) -> None:
    for method, params in [
        ("no/such/method", {}),
        ("thread/read", {"threadId": 5}),
        ("thread/read", {"threadId": "bad"}),
        ("thread/resume", {"threadId": "00000000-0000-7000-8000-000000000000"}),
        ("initialize", {"clientInfo": {"name": "again", "version": "1"}}),
        ("plugin/list", {}),
    ]:
        with pytest.raises(RpcFailed):
            await daemon.client.call(method, params)
    async with daemon.connect(handshake=False) as stranger:
        with pytest.raises(RpcFailed):
            await stranger.call("thread/list")
        await stranger.call("initialize", {"clientInfo": {"name": "plain", "version": "1"}})
        with pytest.raises(RpcFailed):
            await stranger.call("thread/start", {"historyMode": "legacy"})


async def _first_thread(daemon: DaemonProcess) -> str:
    client = daemon.client
    started = await client.call("thread/start", {"cwd": str(daemon.work), "sandbox": "workspace-write"})
    thread_id: str = started["thread"]["id"]
    for script in ("say hello there", "reason step by step ;; answer", "think raw thoughts ;; answer"):
        assert (await client.run_turn(thread_id, script))["status"] == "completed"
    await client.run_turn(thread_id, "commentary let me see ;; the answer", model="other", effort="high")
    picture = {"type": "image", "url": "data:image/png;base64,AAAA"}
    mention = {"type": "mention", "name": "file", "path": "/tmp/file"}
    await client.call(
        "turn/start", {"threadId": thread_id, "input": [*user_text("say ok"), picture, mention]}
    )
    await client.wait_for("turn/completed")
    return thread_id


async def _commands(daemon: DaemonProcess, thread_id: str) -> None:
    client = daemon.client
    full = {"sandboxPolicy": {"type": "dangerFullAccess"}}
    decisions: list[Any] = [
        "accept",
        "decline",
        {"acceptWithExecpolicyAmendment": {"execpolicy_amendment": ["echo", "twice"]}},
        "acceptForSession",
        "cancel",
    ]
    scripts = ["shell echo hi; exit 3", "shell touch x", "shell echo twice", "esc ls", "shell touch y"]
    for script, decision in zip(scripts, decisions, strict=True):
        await client.call("turn/start", {"threadId": thread_id, "input": user_text(script), **full})
        question = await client.wait_for("item/commandExecution/requestApproval")
        await client.answer(question, {"decision": decision})
        await client.wait_for("turn/completed")
    for script in ("shell echo twice | badargs", "call no_such_tool {}"):
        assert (await client.run_turn(thread_id, script))["status"] == "completed"
    await client.run_turn(thread_id, "shell sleep 1; echo late", approvalPolicy="never", **full)
    never = {"approvalPolicy": "never", "sandboxPolicy": {"type": "readOnly", "networkAccess": False}}
    await client.run_turn(thread_id, "shell cat /etc/hostname ;; touch refused", **never)


async def _interrupt_with_an_audience(daemon: DaemonProcess, thread_id: str) -> None:
    client, model = daemon.client, daemon.model
    started = await client.call(
        "turn/start", {"threadId": thread_id, "input": user_text("hold h one two three")}
    )
    turn_id = started["turn"]["id"]
    await client.wait_for("item/agentMessage/delta")
    async with daemon.connect("watcher") as watcher:
        await watcher.call("thread/resume", {"threadId": thread_id})
        steer = {"threadId": thread_id, "expectedTurnId": turn_id, "input": user_text("hold k and more")}
        await client.call("turn/steer", steer)
        await model.held("k")
        await client.call("turn/interrupt", {"threadId": thread_id, "turnId": turn_id})
        ended = await watcher.wait_for("turn/completed")
        assert ended["params"]["turn"]["status"] == "interrupted"
        await watcher.call("thread/unsubscribe", {"threadId": thread_id})


async def _retries_and_failures(daemon: DaemonProcess) -> None:
    client, model = daemon.client, daemon.model
    started = await client.call("thread/start", {})
    thread_id = started["thread"]["id"]
    for script in (
        "http 400 no",
        "http 401 who",
        "http 500 down",
        "cut one two three",
        "incomplete content_filter",
    ):
        turn = await client.run_turn(thread_id, script)
        assert turn["status"] == "failed", script
    started = await client.call("thread/start", {"modelProvider": "patient"})
    thread_id = started["thread"]["id"]
    model.script("cut one two three")
    assert (await client.run_turn(thread_id, "say after a retry"))["status"] == "completed"


async def _reads(client: Client, thread_id: str) -> None:
    await client.call("thread/read", {"threadId": thread_id})
    await client.call("thread/read", {"threadId": thread_id, "includeTurns": True})
    for view in ("notLoaded", "summary", "full"):
        page = await client.call("thread/turns/list", {"threadId": thread_id, "itemsView": view, "limit": 3})
    await client.call("thread/turns/list", {"threadId": thread_id, "cursor": page["nextCursor"]})
    page = await client.call("thread/items/list", {"threadId": thread_id, "limit": 3})
    await client.call("thread/items/list", {"threadId": thread_id, "cursor": page["nextCursor"]})
    for sort_key in ("created_at", "updated_at", "recency_at"):
        await client.call("thread/list", {"sortKey": sort_key, "limit": 1})
    await client.call("thread/loaded/list", {})
    await client.call("model/list", {})
    await client.call("config/read", {"includeLayers": True})
    await client.call("account/read", {})


async def _after_a_restart(daemon: DaemonProcess, thread_id: str) -> None:
    client = daemon.client
    await client.call("thread/list", {})
    await client.call("thread/read", {"threadId": thread_id, "includeTurns": True})
    page = {"limit": 2, "itemsView": "full"}
    await client.call(
        "thread/resume", {"threadId": thread_id, "excludeTurns": True, "initialTurnsPage": page}
    )
    await client.run_turn(thread_id, "say still here")
    resumed = await client.call("thread/resume", {"threadId": thread_id})
    assert resumed["thread"]["turns"][-1]["status"] == "completed"
    await daemon.end(signal.SIGTERM)
