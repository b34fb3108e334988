"""Chat Completions: the context in its messages, and its chunks as the same events as everywhere."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from agent.model.chat import ChatDecoder, request_body
from agent.model.chat_messages import chat_messages, chat_tools
from agent.model.events import (
    ModelEvent,
    OutputItemDone,
    OutputItemStarted,
    ReasoningTextDelta,
    ResponseCompleted,
    TextDelta,
)
from protocol.errors import TurnFailure
from protocol.threads import TokenCounts
from tests.agent.model.model_setup import CountingRuntime, answer, asking, client_for, said
from tests.support.scripted_model import open_scripted_model

TOOL = {"type": "function", "name": "exec_command", "description": "Runs.", "parameters": {}, "strict": False}


def spoken(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def developer(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": text}]}


def call(call_id: str, arguments: str = "{}") -> dict[str, Any]:
    return {"type": "function_call", "id": "fc", "call_id": call_id, "name": "n", "arguments": arguments}


def output(call_id: str, text: Any = "out") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


def tool_calls(*ids: str) -> list[dict[str, Any]]:
    function = {"name": "n", "arguments": "{}"}
    return [{"id": call_id, "type": "function", "function": function} for call_id in ids]


def tool(call_id: str, text: str = "out") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


REASONING = {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "x"}
ASSISTANT = {"role": "assistant", "content": None}

CONVERSATIONS: list[tuple[list[dict[str, Any]], list[dict[str, Any]]]] = [
    ([said("a"), REASONING, spoken("b")], [user("a"), {"role": "assistant", "content": "b"}]),
    (
        [said("a"), call("1"), call("2"), output("1"), output("2")],
        [user("a"), {**ASSISTANT, "tool_calls": tool_calls("1", "2")}, tool("1"), tool("2")],
    ),
    (
        [spoken("b"), call("1"), output("1")],
        [{"role": "assistant", "content": "b", "tool_calls": tool_calls("1")}, tool("1")],
    ),
    (
        [call("1"), output("1"), call("2"), output("2")],
        [
            {**ASSISTANT, "tool_calls": tool_calls("1")},
            tool("1"),
            {**ASSISTANT, "tool_calls": tool_calls("2")},
            tool("2"),
        ],
    ),
    (
        [call("1"), said("steer"), output("1")],
        [{**ASSISTANT, "tool_calls": tool_calls("1")}, tool("1"), user("steer")],
    ),
    ([call("1"), said("a")], [{**ASSISTANT, "tool_calls": tool_calls("1")}, tool("1", "aborted"), user("a")]),
    ([output("gone"), said("a")], [user("a")]),
    ([said("a"), developer("late")], [user("a"), user("late")]),
    ([{"type": "local_shell_call", "id": "x"}, said("a")], [user("a")]),
    (
        [call("1"), output("1", [{"type": "input_text", "text": "x"}, {"type": "input_text", "text": "y"}])],
        [{**ASSISTANT, "tool_calls": tool_calls("1")}, tool("1", "x\ny")],
    ),
]


@pytest.mark.parametrize(("items", "messages"), CONVERSATIONS)
def test_a_context_is_told_in_messages(items: list[dict[str, Any]], messages: list[dict[str, Any]]) -> None:
    assert chat_messages("", items) == messages


def test_what_developers_say_first_joins_the_one_system_message() -> None:
    messages = chat_messages("Be brief.", [developer("Be kind."), said("a")])
    assert messages == [{"role": "system", "content": "Be brief.\n\nBe kind."}, user("a")]


def test_an_image_makes_a_message_of_parts() -> None:
    content = [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA"},
    ]
    assert chat_messages("", [{"type": "message", "role": "user", "content": content}]) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
            ],
        }
    ]


ITEMS = st.sampled_from([said("a"), spoken("b"), developer("d"), REASONING]) | st.builds(
    lambda make, number: make(str(number)), st.sampled_from([call, output]), st.integers(0, 3)
)


@given(st.lists(ITEMS, max_size=12))
def test_every_call_is_answered_right_after_it_and_nothing_else_is(items: list[dict[str, Any]]) -> None:
    waiting: list[str] = []
    for message in chat_messages("", items):
        if message["role"] == "tool":
            assert waiting.pop(0) == message["tool_call_id"]
        else:
            assert waiting == []
            waiting = [each["id"] for each in message.get("tool_calls", [])]
    assert waiting == []


def test_only_functions_are_offered() -> None:
    function = {"name": "exec_command", "description": "Runs.", "parameters": {}, "strict": False}
    assert chat_tools([TOOL, {"type": "web_search"}]) == [{"type": "function", "function": function}]


def test_a_request_asks_for_usage_and_offers_tools_only_where_there_are_any() -> None:
    body = request_body(asking("x"))
    assert body == {
        "model": "test-model",
        "messages": [{"role": "system", "content": "Be brief."}, user("x")],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    body = request_body(asking("x", tools=[TOOL], effort="low", output_schema={"type": "object"}))
    assert (body["tool_choice"], body["parallel_tool_calls"]) == ("auto", True)
    assert body["reasoning_effort"] == "low"
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}


async def test_a_message_streams_and_ends_with_its_usage(nursery: trio.Nursery) -> None:
    async with open_scripted_model(nursery) as model, client_for(model.base_url, wire_api="chat") as client:
        item = {"type": "message", "id": "msg_0001", "role": "assistant"}
        assert await answer(client, asking("say hello you")) == [
            OutputItemStarted({**item, "content": []}),
            TextDelta("msg_0001", "hello"),
            TextDelta("msg_0001", " you"),
            OutputItemDone({**item, "content": [{"type": "output_text", "text": "hello you"}]}),
            ResponseCompleted(
                "chatcmpl-1",
                TokenCounts(total_tokens=15, input_tokens=10, cached_input_tokens=2, output_tokens=5),
            ),
        ]
        assert model.requests[0].target == "/v1/chat/completions"


async def test_reasoning_ends_where_the_answer_begins(nursery: trio.Nursery) -> None:
    async with open_scripted_model(nursery) as model, client_for(model.base_url, wire_api="chat") as client:
        events = await answer(client, asking("reason hm well ;; yes"))
        assert events[1:3] == [
            ReasoningTextDelta("rs_0001", 0, "hm"),
            ReasoningTextDelta("rs_0001", 0, " well"),
        ]
        assert isinstance(events[3], OutputItemDone)
        assert events[3].item["content"] == [{"type": "reasoning_text", "text": "hm well"}]
        assert isinstance(events[4], OutputItemStarted)


async def test_calls_keep_their_ids_and_their_outputs_lead_to_the_next_step(nursery: trio.Nursery) -> None:
    async with open_scripted_model(nursery) as model, client_for(model.base_url, wire_api="chat") as client:
        request = asking("shell ls ;; pwd | say all done", tools=[TOOL])
        events = await answer(client, request)
        calls = [event.item for event in events if isinstance(event, OutputItemDone)]
        assert [json.loads(each["arguments"])["cmd"] for each in calls] == ["ls", "pwd"]
        request.input.extend([*calls, *(output(each["call_id"]) for each in calls)])
        events = await answer(client, request)
        assert "".join(each.delta for each in events if isinstance(each, TextDelta)) == "all done"


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def part(index: int | None, call_id: str | None, name: str | None, arguments: Any) -> dict[str, Any]:
    piece: dict[str, Any] = {"function": {"name": name, "arguments": arguments}, "id": call_id}
    return piece if index is None else {**piece, "index": index}


def decoded(*chunks: Any) -> list[ModelEvent]:
    decoder = ChatDecoder(CountingRuntime())
    for each in chunks:
        decoder.decode("", each)
    decoder.end()
    return list(decoder.ready)


def calls_of(*parts: dict[str, Any]) -> list[tuple[str, str, str]]:
    events = decoded(*(chunk(tool_calls=[each]) for each in parts), chunk("tool_calls"))
    items = [event.item for event in events if isinstance(event, OutputItemDone)]
    return [(item["call_id"], item["name"], item["arguments"]) for item in items]


def test_pieces_of_calls_are_joined_by_their_index() -> None:
    pieces = [
        part(0, "x", "f", '{"a'),
        part(1, "y", "g", "{"),
        part(0, None, None, '":1}'),
        part(1, None, None, "}"),
    ]
    assert calls_of(*pieces) == [("x", "f", '{"a":1}'), ("y", "g", "{}")]


def test_calls_that_share_an_index_are_told_apart_by_their_ids() -> None:
    assert calls_of(part(0, "x", "f", "{}"), part(0, "y", "g", "{}")) == [("x", "f", "{}"), ("y", "g", "{}")]


def test_calls_without_an_index_are_told_apart_by_their_ids() -> None:
    pieces = [part(None, "x", "f", "{"), part(None, None, None, "}"), part(None, "y", "g", {"a": 1})]
    assert calls_of(*pieces) == [("x", "f", "{}"), ("y", "g", '{"a":1}')]


def test_a_call_without_an_id_or_arguments_gets_some() -> None:
    [(call_id, name, arguments)] = calls_of(part(0, None, "f", ""))
    assert (call_id[:5], name, arguments) == ("call_", "f", "{}")


def test_a_cut_answer_keeps_its_text_but_no_half_call() -> None:
    decoder = ChatDecoder(CountingRuntime())
    for each in (chunk(content="half"), chunk(tool_calls=[part(0, "x", "f", '{"a')]), chunk("length")):
        decoder.decode("", each)
    kinds = [event.item["type"] for event in decoder.ready if isinstance(event, OutputItemDone)]
    assert kinds == ["message"]
    with pytest.raises(TurnFailure, match="max_output_tokens"):
        decoder.end()


@pytest.mark.parametrize(
    "noise",
    [
        None,
        7,
        [],
        {},
        {"choices": None},
        {"choices": [5]},
        {"choices": [{"delta": None}]},
        {"choices": [{"delta": {"content": 5, "tool_calls": 5, "reasoning_content": []}}]},
        {"choices": [{"delta": {"tool_calls": [5]}}]},
        {"usage": 5},
        chunk(content="late"),
    ],
)
def test_a_chunk_that_means_nothing_is_passed_over(noise: Any) -> None:
    plain = decoded(chunk(content="a"), chunk("stop"))
    assert decoded(chunk(content="a"), chunk("stop"), noise) == plain
    if noise != chunk(content="late"):
        assert decoded(noise, chunk(content="a"), chunk("stop")) == plain


@pytest.mark.parametrize("error", [{"message": "no"}, "no", {"code": 5, "message": "no"}])
def test_an_error_in_the_stream_fails_the_response(error: Any) -> None:
    with pytest.raises(TurnFailure, match="stream disconnected before completion: no"):
        decoded({"error": error})
