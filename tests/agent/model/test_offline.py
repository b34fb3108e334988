"""The built-in offline model: every rule, and that it never pretends to be more than it is."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import trio
import trio.testing

from agent.model.events import (
    ModelRequest,
    OutputItemDone,
    OutputItemStarted,
    ReasoningSummaryDelta,
    ResponseCompleted,
    TextDelta,
)
from agent.model.minimal_json import minimal_instance
from agent.model.offline import HELP, INTRODUCTION, OfflineClient
from agent.model.provider import OFFLINE, open_client
from tests.agent.model.model_setup import CountingRuntime, answer, asking, failing, said
from tests.agent.model.test_failures import ROWS

SPOKEN = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "earlier"}]}
SHELL = [{"type": "function", "name": "exec_command", "parameters": {}}]


def client() -> OfflineClient:
    return OfflineClient(CountingRuntime())


async def text_of(request: ModelRequest) -> str:
    """The streamed text, checked against the finished item."""
    events = await answer(client(), request)
    streamed = "".join(event.delta for event in events if isinstance(event, TextDelta))
    finished = [event.item for event in events if isinstance(event, OutputItemDone)][-1]
    assert finished["content"] == [{"type": "output_text", "text": streamed}]
    assert isinstance(events[-1], ResponseCompleted)
    return streamed


def later(text: str, *after: dict[str, Any], **more: Any) -> ModelRequest:
    """A request in a conversation that has had an answer."""
    request = asking("first", **more)
    request.input.extend([SPOKEN, said(text), *after])
    return request


async def test_it_says_what_it_is_first_and_then_echoes() -> None:
    assert await text_of(asking("hi there")) == f"{INTRODUCTION}\n[offline] You said: hi there"
    assert await text_of(later("hi again")) == "[offline] You said: hi again"


@pytest.mark.parametrize("question", ["who are you?", "What are you", "what model are you ?"])
async def test_it_says_what_it_is_when_asked(question: str) -> None:
    assert await text_of(later(question)) == INTRODUCTION


async def test_help_lists_every_rule() -> None:
    assert await text_of(asking("help")) == HELP
    for rule in ("stream", "run", "think", "fail", "json", "help"):
        assert f"\n  {rule} " in HELP


async def test_context_blocks_are_not_the_user() -> None:
    request = later("hello")
    request.input.append(said("<environment_context>x</environment_context>"))
    assert await text_of(request) == "[offline] You said: hello"


async def test_words_stream_as_slowly_as_asked(mock_clock: trio.testing.MockClock) -> None:
    mock_clock.autojump_threshold = 0
    start = trio.current_time()
    text = await text_of(later("stream 5 200"))
    assert text == "[offline] word1 word2 word3 word4 word5"
    assert trio.current_time() - start == pytest.approx(1.0)


@pytest.mark.parametrize(
    "words", ["stream", "stream x", "stream 1 2 3", "stream -1", "stream ²", "stream " + "9" * 5000]
)
async def test_a_stream_rule_that_makes_no_sense_is_echoed(words: str) -> None:
    assert await text_of(later(words)) == f"[offline] You said: {words}"


async def test_run_calls_the_tool_and_reports_its_output() -> None:
    events = await answer(client(), later("run ls -l", tools=SHELL))
    assert [type(event) for event in events] == [OutputItemStarted, OutputItemDone, ResponseCompleted]
    assert isinstance(events[1], OutputItemDone)
    call = events[1].item
    assert (call["name"], json.loads(call["arguments"])) == ("exec_command", {"cmd": "ls -l"})
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "total 0"}
    assert await text_of(later("run ls -l", call, output, tools=SHELL)) == (
        "[offline] The tool answered:\ntotal 0"
    )


async def test_run_without_the_tool_says_so() -> None:
    assert "not offered" in await text_of(later("run ls"))


async def test_thinking_comes_before_the_answer() -> None:
    events = await answer(client(), later("think two plus two"))
    thought = "".join(event.delta for event in events if isinstance(event, ReasoningSummaryDelta))
    assert thought == "Thinking about: two plus two"
    kinds = [event.item["type"] for event in events if isinstance(event, OutputItemDone)]
    assert kinds == ["reasoning", "message"]


@pytest.mark.parametrize(
    ("rule", "row"),
    [
        ("fail", 0),
        ("fail 500", 0),
        ("fail 401", 2),
        ("fail 429", 3),
        ("fail cut", 6),
        ("fail closed", 7),
        ("fail context", 9),
        ("fail quota", 10),
        ("fail incomplete", 13),
    ],
)
async def test_it_fails_as_a_real_provider_does(rule: str, row: int) -> None:
    _, failure = await failing(client(), later(rule))
    _, message, info, retryable = ROWS[row]
    if rule != "fail 401":
        assert failure.message == message
    assert (failure.info, failure.retryable) == (info, retryable)


async def test_it_can_fail_with_a_bad_request_and_with_words_of_its_own() -> None:
    _, failure = await failing(client(), later("fail 400"))
    assert json.loads(failure.message)["error"]["type"] == "offline"
    events, failure = await failing(client(), later("fail failed"))
    assert failure.message == "stream disconnected before completion: the offline model was asked to fail"
    assert not [event for event in events if isinstance(event, OutputItemDone)]


async def test_an_unknown_failure_is_echoed() -> None:
    assert await text_of(later("fail me not")) == "[offline] You said: fail me not"


async def test_json_without_a_schema_is_an_empty_object() -> None:
    assert await text_of(asking("json")) == "{}"


SCHEMAS: list[Any] = [
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 3},
            "kind": {"enum": ["a", "b"]},
            "count": {"type": "integer", "minimum": 2},
            "score": {"type": ["number", "null"], "exclusiveMinimum": 0},
            "low": {"type": "integer", "maximum": -4},
            "flags": {"type": "array", "items": {"type": "boolean"}, "minItems": 2},
            "child": {"$ref": "#/$defs/child"},
            "either": {"anyOf": [{"type": "null"}, {"type": "string"}]},
            "fixed": {"const": 7},
            "left_out": {"type": "string"},
        },
        "required": ["name", "kind", "count", "score", "low", "flags", "child", "either", "fixed"],
        "additionalProperties": False,
        "$defs": {"child": {"type": "object", "properties": {}}},
    },
    {"type": "array", "items": {"type": "string"}},
    {},
    True,
]


@pytest.mark.parametrize("schema", SCHEMAS)
async def test_an_answer_to_a_schema_fits_it(schema: Any) -> None:
    text = await text_of(asking("json", output_schema=schema))
    jsonschema.validate(json.loads(text), schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "#/nowhere/at/all"},
        {"type": "object", "properties": 5, "required": "x"},
        {"type": "array", "items": {"$ref": "#"}, "minItems": 10**9},
        {"type": []},
        {"enum": []},
        {"type": "array", "minItems": float("inf")},
        5,
        None,
    ],
)
def test_a_schema_that_makes_no_sense_ends_in_some_value(schema: Any) -> None:
    json.dumps(minimal_instance(schema))


async def test_the_same_request_and_runtime_give_the_same_answer() -> None:
    assert await answer(client(), asking("think x")) == await answer(client(), asking("think x"))


async def test_an_empty_conversation_is_answered() -> None:
    request = asking("x")
    request.input.clear()
    assert (await text_of(request)).startswith("[offline]")


async def test_the_provider_needs_no_network_library_and_no_key() -> None:
    offline = open_client(OFFLINE, {}, CountingRuntime())
    assert isinstance((await answer(offline, asking("hi")))[-1], ResponseCompleted)
    await offline.aclose()


async def test_leaving_in_the_middle_leaves_nothing_behind(autojump_clock: trio.testing.MockClock) -> None:
    async with client().stream(later("stream 1000 1000")) as events:
        await anext(events)
        await anext(events)
    with trio.move_on_after(5) as scope:
        await answer(client(), later("stream 1000 1000"))
    assert scope.cancelled_caught
