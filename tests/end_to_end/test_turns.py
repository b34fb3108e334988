"""Whole turns through the program: a real websocket, a real model socket, real commands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trio

from spoold.client import Client, RpcFailed
from tests.support.daemon_process import DaemonProcess, open_daemon
from tests.support.every_message import user_text
from tests.support.scripted_model import open_scripted_model

Json = dict[str, Any]


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[DaemonProcess]:
    async with open_daemon(tmp_path, settings={"approval_policy": "untrusted"}) as daemon:
        yield daemon


async def new_thread(client: Client, **params: Any) -> str:
    thread_id: str = (await client.call("thread/start", params))["thread"]["id"]
    await client.wait_for("thread/started", lambda note: note["thread"]["id"] == thread_id)
    return thread_id


async def begin(client: Client, thread_id: str, text: str, **params: Any) -> str:
    """Start a turn; its id."""
    started = await client.call("turn/start", {"threadId": thread_id, "input": user_text(text), **params})
    turn_id: str = started["turn"]["id"]
    return turn_id


async def until_end(client: Client) -> tuple[list[str], Json]:
    """What comes up to the end of the turn, as one word each, and the turn."""
    seen: list[str] = []
    async with aclosing(client.messages()) as messages:
        async for message in messages:
            params = message["params"]
            match message["method"]:
                case "thread/status/changed":
                    flags = params["status"].get("activeFlags") or []
                    seen.append(" ".join(["status", params["status"]["type"], *flags]))
                case "item/started" | "item/completed" as method:
                    item = params["item"]
                    status = f" {item['status']}" if "status" in item else ""
                    seen.append(f"{method.removeprefix('item/')} {item['type']}{status}")
                case "turn/completed":
                    return [*seen, "turn/completed"], params["turn"]
                case method if method != "thread/settings/updated":
                    seen.append(method)
    raise AssertionError("the connection ended before the turn")


async def history(client: Client, thread_id: str) -> list[list[Json]]:
    """The items of each turn, from the server."""
    result = await client.call("thread/read", {"threadId": thread_id, "includeTurns": True})
    return [turn["items"] for turn in result["thread"]["turns"]]


async def test_a_plain_turn_comes_in_the_order_of_the_protocol(daemon: DaemonProcess) -> None:
    client = daemon.client
    thread_id = await new_thread(client)
    client.forget()
    await begin(client, thread_id, "deltas 3 abcdef", clientUserMessageId="mine")
    seen, turn = await until_end(client)
    assert seen == [
        "status active",
        "turn/started",
        "started userMessage",
        "completed userMessage",
        "started agentMessage",
        *["item/agentMessage/delta"] * 3,
        "completed agentMessage",
        "thread/tokenUsage/updated",
        "thread/readState/changed",
        "status idle",
        "turn/completed",
    ]
    assert (turn["status"], turn["itemsView"], turn["error"]) == ("completed", "summary", None)
    assert [item["text"] for item in turn["items"]] == ["abcdef"]
    (items,) = await history(client, thread_id)
    assert [item["type"] for item in items] == ["userMessage", "agentMessage"]
    assert items[0]["clientId"] == "mine"


async def test_a_command_runs_when_it_is_accepted_and_its_output_reaches_the_model(
    daemon: DaemonProcess,
) -> None:
    client = daemon.client
    thread_id = await new_thread(client)
    client.forget()
    await begin(client, thread_id, "shell echo out > made; cat made | say seen")
    question = await client.wait_for("item/commandExecution/requestApproval")
    assert not (daemon.work / "made").exists(), "nothing runs before the answer"
    await client.answer(question, {"decision": "accept"})
    seen, turn = await until_end(client)
    assert seen[:2] == ["serverRequest/resolved", "status active"]
    assert "completed commandExecution completed" in seen
    assert (daemon.work / "made").read_text() == "out\n"
    assert turn["status"] == "completed"
    (output,) = [
        each for each in daemon.model.requests[-1].body["input"] if each["type"] == "function_call_output"
    ]
    assert "out\n" in output["output"]
    assert [item["type"] for item in (await history(client, thread_id))[0]] == [
        "userMessage", "commandExecution", "agentMessage",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "item_status", "turn_status", "asked_again"),
    [
        ({"result": {"decision": "decline"}}, "declined", "completed", True),
        ({"result": {"decision": "cancel"}}, "declined", "interrupted", False),
        ({"error": {"code": -32000, "message": "no"}}, "failed", "completed", True),
        ({"result": {"decision": "perhaps"}}, "failed", "completed", True),
        ({"result": 5}, "failed", "completed", True),
    ],
)
async def test_a_command_that_is_not_accepted_does_not_run(
    daemon: DaemonProcess, answer: Json, item_status: str, turn_status: str, asked_again: bool
) -> None:
    client = daemon.client
    thread_id = await new_thread(client)
    await begin(client, thread_id, "shell touch never | say go on")
    question = await client.wait_for("item/commandExecution/requestApproval")
    await client.send({"id": question["id"], **answer})
    seen, turn = await until_end(client)
    assert f"completed commandExecution {item_status}" in seen
    assert turn["status"] == turn_status
    assert len(daemon.model.requests) == (2 if asked_again else 1)
    assert not (daemon.work / "never").exists()
    assert (await client.run_turn(thread_id, "say next"))["status"] == "completed"


async def test_an_interrupt_is_answered_then_ends_the_turn_and_cuts_the_model_off(
    daemon: DaemonProcess,
) -> None:
    client = daemon.client
    thread_id = await new_thread(client)
    turn_id = await begin(client, thread_id, "hold h one two three")
    await client.wait_for("item/agentMessage/delta")
    assert await client.call("turn/interrupt", {"threadId": thread_id, "turnId": turn_id}) == {}
    seen, turn = await until_end(client)
    assert seen == ["status idle", "turn/completed"]
    assert (turn["status"], turn["items"], turn["error"]) == ("interrupted", [], None)
    await daemon.model.hung_up()
    with pytest.raises(RpcFailed, match="no active turn to interrupt"):
        await client.call("turn/interrupt", {"threadId": thread_id, "turnId": turn_id})
    await client.run_turn(thread_id, "say again")
    assert "<turn_aborted>" in str(daemon.model.requests[-1].body["input"])
    first, _ = await history(client, thread_id)
    assert [item["type"] for item in first] == ["userMessage"], "half an answer is not history"


async def test_an_interrupt_while_a_question_is_open_resolves_it(daemon: DaemonProcess) -> None:
    client = daemon.client
    thread_id = await new_thread(client)
    turn_id = await begin(client, thread_id, "shell touch never")
    question = await client.wait_for("item/commandExecution/requestApproval")
    await client.call("turn/interrupt", {"threadId": thread_id, "turnId": turn_id})
    resolved = await client.wait_for("serverRequest/resolved")
    assert resolved["params"]["requestId"] == question["id"]
    await client.answer(question, {"decision": "accept"})
    assert (await client.run_turn(thread_id, "say alive"))["status"] == "completed"
    assert not (daemon.work / "never").exists()


@pytest.mark.parametrize("method", ["turn/steer", "turn/start"])
async def test_a_message_for_a_running_turn_is_answered_by_a_new_request(
    daemon: DaemonProcess, method: str
) -> None:
    client = daemon.client
    thread_id = await new_thread(client)
    turn_id = await begin(client, thread_id, "hold h first words")
    await client.wait_for("item/agentMessage/delta")
    params = {"threadId": thread_id, "input": user_text("say steered")}
    result = await client.call(method, params | ({"expectedTurnId": turn_id} if "steer" in method else {}))
    assert (result["turnId"] if "steer" in method else result["turn"]["id"]) == turn_id
    seen, turn = await until_end(client)
    assert "turn/started" not in seen
    assert (turn["id"], turn["items"][0]["text"]) == (turn_id, "steered")
    (items,) = await history(client, thread_id)
    assert [item["type"] for item in items] == ["userMessage", "userMessage", "agentMessage"]


async def test_two_clients_see_the_same_turn_and_the_first_answer_wins(daemon: DaemonProcess) -> None:
    first = daemon.client
    thread_id = await new_thread(first)
    await first.run_turn(thread_id, "say before")
    async with daemon.connect("second") as second:
        await second.call("thread/resume", {"threadId": thread_id})
        first.forget()
        second.forget()
        await begin(second, thread_id, "shell echo hi | say done")
        questions = [await each.wait_for("item/commandExecution/requestApproval") for each in (first, second)]
        assert questions[0] == questions[1]
        await first.answer(questions[0], {"decision": "accept"})
        # Of two answers over two connections nobody can say which comes first, until one has settled it.
        for each in (first, second):
            await each.wait_for("serverRequest/resolved")
        await second.answer(questions[1], {"decision": "decline"})
        assert await until_end(first) == await until_end(second)
        items = (await history(second, thread_id))[-1]
        assert [item["status"] for item in items if item["type"] == "commandExecution"] == ["completed"]


async def test_a_turn_goes_on_without_any_client_and_is_there_when_one_comes_back(
    daemon: DaemonProcess,
) -> None:
    async with daemon.connect("leaves") as leaving:
        thread_id = await new_thread(leaving)
        await begin(leaving, thread_id, "hold h while you were away")
        await leaving.wait_for("item/agentMessage/delta")
    daemon.model.release("h")
    client = daemon.client
    await client.wait_for("thread/status/changed", lambda note: note["status"]["type"] == "idle")
    resumed = await client.call("thread/resume", {"threadId": thread_id})
    (turn,) = resumed["thread"]["turns"]
    assert (turn["status"], turn["items"][-1]["text"]) == ("completed", "while you were away")


CUT = "stream disconnected before completion: "
FAILURES: list[tuple[str, str, Any]] = [
    ("http 500 x", "high demand", "internalServerError"),
    ('http 400 {"oops": 1}', '{"oops": 1}', "other"),
    (
        "http 401 who are you",
        "unexpected status 401 Unauthorized: who are you, url: ",
        {"httpConnectionFailed": {"httpStatusCode": 401}},
    ),
    (
        "http 429 slow down",
        "exceeded retry limit, last status: 429 Too Many Requests",
        {"responseTooManyFailedAttempts": {"httpStatusCode": 429}},
    ),
    (
        "cut one two three four",
        CUT + "Transport error: network error: error decoding response body",
        "other",
    ),
    ("nocomplete all of it", CUT + "stream closed before response.completed", "other"),
    ("failed server_error it broke", CUT + "it broke", "other"),
    (
        "failed context_length_exceeded x",
        "out of room in the model's context window",
        "contextWindowExceeded",
    ),
    ("failed insufficient_quota pay", "Quota exceeded. Check your plan and billing", "usageLimitExceeded"),
    ("incomplete max_output_tokens", "Incomplete response returned, reason: max_output_tokens", "other"),
]


async def test_every_failure_of_a_model_has_its_words_its_code_and_its_order(daemon: DaemonProcess) -> None:
    client = daemon.client
    for script, message, info in FAILURES:
        thread_id = await new_thread(client)
        client.forget()
        await begin(client, thread_id, script)
        seen, turn = await until_end(client)
        end = ["status systemError", "error", "thread/readState/changed", "turn/completed"]
        assert seen[-4:] == end, script
        assert turn["status"] == "failed", script
        assert message in turn["error"]["message"], script
        assert turn["error"]["codexErrorInfo"] == info, script
        (error,) = [each["params"] for each in client.seen if each["method"] == "error"]
        assert (error["error"], error["willRetry"]) == (turn["error"], False), script
        assert (await client.run_turn(thread_id, "say fine again"))["status"] == "completed", script


async def test_a_stream_that_breaks_is_asked_for_again_and_the_clients_are_told(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery, open_scripted_model(nursery) as model:
        patient = (
            f'[model_providers.patient]\nname = "p"\nbase_url = "{model.base_url}"\nstream_max_retries = 1\n'
        )
        async with open_daemon(tmp_path, model=model, config=patient) as daemon:
            client = daemon.client
            thread_id = await new_thread(client, modelProvider="patient")
            model.script("cut one two three")
            turn = await client.run_turn(thread_id, "say at last")
            assert turn["items"][0]["text"] == "at last"
            (retry,) = [each["params"] for each in client.seen if each["method"] == "error"]
            assert retry["willRetry"]
            assert retry["error"]["message"] == "Reconnecting... 1/1"
            notes = [each for each in client.seen if each["method"] == "thread/status/changed"]
            assert [note["params"]["status"]["type"] for note in notes] == ["active", "idle"], (
                "the thread stays active while it is tried again"
            )
